// The Applier where it does not apply: at rest between two batches, waiting for a store that cannot be written, and for
// a publisher that cannot keep up.
#include <algorithm>
#include <chrono>
#include <utility>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/applier.h"

namespace freshet {
namespace {

constexpr auto kFirstWait = std::chrono::milliseconds(50);
constexpr auto kLongestWait = std::chrono::milliseconds(5'000);
constexpr int kReadTries = 10;                    // about 20 seconds
constexpr auto kCalm = std::chrono::seconds(30);  // a store that breaks after so long is broken anew
constexpr auto kLookEvery = std::chrono::milliseconds(10);

// What waiting and opening the store again may cure.
bool MayPass(const Status& status) {
  return status.category() == Category::kTransient || status.code() == Code::kIoError;
}

}  // namespace

Status Applier::AtRest(const std::function<Status()>& work) {
  std::unique_lock lock(rest_mu_);
  rested_.wait(lock, [this] { return rest_work_ == nullptr; });
  if (!applying_) return work();
  rest_work_ = &work;
  rested_.wait(lock, [&] { return rest_work_ != &work; });
  Status result = std::move(rest_result_);
  rested_.notify_all();
  return result;
}

void Applier::WorkAtRest() {
  const std::lock_guard lock(rest_mu_);
  if (rest_work_ == nullptr) return;
  rest_result_ = store_->writable() ? (*rest_work_)() : Unavailable("the store cannot be written");
  rest_work_ = nullptr;
  rested_.notify_all();
}

std::string Applier::blocked() const {
  const std::lock_guard lock(mu_);
  return blocked_;
}

void Applier::SetBlocked(const std::string& why) {
  const std::lock_guard lock(mu_);
  blocked_ = why;
  blocked_gauge_.Set(why.empty() ? 0 : 1);
}

// A failed write: nothing is acknowledged, nothing is lost. Waits until the store is open again and the commit is in
// it, or until the engine stops.
Status Applier::WriteOrWait(const Commit& commit) {
  const std::uint64_t before = store_->sequence();
  Status status = store_->Write(commit);
  while (!status.ok() && !store_->writable() && MayPass(status)) {
    FRESHET_TRY(ReopenWhenDue());
    if (store_->writable()) {
      // The write may have reached the log although it failed.
      status =
          store_->sequence() == commit.sequence && commit.sequence != before ? Status::Ok() : store_->Write(commit);
      continue;
    }
    if (stopping_) return status;
    WorkAtRest();
    std::this_thread::sleep_for(kLookEvery);
  }
  return status;
}

// A disk that fails to read for a moment. `read` changes nothing, so that it can be done over. What stays unreadable
// ends the engine: the next start looks whether the store can be used.
Status Applier::RetryReads(const std::function<Status()>& read) {
  auto wait = std::chrono::milliseconds(kFirstWait);
  Status status = read();
  if (status.ok() || !MayPass(status)) return status;
  LogError("store", "the store cannot be read; reading the topics waits", {{"reason", status.ToString()}});
  for (int tries = 1; !status.ok() && MayPass(status) && tries < kReadTries && !stopping_; ++tries) {
    SetBlocked(StrCat("the store cannot be read: ", status.message()));
    read_retries_.Add();
    const auto until = std::chrono::steady_clock::now() + wait;
    while (!stopping_ && std::chrono::steady_clock::now() < until) {
      WorkAtRest();
      std::this_thread::sleep_for(kLookEvery);
    }
    wait = std::min(2 * wait, std::chrono::milliseconds(kLongestWait));
    FRESHET_TRY(ReopenWhenDue());
    status = read();
  }
  if (status.ok()) SetBlocked("");
  return status;
}

// A changelog that cannot be published holds the stream back; what is stored stays answered. The store may break
// meanwhile, by a trim or a sync, and nobody else would open it again: without it nothing is ever trimmed.
Status Applier::WaitForPublisher() {
  while (options_.outbox && store_->outbox_bytes() > options_.outbox_max_bytes && !stopping_) {
    WorkAtRest();
    ReportWhenDue();
    FRESHET_TRY(ReopenWhenDue());
    std::this_thread::sleep_for(kLookEvery);
  }
  return Status::Ok();
}

// Opens a store that a write has failed in: at once, then after 50 ms, 100 ms and so on, whether the opening fails or
// the store breaks again soon: every attempt replays the log. Errors: what waiting does not cure.
Status Applier::ReopenWhenDue() {
  if (store_->writable()) return Status::Ok();
  const Status reason = store_->failure();
  if (blocked().empty()) SetBlocked(StrCat("nothing can be committed: ", reason.message()));
  const auto now = std::chrono::steady_clock::now();
  if (now < reopen_due_) return Status::Ok();
  if (reopen_wait_.count() == 0 || now - reopen_tried_ > kCalm) reopen_wait_ = kFirstWait;
  const Status status = TryReopen(reason);
  reopen_tried_ = std::chrono::steady_clock::now();
  reopen_due_ = reopen_tried_ + reopen_wait_;
  reopen_wait_ = std::min(2 * reopen_wait_, std::chrono::milliseconds(kLongestWait));
  return MayPass(status) ? Status::Ok() : status;
}

Status Applier::TryReopen(const Status& reason) {
  Status status = store_->Reopen();
  if (!status.ok()) {
    reopen_failures_.Add();
    SetBlocked(StrCat("nothing can be committed: ", status.message()));
    if (!std::exchange(told_blocked_, true)) {
      LogError("store", "nothing can be committed; reading waits, answers go on",
               {{"reason", reason.ToString()}, {"opening", status.ToString()}});
    }
    return status;
  }
  reopened_.Add();
  told_blocked_ = false;
  SetBlocked("");
  LogInfo("store", "opened again after a failed write", {{"reason", reason.ToString()}});
  if (store_->sequence() < sequence_) {
    // Going on would put new offsets over what is gone. The next start reads it again.
    return Corruption(StrCat(store_options_.directory, ": is at sequence ", store_->sequence(),
                             " after a failed write, ", sequence_.load(),
                             " was committed: the end of its log is lost"));
  }
  return Status::Ok();
}

}  // namespace freshet
