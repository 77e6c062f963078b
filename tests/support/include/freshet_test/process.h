// Child processes: the engine, the sidecar and the broker as a user runs them.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace freshet::test {

// build/<preset>/freshet
[[nodiscard]] std::string FreshetBinary();

// Started by the constructor, killed (SIGKILL) by the destructor; its output goes to `log_file`.
class Process {
 public:
  Process(const std::vector<std::string>& command, const std::string& log_file,
          const std::vector<std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Signal(int signal) const;
  // The exit status as a shell would say it (128 + signal). Waits up to `timeout_ms`, then -1.
  [[nodiscard]] int Wait(int timeout_ms);
  [[nodiscard]] bool running();

 private:
  pid_t pid_ = -1;
  int status_ = -1;
};

// Runs to the end; the standard output goes to *out where given. Returns the exit status, 124 after `timeout_ms`.
int RunCommand(const std::vector<std::string>& command, std::string* out, int timeout_ms = 120'000);

}  // namespace freshet::test
