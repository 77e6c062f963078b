// Logging to standard error: human lines by default, JSON lines by option.
//
// Place in the flow: everywhere. Thread-safe. The only place that names spdlog is log.cc. Never log a secret, a
// record's value, or at a rate that grows with traffic (log the first and then count in a metric).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace freshet {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kHuman, kJson };

// Call once at start, before threads exist; without it: human, info.
void ConfigureLog(LogFormat format, LogLevel level);
[[nodiscard]] bool LogEnabled(LogLevel level);

using LogFields = std::vector<std::pair<std::string_view, std::string>>;

// `component` is the stage ("ingest", "store"); fields become key=value, or JSON members.
void Log(LogLevel level, std::string_view component, std::string_view message, const LogFields& fields = {});

inline void LogDebug(std::string_view component, std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kDebug, component, message, fields);
}
inline void LogInfo(std::string_view component, std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kInfo, component, message, fields);
}
inline void LogWarning(std::string_view component, std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kWarning, component, message, fields);
}
inline void LogError(std::string_view component, std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kError, component, message, fields);
}

}  // namespace freshet
