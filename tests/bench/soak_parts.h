// What freshet_bench soak is made of: the producer's knowledge, records, a server as a process.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "bench.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_source.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"
#include "sidecar_load.h"

namespace freshet::bench {

inline constexpr int kServerUpMs = 60'000;

// What the producer knows of each item, and since when: by the broker's acknowledgement.
class World {
 public:
  explicit World(std::size_t items) : states_(items) {}

  void Begin(std::size_t item) {
    const std::lock_guard lock(mu_);
    states_[item].in_flight = true;
  }
  void End(std::size_t item, bool live, std::int64_t now_ms) {
    const std::lock_guard lock(mu_);
    states_[item] = {live, false, now_ms};
  }
  [[nodiscard]] bool IsLive(std::size_t item) const {
    const std::lock_guard lock(mu_);
    return states_[item].live;
  }
  // Whether it was gone, for certain, at that time of the log.
  [[nodiscard]] bool WasGone(std::size_t item, std::int64_t as_of_ms) const {
    const std::lock_guard lock(mu_);
    const State& state = states_[item];
    return !state.in_flight && !state.live && state.since_ms < as_of_ms;
  }
  [[nodiscard]] std::size_t live() const {
    const std::lock_guard lock(mu_);
    return static_cast<std::size_t>(
        std::count_if(states_.begin(), states_.end(), [](const State& state) { return state.live; }));
  }

 private:
  struct State {
    bool live = false;
    bool in_flight = false;
    std::int64_t since_ms = 0;
  };
  mutable std::mutex mu_;
  std::vector<State> states_;
};

inline std::string RandomVector(int dim, std::mt19937_64* random) {
  std::normal_distribution<float> normal;
  std::string text = "[";
  for (int i = 0; i < dim; ++i) text += StrCat(i == 0 ? "" : ",", normal(*random));
  return text + "]";
}

inline OutRecord ItemRecord(const std::string& id, std::size_t number, std::size_t category,
                            const std::string& vector) {
  OutRecord record;
  record.topic = "items";
  record.key = id;
  record.value =
      StrCat(R"({"attributes":{"title":"Item )", number, R"(","category":)", category, R"(},"vector":)", vector, "}");
  return record;
}

inline OutRecord GoneRecord(const std::string& id) {
  OutRecord record;
  record.topic = "items";
  record.key = id;
  return record;
}

// `freshet run` or `freshet sidecar`.
class Server {
 public:
  Server(const std::string& command, const std::string& directory, const std::string& yaml)
      : directory_(directory), address_file_(directory + "/address") {
    (void)CreateDirectories(directory);
    (void)WriteFileAtomically(directory + "/config.yaml", yaml);
    process_ = std::make_unique<test::Process>(
        std::vector<std::string>{test::FreshetBinary(), command, "--config", directory + "/config.yaml",
                                 "--address-file", address_file_},
        directory + "/log");
  }
  Status Await() {
    if (!test::WaitFor([&] { return FileExists(address_file_) || !process_->running(); }, kServerUpMs) ||
        !FileExists(address_file_)) {
      return Unavailable("a server did not start; is its log in the directory?");
    }
    FRESHET_ASSIGN(const std::string address, ReadFile(address_file_));
    address_ = Trim(address);
    FRESHET_ASSIGN(connection_, LoadConnection::Open(address_));
    return Status::Ok();
  }
  // How it ended and its last words; empty while it runs.
  [[nodiscard]] std::string End() {
    if (process_->running()) return "";
    const auto log = ReadFile(directory_ + "/log");
    const std::string text = log.ok() ? *log : "";
    return StrCat("; ", directory_, " exited with ", process_->Wait(0), ": ",
                  text.substr(text.size() - std::min<std::size_t>(text.size(), 1'000)));
  }
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] test::Process& process() { return *process_; }
  // A number of /v1/status, at the top or one object deep.
  Result<double> StatusOf(std::string_view key, std::string_view within = "") {
    constexpr std::string_view kRequest = "GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n";
    Result<std::string_view> body = connection_->Call(kRequest);
    if (!body.ok()) {  // closed by the server because it was idle
      FRESHET_ASSIGN(connection_, LoadConnection::Open(address_));
      body = connection_->Call(kRequest);
    }
    if (!body.ok()) return body.status();
    FRESHET_ASSIGN(const auto json, ParseJson(*body));
    const JsonValue* from = within.empty() ? &*json : JsonFind(*json, within);
    const JsonValue* value = from == nullptr ? nullptr : JsonFind(*from, key);
    if (value == nullptr || !value->IsNumber()) return Internal(StrCat("/v1/status has no ", key));
    return value->GetDouble();
  }

 private:
  const std::string directory_;
  const std::string address_file_;
  std::unique_ptr<test::Process> process_;
  std::string address_;
  std::unique_ptr<LoadConnection> connection_;
};

}  // namespace freshet::bench
