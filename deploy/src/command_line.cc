#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"

namespace freshet {
namespace {

std::atomic<bool> g_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

extern "C" void OnStopSignal(int signal) {
  // The second request ends at once. Nothing is lost: what is not in the store is read again from the stored offsets.
  if (g_stop.exchange(true)) ::_exit(128 + signal);
}

std::int64_t NowMs() {
  using std::chrono::milliseconds;
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool IsTerminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) != 0 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

}  // namespace

int ExitCode(const Status& status) {
  if (status.ok()) return 0;
  std::cerr << "freshet: " << status.message() << "\n";
  if (status.code() == Code::kConfig) return 78;
  return status.category() == Category::kTransient ? 69 : 1;
}

Status FlushOutput() {
  errno = 0;
  std::cout.flush();
  const bool flushed = std::fflush(stdout) == 0 && std::cout && std::ferror(stdout) == 0;
  if (flushed) return Status::Ok();
  return IoError(StrCat("standard output: ", errno == 0 ? "not all of it was written" : std::strerror(errno)));
}

void InstallStopSignals() {
  struct sigaction action {};
  action.sa_handler = &OnStopSignal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool StopRequested() { return g_stop.load(); }

ProgressBar::ProgressBar(std::string title) : title_(std::move(title)), terminal_(IsTerminal()) {}

ProgressBar::~ProgressBar() {
  if (terminal_ && last_drawn_ms_ != 0) std::cerr << "\n";
}

void ProgressBar::Update(double fraction, const std::string& label) {
  if (!terminal_) return;
  constexpr std::int64_t kRedrawMs = 50;
  constexpr int kWidth = 24;
  const std::int64_t now_ms = NowMs();
  if (now_ms - last_drawn_ms_ < kRedrawMs && fraction < 1) return;
  last_drawn_ms_ = now_ms;
  const int filled = static_cast<int>(std::lround(std::clamp(fraction, 0.0, 1.0) * kWidth));
  std::cerr << "\r" << title_ << " [" << std::string(static_cast<std::size_t>(filled), '#')
            << std::string(static_cast<std::size_t>(kWidth - filled), ' ') << "] "
            << static_cast<int>(std::clamp(fraction, 0.0, 1.0) * 100) << "% " << label << "\033[K" << std::flush;
}

}  // namespace freshet
