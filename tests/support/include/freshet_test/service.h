// The engine or the sidecar as a process, restarted at will, and what a data directory holds: for the crash tests.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

inline constexpr int kServiceUpMs = 60'000;

// A freshet process with a config file, restarted at will.
class Service {
 public:
  Service(std::string command, std::string directory, const std::string& yaml)
      : command_(std::move(command)), directory_(std::move(directory)) {
    EXPECT_OK(CreateDirectories(directory_));
    EXPECT_OK(WriteFileAtomically(directory_ + "/config.yaml", yaml));
  }
  // `faults`: what FRESHET_FAULTS says; `options`: more of the command line.
  void Start(const std::string& faults = "", const std::vector<std::string>& options = {}) {
    ::unlink(AddressFile().c_str());
    std::vector<std::string> command = {FreshetBinary(),  command_,     "--config", directory_ + "/config.yaml",
                                        "--address-file", AddressFile()};
    command.insert(command.end(), options.begin(), options.end());
    process_ = std::make_unique<Process>(
        command, directory_ + "/log",
        faults.empty() ? std::vector<std::string>{} : std::vector<std::string>{"FRESHET_FAULTS=" + faults});
  }
  // Waits until it answers. False when it exited instead.
  [[nodiscard]] bool WaitUntilUp() {
    return WaitFor([this] { return FileExists(AddressFile()) || !process_->running(); }, kServiceUpMs) &&
           FileExists(AddressFile());
  }
  void Kill() {
    process_->Signal(SIGKILL);
    EXPECT_EQ(process_->Wait(kServiceUpMs), 128 + SIGKILL);
  }
  // Its exit code. What it last said is printed when that is not 0.
  [[nodiscard]] int StopGracefully() {
    process_->Signal(SIGTERM);
    const int code = process_->Wait(kServiceUpMs);
    if (code != 0) std::cout << "exited with " << code << ", its log ends with:\n" << EndOfLog() << "\n";
    return code;
  }
  [[nodiscard]] Process& process() { return *process_; }
  [[nodiscard]] std::string data() const { return directory_ + "/data"; }
  // What it last said.
  [[nodiscard]] std::string EndOfLog() const {
    constexpr std::size_t kShownBytes = 6'000;
    const auto log = ReadFile(directory_ + "/log");
    if (!log.ok()) return log.status().ToString();
    return log->substr(log->size() - std::min(log->size(), kShownBytes));
  }
  // One call of it. Errors: as HttpCall(); kNotFound before it has written its address.
  [[nodiscard]] Result<HttpReply> Call(std::string_view method, std::string_view target,
                                       std::string_view body = "") const {
    FRESHET_ASSIGN(const std::string address, ReadFile(AddressFile()));
    return HttpCall(std::string(Trim(address)), method, target, body, 10'000);
  }
  // One number of /v1/status; -1 while it does not answer.
  [[nodiscard]] std::int64_t StatusOf(const char* key) const {
    const auto address = ReadFile(AddressFile());
    if (!address.ok()) return -1;
    const auto reply = HttpCall(std::string(Trim(*address)), "GET", "/v1/status", "", 2'000);
    if (!reply.ok() || reply->status != 200) return -1;
    const auto json = ParseJson(reply->body);
    const JsonValue* value = json.ok() ? JsonFind(**json, key) : nullptr;
    return value != nullptr && value->IsNumber() ? static_cast<std::int64_t>(value->GetDouble()) : -1;
  }
  // A counter or gauge without labels; -1 while it does not answer.
  [[nodiscard]] std::int64_t MetricOf(const std::string& name) const {
    const auto address = ReadFile(AddressFile());
    if (!address.ok()) return -1;
    const auto reply = HttpCall(std::string(Trim(*address)), "GET", "/metrics", "", 2'000);
    if (!reply.ok() || reply->status != 200) return -1;
    for (const std::string& line : Split(reply->body, '\n')) {
      if (line.starts_with(name + " ")) return ParseInt(line.substr(name.size() + 1)).value_or(-1);
    }
    return -1;
  }

 private:
  [[nodiscard]] std::string AddressFile() const { return directory_ + "/address"; }
  const std::string command_;
  const std::string directory_;
  std::unique_ptr<Process> process_;
};

// What `freshet store dump` says, by item id and by user id.
struct Dump {
  std::map<std::string, std::string> items;  // id -> title and vector checksum
  std::map<std::string, std::string> titles;
  std::map<std::string, std::vector<std::string>> histories;
};
inline Dump DumpOf(const std::string& directory) {
  Dump dump;
  std::string out;
  EXPECT_EQ(RunCommand({FreshetBinary(), "store", "dump", directory}, &out), 0);
  for (const std::string& line : Split(out, '\n')) {
    if (line.empty()) continue;
    const auto json = ParseJson(line);
    EXPECT_OK(json);
    if (!json.ok()) continue;
    if (const JsonValue* id = JsonFind(**json, "item_id")) {
      const std::string title(JsonText(*JsonFind(*JsonFind(**json, "attributes"), "title")));
      dump.items[std::string(JsonText(*id))] = StrCat(title, "#", JsonFind(**json, "vector_xxh3")->GetUint64());
      dump.titles[std::string(JsonText(*id))] = title;
    } else if (const JsonValue* user = JsonFind(**json, "user_id")) {
      auto& history = dump.histories[std::string(JsonText(*user))];
      for (const JsonValue& entry : JsonFind(**json, "history")->GetArray()) {
        history.emplace_back(JsonText(*JsonFind(entry, "item_id")));
      }
    }
  }
  return dump;
}

}  // namespace freshet::test
