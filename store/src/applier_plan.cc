// What a batch comes to: what is stale, what changes nothing, what has to be stored, indexed and published.
#include "applier_plan.h"

#include <algorithm>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/store/changelog.h"

namespace freshet {
namespace {

std::string UserIdOf(const UserChange& change) {
  return std::visit([](const auto& body) { return body.user_id; }, change.body);
}

}  // namespace

bool Applier::IsStale(const PartitionProgress& source, std::int64_t offset, std::uint64_t sequence) const {
  const auto it = progress_.find(source.partition);
  if (it == progress_.end()) return false;
  if (is_engine()) return offset < it->second.next_offset;
  // The changelog is at least once: what a publisher sends again after a crash is a run that was seen before.
  if (source.epoch != it->second.epoch) return source.epoch < it->second.epoch;
  return sequence <= it->second.sequence;
}

// An event that the engine published before it was restored comes again under a new number, but from the same place. A
// lower offset with a later time is no such event: the engine's topic was made anew.
bool Applier::IsNewToFollower(const UserChange& change, const PartitionProgress& from,
                              std::map<TopicPartition, PartitionProgress>* sources) const {
  PartitionProgress row = SourceProgress(from.partition, {change.source_topic, change.source.partition},
                                         change.source.offset + 1, change.record_timestamp_ms, from.epoch);
  auto it = sources->find(row.partition);
  if (it == sources->end()) {
    const auto known = progress_.find(row.partition);
    if (known != progress_.end() && known->second.epoch == from.epoch) {
      it = sources->emplace(row.partition, known->second).first;
    }
  }
  if (it != sources->end()) {
    const PartitionProgress& seen = it->second;
    if (row.next_offset <= seen.next_offset && row.last_timestamp_ms <= seen.last_timestamp_ms) return false;
    if (row.next_offset > seen.next_offset)
      row.last_timestamp_ms = std::max(row.last_timestamp_ms, seen.last_timestamp_ms);
  }
  (*sources)[row.partition] = row;
  return true;
}

Status Applier::PlanItems(EncodedBatch* batch, Plan* plan) {
  for (ItemChange& change : batch->items) {
    const PartitionProgress& source = batch->progress[change.progress_index];
    if (IsStale(source, change.position.offset, change.sequence)) {
      ++plan->stale;
      continue;
    }
    FRESHET_TRY(PlanItem(source, &change, plan));
  }
  return Status::Ok();
}

Status Applier::PlanItem(const PartitionProgress& source, ItemChange* change, Plan* plan) {
  const std::string& id = change->update.item_id;
  FRESHET_ASSIGN(const std::optional<ItemRow> old, store_->GetItem(id));
  const auto known = progress_.find(source.partition);
  if (is_engine() && old && IsOlderElsewhere(source, *change, *old)) {
    ++plan->stale;
    return Status::Ok();
  }
  const bool seen_again = is_engine() && known != progress_.end() && change->position.offset < known->second.seen_below;
  Commit::Item item;
  item.item_id = id;
  item.update = &change->update;
  item.row.epoch = is_engine() ? store_->epoch() : source.epoch;
  item.row.position = change->position;
  item.row.source_partition = is_engine() ? change->position.partition : change->source_partition;
  item.row.record_timestamp_ms = change->record_timestamp_ms;
  if (is_engine()) {
    item.row.generation = known == progress_.end() ? 0 : known->second.generation;
    if (change->update.deleted || seen_again) {
      if (seen_again || (!old && !store_->renumbered())) {
        ++plan->unchanged;
        if (old) PlanSeen(*old, std::move(item), seen_again, plan);
        return Status::Ok();
      }
    } else {
      item.row.features_hash = HashOf(change->update.features);
      item.row.attributes_hash = HashOf(change->update.attributes);
    }
  }
  bool same_vector = false;
  if (is_engine() && old && !change->update.deleted) {
    FRESHET_ASSIGN(same_vector, SameVector(*change, *old, item.row.features_hash));
    // A store that was restored may be behind what it published: what it has from before is told once more.
    const bool as_published = old->sequence > store_->renumbered();
    // What has moved is told once more, since followers show and hide by partition.
    const bool moved = old->position.partition != change->position.partition;
    if (same_vector && as_published && !moved && item.row.attributes_hash == old->attributes_hash) {
      ++plan->unchanged;
      PlanSeen(*old, std::move(item), seen_again, plan);
      return Status::Ok();
    }
  }
  if (change->same_features && !same_vector) {
    return Internal(StrCat("item `", id, "` came without a vector, and the store has none of the same features"));
  }
  item.row.sequence = is_engine() ? next_sequence_++ : change->sequence;
  if (change->update.deleted) {
    item.deleted = true;
    item.old_label = old ? std::optional(old->label) : std::nullopt;
    if (old) plan->tombstones.push_back(old->label);
    if (old) plan->visible.push_back({id, std::nullopt});
    ++plan->deletes;
  } else if (same_vector) {
    item.rows = Commit::Item::Rows::kRowAndAttributes;
    item.row.label = old->label;
    plan->visible.push_back({id, old->label, change->update.attributes, PartitionOf(item.row)});
    ++plan->attributes_only;
    ++plan->updates;
    if (options_.outbox && change->update.vector.empty()) {
      FRESHET_ASSIGN(std::optional<std::vector<float>> vector, store_->GetVector(old->label));
      if (!vector) return Corruption(StrCat("item `", id, "` has no vector row"));
      change->update.vector = std::move(*vector);
    }
  } else {
    if (change->update.vector.size() != static_cast<std::size_t>(store_options_.dim)) {
      return Internal(StrCat("item `", id, "` came with ", change->update.vector.size(), " dimensions"));
    }
    RoundTo(store_->options().vectors, change->update.vector);
    if (old) item.old_label = old->label;
    if (old) plan->tombstones.push_back(old->label);
    item.row.label = next_label_++;
    plan->inserts.push_back(item.row.label);
    plan->vectors.insert(plan->vectors.end(), change->update.vector.begin(), change->update.vector.end());
    plan->visible.push_back({id, item.row.label, change->update.attributes, PartitionOf(item.row)});
    ++plan->updates;
  }
  plan->record_timestamps_ms.push_back(change->record_timestamp_ms);
  if (is_engine() && options_.outbox) {
    OutboxEntry entry{item.row.sequence, /*is_user_event=*/false, id, std::nullopt};
    if (!item.deleted) entry.value = EncodeItemValue(*change, store_options_.space_id, store_->options().vectors);
    plan->commit.outbox.push_back(std::move(entry));
  }
  plan->commit.items.push_back(std::move(item));
  return Status::Ok();
}

// Whether the item is stored as a record of another partition says, and that one is newer: the topic was given more
// partitions, which moves keys, and is read from its beginning. Where either partition is being read again the row says
// nothing: the topic may be another one, with other places for its keys.
bool Applier::IsOlderElsewhere(const PartitionProgress& source, const ItemChange& change, const ItemRow& old) const {
  if (old.position.partition == change.position.partition) return false;
  if (change.record_timestamp_ms >= old.record_timestamp_ms) return false;
  const auto here = progress_.find(source.partition);
  const auto there = progress_.find({source.partition.topic, old.position.partition});
  if (here != progress_.end() && here->second.rereading) return false;
  return there != progress_.end() && !there->second.rereading && there->second.generation == old.generation;
}

// The item is in the log as it is stored. Only where its partition is being read again, or it moved to another one, has
// that to be written down.
void Applier::PlanSeen(const ItemRow& old, Commit::Item item, bool seen_before, Plan* plan) const {
  const std::uint32_t generation = item.row.generation;
  if (old.generation == generation && old.position.partition == item.row.position.partition) return;
  const LogPosition position = item.row.position;
  const bool moved = old.position.partition != position.partition;
  item.row = old;
  item.row.generation = generation;
  // What was applied before has its newest position already; in a log that is another one only this record's counts.
  if (moved || !seen_before) item.row.position = position;
  item.row.source_partition = item.row.position.partition;
  item.rows = Commit::Item::Rows::kRow;
  plan->commit.items.push_back(std::move(item));
}

Result<bool> Applier::SameVector(const ItemChange& change, const ItemRow& old, std::uint64_t features_hash) const {
  if (old.features_hash != features_hash) return false;
  if (change.same_features) return true;
  FRESHET_ASSIGN(const std::optional<std::vector<float>> vector, store_->GetVector(old.label));
  std::vector<float> as_stored = change.update.vector;
  RoundTo(store_->options().vectors, as_stored);
  return vector && *vector == as_stored;
}

Status Applier::PlanUsers(EncodedBatch* batch, Plan* plan) {
  // A batch may hold a delivery twice, where a partition was taken away and given back while it filled.
  std::vector<std::int64_t> last_offset(batch->progress.size(), -1);
  for (const UserChange& change : batch->users) {
    const PartitionProgress& source = batch->progress[change.progress_index];
    std::int64_t& last = last_offset[change.progress_index];
    if (change.position.offset <= last || IsStale(source, change.position.offset, change.sequence)) {
      ++plan->stale;
      continue;
    }
    last = change.position.offset;
    if (!change.source_topic.empty() && !IsNewToFollower(change, source, &plan->sources)) {
      ++plan->stale;
      continue;
    }
    FRESHET_TRY(PlanUser(source, change, plan));
  }
  for (auto& [id, user] : plan->users) plan->commit.users.emplace_back(id, user);
  return Status::Ok();
}

Status Applier::PlanUser(const PartitionProgress& source, const UserChange& change, Plan* plan) {
  const std::string id = UserIdOf(change);
  auto it = plan->users.find(id);
  if (it == plan->users.end()) {
    FRESHET_ASSIGN(std::optional<UserState> stored, store_->GetUser(id));
    it = plan->users.emplace(id, std::move(stored)).first;
  }
  std::optional<UserState>& user = it->second;
  const auto* profile = std::get_if<UserUpdate>(&change.body);
  const auto known = progress_.find(source.partition);
  const std::uint32_t generation = known == progress_.end() ? 0 : known->second.generation;
  if (is_engine() && known != progress_.end() && change.position.offset < known->second.seen_below) {
    ++plan->unchanged;  // applied before the partition was read again
    if (profile != nullptr && !profile->forgotten && user && user->profile_partition == source.partition.partition) {
      user->profile_generation = generation;
    }
    return Status::Ok();
  }
  if (is_engine()) {
    FRESHET_ASSIGN(const bool gone, WasForgotten(id, change, plan));
    if (gone) {
      ++plan->stale;
      return Status::Ok();
    }
  }
  ++plan->user_changes;
  const bool existed = user.has_value();
  ApplyUserChange(change, {options_.history, options_.seen}, &user, &plan->history);
  if (user) {
    user->partition = source.partition.partition;
    user->epoch = is_engine() ? store_->epoch() : source.epoch;
    if (is_engine() && profile != nullptr) {
      user->profile_partition = source.partition.partition;
      user->profile_generation = generation;
    }
  }
  if (!existed && user) ++plan->new_users;
  if (existed && !user) ++plan->gone_users;
  plan->record_timestamps_ms.push_back(change.record_timestamp_ms);
  const std::uint64_t sequence = is_engine() ? next_sequence_++ : change.sequence;
  if (is_engine() && options_.outbox) {
    plan->commit.outbox.push_back(
        {sequence, /*is_user_event=*/true, id, EncodeUserValue(change, source.partition.topic)});
  }
  return Status::Ok();
}

// Whether this is something that `id` did before he was forgotten. Notes when that is what the change says. A follower
// gets these in the engine's order, without what was dropped.
Result<bool> Applier::WasForgotten(const std::string& id, const UserChange& change, Plan* plan) {
  const auto* profile = std::get_if<UserUpdate>(&change.body);
  if (profile != nullptr) {
    if (!profile->forgotten) return false;
    const std::int64_t now_ms = clock_->WallMs();
    // What is said to be of the future is of now: it may not silence him.
    const std::int64_t at_ms = change.record_timestamp_ms > 0 ? std::min(change.record_timestamp_ms, now_ms) : now_ms;
    plan->forgotten_ms[id] = at_ms;
    plan->commit.forgotten.emplace_back(id, ForgottenRow{at_ms, now_ms});
    return false;
  }
  auto it = plan->forgotten_ms.find(id);
  if (it == plan->forgotten_ms.end()) {
    if (!any_forgotten_) return false;
    FRESHET_ASSIGN(const std::optional<ForgottenRow> row, store_->GetForgotten(id));
    it = plan->forgotten_ms.emplace(id, row ? row->at_ms : 0).first;
  }
  return it->second > 0 && TimeOf(std::get<Interaction>(change.body), change.record_timestamp_ms) <= it->second;
}

// A follower meets a new epoch in a partition: the engine began again with an empty store and publishes everything
// anew. What this partition said under the old epoch is then nobody's word any more.
Status Applier::PlanEpochs(EncodedBatch* batch, Plan* plan) {
  if (is_engine()) return Status::Ok();
  for (const PartitionProgress& source : batch->progress) {
    const auto known = progress_.find(source.partition);
    if (known == progress_.end() || known->second.epoch == 0 || source.epoch <= known->second.epoch) continue;
    LogWarning("store", "the changelog comes from a new store; what the old one said of this partition is dropped",
               {{"partition", StrCat(source.partition.topic, "[", source.partition.partition, "]")}});
    if (source.partition.topic == options_.vectors_topic) {
      std::set<std::string> replaced;
      for (const ItemChange& change : batch->items) replaced.insert(change.update.item_id);
      FRESHET_TRY(store_->ForEachItem([&](std::string_view id, const ItemRow& row) {
        // What came with a snapshot carries the engine's partitions: of that epoch everything goes.
        const bool from_here =
            row.position.partition == source.partition.partition || row.epoch == store_->restored_epoch();
        if (!from_here || row.epoch >= source.epoch) return Status::Ok();
        if (!replaced.contains(std::string(id))) PlanRemoval(std::string(id), row.label, plan);
        return Status::Ok();
      }));
    } else {
      FRESHET_TRY(store_->ForEachUser([&](std::string_view id, const UserState& user) {
        const bool from_here = user.partition == source.partition.partition || user.epoch == store_->restored_epoch();
        if (!from_here || user.epoch >= source.epoch) return Status::Ok();
        plan->history.removed.insert(plan->history.removed.end(), user.history.begin(), user.history.end());
        plan->users[std::string(id)] = std::nullopt;
        ++plan->gone_users;
        return Status::Ok();
      }));
    }
  }
  return Status::Ok();
}

void Applier::PlanRemoval(const std::string& item_id, Label label, Plan* plan) {
  Commit::Item item;
  item.item_id = item_id;
  item.old_label = label;
  item.deleted = true;
  plan->commit.items.push_back(std::move(item));
  plan->tombstones.push_back(label);
  plan->visible.push_back({item_id, std::nullopt});
  ++plan->deletes;
}

void Applier::PlanProgress(const EncodedBatch& batch, Plan* plan) const {
  plan->newest = sequence_;
  for (const PartitionProgress& source : batch.progress) {
    const auto known = progress_.find(source.partition);
    PartitionProgress merged = source;
    if (known != progress_.end()) {
      const PartitionProgress& old = known->second;
      merged.complete_ms = std::max(source.complete_ms, old.complete_ms);
      if (merged.next_offset <= old.next_offset) {
        if (merged.complete_ms == old.complete_ms) continue;
        merged = old;
        merged.complete_ms = source.complete_ms;
      }
      merged.generation = old.generation;
      merged.rereading = old.rereading;
      merged.seen_below = old.seen_below;
      if (merged.epoch < old.epoch) {
        merged.epoch = old.epoch;
        merged.sequence = old.sequence;
      } else if (merged.epoch == old.epoch) {
        merged.sequence = std::max(merged.sequence, old.sequence);
      }
    }
    plan->newest = std::max(plan->newest, merged.sequence);
    plan->commit.progress.push_back(std::move(merged));
  }
  for (auto& [partition, row] : plan->sources) plan->commit.progress.push_back(std::move(row));
}

}  // namespace freshet
