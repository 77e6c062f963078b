#include "freshet_test/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "freshet/core/file.h"
#include "freshet_test/test_support.h"

extern char** environ;

namespace freshet::test {
namespace {

pid_t Spawn(const std::vector<std::string>& command, const std::string& output, const std::string& errors,
            const std::vector<std::string>& environment) {
  std::vector<char*> arguments;
  for (const std::string& part : command) arguments.push_back(const_cast<char*>(part.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.push_back(*variable);
  for (const std::string& variable : environment) variables.push_back(const_cast<char*>(variable.c_str()));
  variables.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), kFlags, 0644);
  if (errors == output) {
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  } else if (!errors.empty()) {
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors.c_str(), kFlags, 0644);
  }
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << command[0] << ": " << std::strerror(error);
  return error == 0 ? pid : -1;
}

}  // namespace

std::string FreshetBinary() { return FRESHET_BINARY; }

Process::Process(const std::vector<std::string>& command, const std::string& log_file,
                 const std::vector<std::string>& environment)
    : pid_(Spawn(command, log_file, log_file, environment)) {}

Process::~Process() {
  if (pid_ > 0 && running()) {
    Signal(SIGKILL);
    static_cast<void>(Wait(10'000));
  }
}

void Process::Signal(int signal) const {
  if (pid_ > 0) ::kill(pid_, signal);
}

bool Process::running() {
  if (pid_ <= 0 || status_ != -1) return false;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

int Process::Wait(int timeout_ms) {
  return WaitFor([this] { return !running(); }, timeout_ms) ? status_ : -1;
}

int RunCommand(const std::vector<std::string>& command, std::string* out, int timeout_ms) {
  const TempDir directory;
  const std::string file = directory / "out";
  int exit_status = 124;
  {
    const pid_t pid = Spawn(command, file, "", {});
    if (pid < 0) return 127;
    int status = 0;
    const bool ended = WaitFor([&] { return ::waitpid(pid, &status, WNOHANG) == pid; }, timeout_ms);
    if (!ended) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, &status, 0);
    } else {
      exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
  }
  if (out != nullptr) {
    const auto content = ReadFile(file);
    *out = content.ok() ? *content : "";
  }
  return exit_status;
}

}  // namespace freshet::test
