// The Applier where it does not apply: at rest between two batches, waiting for a store that cannot be written, and
// comparing index and store while it runs.
#include <algorithm>
#include <chrono>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/applier.h"

namespace freshet {
namespace {

constexpr auto kFirstWait = std::chrono::milliseconds(50);
constexpr auto kLongestWait = std::chrono::milliseconds(2'000);
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

// A failed write: nothing is acknowledged, nothing is lost. Waits until the store is open again and the commit is in
// it, or until the engine stops.
Status Applier::WriteOrWait(const Commit& commit) {
  const std::uint64_t before = store_->sequence();
  Status status = store_->Write(commit);
  std::chrono::milliseconds wait = kFirstWait;
  while (!status.ok() && !store_->writable() && MayPass(status)) {
    Status reopened = TryReopen(status);
    if (reopened.ok()) {
      // The write may have reached the log although it failed.
      status =
          store_->sequence() == commit.sequence && commit.sequence != before ? Status::Ok() : store_->Write(commit);
      continue;
    }
    if (!MayPass(reopened)) return reopened;
    for (auto waited = std::chrono::milliseconds(0); waited < wait; waited += kLookEvery) {
      if (stopping_) return status;
      WorkAtRest();
      std::this_thread::sleep_for(kLookEvery);
    }
    wait = std::min(2 * wait, kLongestWait);
  }
  return status;
}

Status Applier::TryReopen(const Status& reason) {
  const Status status = store_->Reopen();
  bool first = false;
  {
    const std::lock_guard lock(mu_);
    first = blocked_.empty();
    blocked_ = status.ok() ? "" : StrCat("nothing can be committed: ", status.message());
  }
  blocked_gauge_.Set(status.ok() ? 0 : 1);
  if (status.ok()) {
    reopened_.Add();
    LogInfo("store", "opened again after a failed write", {{"reason", reason.ToString()}});
  } else if (first) {
    LogError("store", "nothing can be committed; reading waits, answers go on",
             {{"reason", reason.ToString()}, {"opening", status.ToString()}});
  }
  return status;
}

Result<std::uint64_t> Applier::AuditAndRepair() {
  const std::vector<Label> indexed = index_->LiveLabels();
  std::map<Label, std::string> ids;  // of suspects
  std::vector<std::pair<Label, std::string>> stored;
  FRESHET_TRY(store_->ForEachItem([&](std::string_view id, const ItemRow& row) {
    stored.emplace_back(row.label, std::string(id));
    return Status::Ok();
  }));
  std::sort(stored.begin(), stored.end());
  std::vector<Label> labels;
  labels.reserve(stored.size());
  for (const auto& [label, id] : stored) labels.push_back(label);
  std::vector<Label> extra;
  std::set_difference(indexed.begin(), indexed.end(), labels.begin(), labels.end(), std::back_inserter(extra));
  for (const auto& [label, id] : stored) {
    if (!std::binary_search(indexed.begin(), indexed.end(), label)) ids.emplace(label, id);
  }
  if (extra.empty() && ids.empty()) return std::uint64_t{0};
  // Most of it came or went while we looked. At rest everything that is committed is visible: what differs then,
  // differs.
  std::uint64_t repaired = 0;
  FRESHET_TRY(AtRest([&]() -> Status {
    const std::vector<Label> now = index_->LiveLabels();
    std::vector<Label> missing;
    for (const auto& [label, id] : ids) {
      FRESHET_ASSIGN(const std::optional<ItemRow> row, store_->GetItem(id));
      if (row && row->label == label && !std::binary_search(now.begin(), now.end(), label)) missing.push_back(label);
    }
    std::vector<Label> ghosts;
    for (const Label label : extra) {
      if (std::binary_search(now.begin(), now.end(), label)) ghosts.push_back(label);
    }
    index_->Tombstone(ghosts);
    repaired = ghosts.size() + missing.size();
    return InsertStored(missing, {});
  }));
  if (repaired > 0) {
    LogError("store", "index and store differed; repaired from the store", {{"differences", StrCat(repaired)}});
  }
  return repaired;
}

}  // namespace freshet
