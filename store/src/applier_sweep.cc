// Mark and sweep of a partition that is read again from its beginning (see ingest's kafka_readings.h for why).
//
// When it begins, the partition gets a new generation, in one commit with its offset going back to the beginning.
// Whatever record of it is then applied, or found to change nothing, writes the generation down with its item. When the
// end of the log is reached, what still has an older generation is no longer in the log and is removed, as if it had
// been deleted; followers are told as of any delete. All of it is in the store, so that a crash at any moment goes on
// where it was: reading with the stored offset, sweeping from the start. What a later record adds again has the new
// generation, so no sweep removes it.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "applier_plan.h"
#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/changelog.h"

namespace freshet {
namespace {

constexpr std::size_t kSweepBatch = 1024;  // removals in one commit

}  // namespace

Status Applier::ApplyMark(const PartitionMark& mark) {
  const auto known = progress_.find(mark.partition);
  PartitionProgress progress;
  if (known != progress_.end()) progress = known->second;
  progress.partition = mark.partition;
  if (mark.kind == PartitionMark::Kind::kCaughtUp) return progress.rereading ? Sweep(progress) : Status::Ok();
  progress.seen_below = mark.same_log ? std::max(progress.seen_below, progress.next_offset) : 0;
  progress.next_offset = 0;
  progress.fingerprint = 0;
  progress.complete_ms = clock_->WallMs();
  progress.rereading = true;
  ++progress.generation;
  Plan plan;
  plan.newest = sequence_;
  plan.commit.progress.push_back(std::move(progress));
  FRESHET_TRY(Write(&plan, 0));
  return FaultPoint("applier.after_reread");
}

Status Applier::Sweep(const PartitionProgress& swept) {
  std::size_t removed = 0;
  if (swept.partition.topic == options_.items_topic) FRESHET_TRY(SweepItems(swept, &removed));
  if (swept.partition.topic == options_.users_topic) FRESHET_TRY(SweepUsers(swept, &removed));
  FRESHET_TRY(FaultPoint("applier.after_sweep"));
  Plan plan;
  plan.newest = sequence_;
  plan.commit.progress.push_back(swept);
  plan.commit.progress.back().rereading = false;
  plan.commit.progress.back().seen_below = 0;
  FRESHET_TRY(Write(&plan, 0));
  LogInfo("store", "a partition was read again to its end",
          {{"topic", swept.partition.topic},
           {"partition", StrCat(swept.partition.partition)},
           {"removed", StrCat(removed)}});
  return Status::Ok();
}

Status Applier::SweepItems(const PartitionProgress& swept, std::size_t* removed) {
  std::vector<std::pair<std::string, Label>> gone;
  FRESHET_TRY(RetryReads([&] {
    gone.clear();
    return store_->ForEachItem([&](std::string_view id, const ItemRow& row) {
      if (row.position.partition == swept.partition.partition && row.generation != swept.generation) {
        gone.emplace_back(id, row.label);
      }
      return Status::Ok();
    });
  }));
  for (std::size_t begin = 0; begin < gone.size(); begin += kSweepBatch) {
    Plan plan;
    for (std::size_t i = begin; i < std::min(gone.size(), begin + kSweepBatch); ++i) {
      const auto& [id, label] = gone[i];
      PlanRemoval(id, label, &plan);
      ++plan.swept;
      const std::uint64_t sequence = next_sequence_++;
      if (options_.outbox) plan.commit.outbox.push_back({sequence, /*is_user_event=*/false, id, std::nullopt});
    }
    FRESHET_TRY(Write(&plan, 0));
    FRESHET_TRY(FaultPoint("applier.within_sweep"));
  }
  *removed = gone.size();
  return Status::Ok();
}

// A profile that is in the topic no more was deleted: its user asked to be forgotten.
Status Applier::SweepUsers(const PartitionProgress& swept, std::size_t* removed) {
  std::vector<std::string> gone;
  FRESHET_TRY(RetryReads([&] {
    gone.clear();
    return store_->ForEachUser([&](std::string_view id, const UserState& user) {
      if (user.profile_partition == swept.partition.partition && user.profile_generation != swept.generation) {
        gone.emplace_back(id);
      }
      return Status::Ok();
    });
  }));
  const PartitionProgress nowhere;  // no record says it, so that followers take each of them as it comes
  for (std::size_t begin = 0; begin < gone.size(); begin += kSweepBatch) {
    Plan plan;
    const std::uint64_t first_sequence = next_sequence_;
    const Status planned = RetryReads([&] {
      plan = Plan();
      next_sequence_ = first_sequence;
      for (std::size_t i = begin; i < std::min(gone.size(), begin + kSweepBatch); ++i) {
        UserChange change;
        change.body = UserUpdate{gone[i], /*forgotten=*/true, {}};
        FRESHET_TRY(PlanUser(nowhere, change, &plan));
        ++plan.swept;
      }
      return Status::Ok();
    });
    FRESHET_TRY(planned);
    for (auto& [id, user] : plan.users) plan.commit.users.emplace_back(id, user);
    FRESHET_TRY(Write(&plan, 0));
  }
  *removed = gone.size();
  return Status::Ok();
}

}  // namespace freshet
