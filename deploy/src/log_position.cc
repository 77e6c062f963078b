#include "log_position.h"

#include <algorithm>
#include <chrono>

#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet/store/restore.h"
#include "space_move.h"

namespace freshet {
namespace {

constexpr auto kAskTimeout = std::chrono::seconds(5);
// In the data directory: the snapshot that the state came from (or nothing), and why the log could not be read on. It
// goes where the state goes: aside.
constexpr char kLostFile[] = "LOST";

struct Word {
  std::string snapshot;
  std::string why;
};
std::optional<Word> WordOfLoss(const Config& config) {
  const auto text = ReadFile(StrCat(config.data_dir, "/", kLostFile), 64 << 10);
  if (!text.ok()) return std::nullopt;
  const std::size_t end = text->find('\n');
  if (end == std::string::npos) return Word{"", *text};
  return Word{text->substr(0, end), text->substr(end + 1)};
}

std::string Name(const TopicPartition& partition) { return StrCat(partition.topic, "[", partition.partition, "]"); }

// The newest snapshot, in place of the node's state. Errors: kNotFound: none can be used, and the state stays.
Result<std::unique_ptr<Node>> Restore(const Config& config, std::unique_ptr<Node> node,
                                      const std::function<void(double)>& progress, Status* restored) {
  RestoreOptions options;
  options.data_dir = config.data_dir;
  options.follower = true;
  options.space_id = node->applier->space_id();
  options.dim = node->applier->dim();
  options.metric = MetricName(node->applier->metric());
  options.progress = progress;
  const std::unique_ptr<SnapshotRepository> repository = std::move(node->repository);
  node.reset();  // of its directory there is one owner
  const auto done = RestoreSnapshot(*repository, options);
  *restored = done.status();
  FRESHET_ASSIGN(node, Node::Open(config, ApplierOptions::Role::kFollower, {}, progress));
  if (done.ok()) node->restored = done->manifest.id;
  return node;
}

// Whether the newest snapshot is the one that this state came from, when it could not be followed from there.
bool IsTheSameAgain(const SnapshotRepository& repository, const std::optional<Word>& word) {
  if (!word || word->snapshot.empty()) return false;
  const auto entries = repository.List();
  if (!entries.ok()) return false;
  const auto newest =
      std::find_if(entries->begin(), entries->end(), [](const SnapshotEntry& entry) { return entry.status.ok(); });
  return newest != entries->end() && newest->id == word->snapshot;
}

}  // namespace

std::optional<LostPosition> FindLoss(const Config& config, const Node& node) {
  using Cause = LostPosition::Cause;
  if (const auto word = WordOfLoss(config)) return LostPosition{Cause::kOtherLog, word->why};
  const std::string& vectors = config.publisher.vectors_topic;
  const std::string& user_events = config.publisher.user_events_topic;
  const auto marks = QueryWatermarks(config.kafka, {vectors, user_events}, kAskTimeout);
  if (!marks.ok()) return std::nullopt;  // told when following begins
  const auto retention = TombstoneRetentionMs(config.kafka, {vectors}, kAskTimeout);
  std::optional<LostPosition> found;
  for (const auto& [partition, mark] : *marks) {
    const StoredPositions stored = node.applier->Stored({partition});
    const std::int64_t next = stored.empty() ? 0 : stored.begin()->second.next_offset;
    if (next > mark.high) {
      return LostPosition{Cause::kOtherLog, StrCat(Name(partition), " ends at offset ", mark.high, ", ", next,
                                                   " was to be next: the topic was made anew, or its log was cut")};
    }
    const bool users = partition.topic == user_events;
    // Nothing stored: it would begin where the log begins, which is no longer its beginning.
    if (next < mark.low && (users || next > 0)) {
      found = LostPosition{
          users ? Cause::kUserEvents : Cause::kTombstones,
          StrCat(Name(partition), " begins at offset ", mark.low, ", ", next, " was to be next: it is kept no longer")};
    }
    if (users || stored.empty() || !retention.contains(vectors)) continue;
    const std::int64_t complete_ms = stored.begin()->second.complete_ms;
    if (complete_ms > 0 && node.clock.WallMs() - complete_ms > retention.at(vectors)) {
      return LostPosition{Cause::kTombstones,
                          StrCat("nothing was read of ", Name(partition), " for longer than its delete.retention.ms (",
                                 retention.at(vectors), "): deletes may have been compacted away")};
    }
  }
  return found;
}

Result<std::unique_ptr<Node>> OpenWhereTheLogIs(const Config& config, const std::function<void(double)>& progress,
                                                std::vector<TopicPartition>* forgotten) {
  using Cause = LostPosition::Cause;
  auto opened = Node::Open(config, ApplierOptions::Role::kFollower, {}, progress);
  if (opened.status().code() == Code::kFailedPrecondition) {
    FRESHET_ASSIGN(const std::string moved_by, RestoreForModel(config, progress));
    if (!moved_by.empty()) {
      opened = Node::Open(config, ApplierOptions::Role::kFollower, {}, progress);
      if (opened.ok()) (*opened)->restored = moved_by;
    }
  }
  FRESHET_TRY(opened.status());
  std::unique_ptr<Node> node = std::move(*opened);
  std::optional<LostPosition> lost = FindLoss(config, *node);
  if (!lost) return node;
  const bool has_repository = node->repository != nullptr;
  if (has_repository && node->restored.empty() && !IsTheSameAgain(*node->repository, WordOfLoss(config))) {
    LogWarning("sidecar", "cannot follow from where it was: restores the newest snapshot", {{"reason", lost->why}});
    Status restored;
    FRESHET_ASSIGN(node, Restore(config, std::move(node), progress, &restored));
    if (!restored.ok()) LogWarning("sidecar", "no snapshot can be used", {{"reason", restored.ToString()}});
    if (restored.ok()) lost = FindLoss(config, *node);
    if (!lost) return node;
  }
  if (lost->cause == Cause::kUserEvents) {
    LogWarning("sidecar", "events of users that were missed stay missed", {{"reason", lost->why}});
    const auto marks = QueryWatermarks(config.kafka, {config.publisher.user_events_topic}, kAskTimeout);
    if (!marks.ok()) return marks.status();
    for (const auto& [partition, mark] : *marks) {
      const auto stored = node->applier->StoredOffsets({partition});
      if (!stored.empty() && stored.begin()->second < mark.low) forgotten->push_back(partition);
    }
    return node;
  }
  if (lost->cause == Cause::kOtherLog && has_repository) {
    return FailedPrecondition(StrCat(lost->why,
                                     ". The topic may hold only what has changed since, and no snapshot is newer: take "
                                     "one (freshet snapshot create), then start again"));
  }
  LogWarning("sidecar", "begins empty and reads the changelog from its beginning", {{"reason", lost->why}});
  node.reset();
  FRESHET_TRY(SetStoreAside(config.data_dir));
  return Node::Open(config, ApplierOptions::Role::kFollower, {}, progress, /*from_log=*/true);
}

void RememberLoss(const Config& config, const Node& node, const Status& status) {
  const Status written =
      WriteFileAtomically(StrCat(config.data_dir, "/", kLostFile), StrCat(node.restored, "\n", status.message()));
  if (!written.ok()) LogError("sidecar", "word of a lost position cannot be left", {{"reason", written.ToString()}});
}

}  // namespace freshet
