// The sub-commands of `freshet`, one file each (cmd_*.cc).
//
// Place in the flow: main.cc builds the CLI11 app from these. Each function adds its sub-command, with help text and a
// pasteable example in the footer, and sets *run when that sub-command is chosen; main then calls it. The returned
// number is the exit code: 0, 1 failure, 2 usage, 69 dependency unavailable, 78 configuration. Data goes to standard
// output, messages to standard error; progress bars only on a terminal.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "freshet/core/status.h"

namespace CLI {
class App;
}

namespace freshet {

using CommandRunner = std::function<int()>;

void AddRunCommand(CLI::App* app, CommandRunner* run);
void AddSidecarCommand(CLI::App* app, CommandRunner* run);
void AddBrokerCommand(CLI::App* app, CommandRunner* run);
void AddImportCommand(CLI::App* app, CommandRunner* run);
void AddReplayCommand(CLI::App* app, CommandRunner* run);
void AddTrainCommand(CLI::App* app, CommandRunner* run);
void AddEvaluateCommand(CLI::App* app, CommandRunner* run);
void AddModelCommand(CLI::App* app, CommandRunner* run);
void AddIndexCommand(CLI::App* app, CommandRunner* run);
void AddQueryCommand(CLI::App* app, CommandRunner* run);
void AddConfigCommand(CLI::App* app, CommandRunner* run);
void AddDeadLettersCommand(CLI::App* app, CommandRunner* run);
void AddStoreCommand(CLI::App* app, CommandRunner* run);
void AddSnapshotCommand(CLI::App* app, CommandRunner* run);

// 69 for transient codes, 78 for kConfig, else 1; prints "freshet: <message>" to standard error when not ok.
int ExitCode(const Status& status);

// Whether all that was printed has reached standard output, for commands whose output is their result. Errors: kIoError
// (a full disk, a pipe that nobody reads).
[[nodiscard]] Status FlushOutput();

// SIGINT and SIGTERM: the first sets the flag, a second ends the process at once (nothing is lost: what was not stored
// is read again). Call before threads start.
void InstallStopSignals();
[[nodiscard]] bool StopRequested();

// "[####      ] 40% label" on standard error, redrawn in place on a terminal, silent elsewhere. `fraction` 0..1.
class ProgressBar {
 public:
  explicit ProgressBar(std::string title);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void Update(double fraction, const std::string& label);

 private:
  const std::string title_;
  const bool terminal_;
  std::int64_t last_drawn_ms_ = 0;
};

}  // namespace freshet
