// What `train` and `evaluate` share: times, the split, and settings from a file.
//
// Place in the flow: private to the command line. Single-threaded.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "freshet/core/status.h"
#include "freshet/core/yaml.h"
#include "freshet/encoder/split.h"

namespace CLI {
class App;
}

namespace freshet {

// Unix milliseconds of "1303776000000", "2011-04-26", "2011-04-26T12:30" or "2011-04-26T12:30:00Z" (UTC).
[[nodiscard]] std::optional<std::int64_t> ParseTime(std::string_view text);
// The same of an option's text, 0 when it is empty. Errors: kConfig, naming the option.
[[nodiscard]] Result<std::int64_t> TimeOption(const char* option, const std::string& text);

// The texts of the options; Read() turns them into a split.
struct SplitArguments {
  SplitOptions split;
  std::string kind;  // empty: time where a date is given, else fraction
  std::string validation_from;
  std::string test_from;
  std::string test_until;
  [[nodiscard]] Result<SplitOptions> Read() const;
};
void AddSplitOptions(CLI::App* command, SplitArguments* arguments);

// Adds --config FILE: a YAML mapping of sections, of which `split` and `section` hold options of this command without
// their dashes (`batch_size: 512` is --batch-size 512; a mapping is NAME=VALUE for each of its keys). What the command
// line says wins. The sections of the other commands are left alone. Apply() reads the file; call it first when the
// command runs.
class ConfigFileOption {
 public:
  // Of the sections `features` and `schema`, which are no lists of options.
  using ReadSection = std::function<Status(const YamlNode& node, const std::string& file)>;

  // Without a reader such a section is another command's.
  ConfigFileOption(CLI::App* command, std::string section, ReadSection features = nullptr,
                   ReadSection schema = nullptr);
  // Errors: kConfig, "file:line: what", for every unknown section or key and every value that an option refuses.
  Status Apply() const;

 private:
  CLI::App* const command_;
  const std::string section_;
  const ReadSection features_;
  const ReadSection schema_;
  const std::shared_ptr<std::string> file_ = std::make_shared<std::string>();
};

}  // namespace freshet
