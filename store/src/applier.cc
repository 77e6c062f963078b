#include "freshet/store/applier.h"

#include <algorithm>
#include <chrono>

#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/changelog.h"
#include "user_history.h"

namespace freshet {
namespace {

constexpr std::int64_t kForgetLabelsEveryUs = 60'000'000;  // far above any request's deadline
constexpr auto kBackpressureWait = std::chrono::milliseconds(20);
constexpr auto kRestEvery = std::chrono::milliseconds(10);

std::string UserIdOf(const UserChange& change) {
  return std::visit([](const auto& body) { return body.user_id; }, change.body);
}

}  // namespace

// What one batch comes to, before anything is changed.
struct Applier::Plan {
  Commit commit;
  std::map<std::string, std::optional<UserState>> users;  // as they will be
  std::vector<Catalog::Change> visible;
  std::vector<Label> tombstones;
  std::vector<Label> inserts;
  std::vector<float> vectors;
  std::vector<std::int64_t> record_timestamps_ms;  // of what becomes visible
  std::vector<std::pair<std::string, std::int64_t>> interactions;
  std::map<TopicPartition, PartitionProgress> sources;  // follower: see SourceProgress()
  std::uint64_t stale = 0;
  std::uint64_t user_changes = 0;
  std::uint64_t new_users = 0;
  std::uint64_t gone_users = 0;
};

Applier::Applier(const ApplierOptions& options, const StoreOptions& store_options, Store* store,
                 std::unique_ptr<Index> index, const Clock* clock, Metrics* metrics)
    : options_(options),
      store_options_(store_options),
      store_(store),
      index_(std::move(index)),
      clock_(clock),
      applied_items_(metrics->GetCounter("freshet_applied_total", "Changes applied", {{"kind", "item"}})),
      applied_deletes_(metrics->GetCounter("freshet_applied_total", "Changes applied", {{"kind", "delete"}})),
      applied_users_(metrics->GetCounter("freshet_applied_total", "Changes applied", {{"kind", "user_event"}})),
      stale_(metrics->GetCounter("freshet_stale_total", "Deliveries dropped because they were applied before")),
      commits_(metrics->GetCounter("freshet_commits_total", "Atomic commits")),
      live_items_(metrics->GetGauge("freshet_items_live", "Items that can be recalled")),
      blocked_gauge_(metrics->GetGauge("freshet_store_blocked", "1 while nothing can be committed, see /readyz")),
      reopened_(metrics->GetCounter("freshet_store_reopened_total", "Openings of the store after a failed write")),
      attribute_bytes_(metrics->GetGauge("freshet_attribute_index_bytes", "Memory of the filters' attribute index")),
      dropped_attributes_(metrics->GetGauge("freshet_attribute_index_dropped_attributes",
                                            "Attributes that are not filterable because the index is full")),
      commit_seconds_(metrics->GetHistogram("freshet_commit_seconds", "Time of one commit in the store")),
      visible_seconds_(metrics->GetHistogram("freshet_visible_seconds", "Commit to searchable, per batch")),
      freshness_seconds_(
          metrics->GetHistogram("freshet_freshness_seconds", "Record timestamp to searchable here, per change")),
      catalog_(options.attributes),
      popularity_(options.popularity) {}

Applier::~Applier() { Join(); }

Status Applier::Rebuild(const std::function<void(double)>& progress) {
  FRESHET_ASSIGN(progress_, store_->Progress());
  next_label_ = store_->next_label();
  next_sequence_ = store_->sequence() + 1;
  sequence_ = store_->sequence();
  as_of_ms_ = store_->as_of_ms();
  std::vector<Label> labels;
  std::vector<Catalog::Change> changes;
  FRESHET_TRY(store_->ForEachShown([&](std::string_view id, const ItemRow& row, Attributes attributes) {
    labels.push_back(row.label);
    changes.push_back({std::string(id), row.label, std::move(attributes)});
    // A part at a time: all attributes of a store may not fit into memory twice.
    if (changes.size() == options_.rebuild_batch) {
      catalog_.Apply(changes);
      changes.clear();
    }
    return Status::Ok();
  }));
  catalog_.Apply(changes);
  std::uint64_t users = 0;
  FRESHET_TRY(store_->ForEachUser([&](std::string_view, const UserState& user) {
    ++users;
    for (const HistoryEntry& entry : user.history) CountInteraction(entry.item_id, entry.timestamp_ms);
    return Status::Ok();
  }));
  users_ = users;
  // In order of labels, that is of arrival: the same graph for the same store.
  std::sort(labels.begin(), labels.end());
  const std::vector<Label> indexed = index_->LiveLabels();
  std::vector<Label> gone;
  std::set_difference(indexed.begin(), indexed.end(), labels.begin(), labels.end(), std::back_inserter(gone));
  std::vector<Label> missing;
  std::set_difference(labels.begin(), labels.end(), indexed.begin(), indexed.end(), std::back_inserter(missing));
  index_->Tombstone(gone);
  FRESHET_TRY(InsertStored(missing, progress));
  rebuilt_items_ = missing.size();
  live_items_.Set(static_cast<double>(labels.size()));
  ReportAttributes();
  return Status::Ok();
}

Status Applier::InsertStored(const std::vector<Label>& labels, const std::function<void(double)>& progress) {
  std::vector<Label> batch;
  std::vector<float> vectors;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    FRESHET_ASSIGN(const std::optional<std::vector<float>> vector, store_->GetVector(labels[i]));
    if (!vector) return Corruption(StrCat("label ", labels[i], " of an item has no vector row"));
    batch.push_back(labels[i]);
    vectors.insert(vectors.end(), vector->begin(), vector->end());
    if (batch.size() == options_.rebuild_batch || i + 1 == labels.size()) {
      FRESHET_TRY(index_->Insert(batch, vectors));
      batch.clear();
      vectors.clear();
      if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(labels.size()));
    }
  }
  return Status::Ok();
}

// An event from the future would outweigh all others for as long.
void Applier::CountInteraction(const std::string& item_id, std::int64_t timestamp_ms) {
  popularity_.Add(item_id, std::min(timestamp_ms, clock_->WallMs()));
}

void Applier::ReportAttributes() {
  const AttributeIndexStats stats = catalog_.attribute_stats();
  attribute_bytes_.Set(static_cast<double>(stats.bytes));
  dropped_attributes_.Set(static_cast<double>(stats.dropped_columns));
}

bool Applier::IsStale(const PartitionProgress& source, std::int64_t offset, std::uint64_t sequence) const {
  const auto it = progress_.find(source.partition);
  if (it == progress_.end()) return false;
  if (options_.role == ApplierOptions::Role::kEngine) return offset < it->second.next_offset;
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
    const std::string& id = change.update.item_id;
    FRESHET_ASSIGN(const std::optional<ItemRow> old, store_->GetItem(id));
    const bool engine = options_.role == ApplierOptions::Role::kEngine;
    Commit::Item item;
    item.item_id = id;
    if (old) item.old_label = old->label;
    item.deleted = change.update.deleted;
    item.update = &change.update;
    item.row.epoch = engine ? store_->epoch() : source.epoch;
    item.row.sequence = engine ? next_sequence_++ : change.sequence;
    item.row.position = change.position;
    item.row.record_timestamp_ms = change.record_timestamp_ms;
    if (old) plan->tombstones.push_back(old->label);
    if (!item.deleted) {
      if (change.update.vector.size() != static_cast<std::size_t>(store_options_.dim)) {
        return Internal(StrCat("item `", id, "` came with ", change.update.vector.size(), " dimensions"));
      }
      RoundTo(store_->options().vectors, change.update.vector);
      item.row.label = next_label_++;
      plan->inserts.push_back(item.row.label);
      plan->vectors.insert(plan->vectors.end(), change.update.vector.begin(), change.update.vector.end());
      plan->visible.push_back({id, item.row.label, change.update.attributes});
    } else if (old) {
      plan->visible.push_back({id, std::nullopt});
    }
    plan->record_timestamps_ms.push_back(change.record_timestamp_ms);
    if (engine && options_.outbox) {
      OutboxEntry entry{item.row.sequence, /*is_user_event=*/false, id, std::nullopt};
      if (!item.deleted) entry.value = EncodeItemValue(change, store_options_.space_id, store_->options().vectors);
      plan->commit.outbox.push_back(std::move(entry));
    }
    plan->commit.items.push_back(std::move(item));
  }
  return Status::Ok();
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
    ++plan->user_changes;
    const bool engine = options_.role == ApplierOptions::Role::kEngine;
    const std::string id = UserIdOf(change);
    auto it = plan->users.find(id);
    if (it == plan->users.end()) {
      FRESHET_ASSIGN(std::optional<UserState> stored, store_->GetUser(id));
      it = plan->users.emplace(id, std::move(stored)).first;
    }
    const bool known = it->second.has_value();
    if (const auto* interaction = std::get_if<Interaction>(&change.body)) {
      plan->interactions.emplace_back(interaction->item_id, interaction->timestamp_ms);
    }
    ApplyUserChange(change, {options_.history, options_.seen}, &it->second);
    if (it->second) {
      it->second->partition = source.partition.partition;
      it->second->epoch = engine ? store_->epoch() : source.epoch;
    }
    if (!known && it->second) ++plan->new_users;
    if (known && !it->second) ++plan->gone_users;
    plan->record_timestamps_ms.push_back(change.record_timestamp_ms);
    const std::uint64_t sequence = engine ? next_sequence_++ : change.sequence;
    if (engine && options_.outbox) {
      plan->commit.outbox.push_back(
          {sequence, /*is_user_event=*/true, id, EncodeUserValue(change, source.partition.topic)});
    }
  }
  for (auto& [id, user] : plan->users) plan->commit.users.emplace_back(id, user);
  return Status::Ok();
}

// A follower meets a new epoch in a partition: the engine began again with an empty store and publishes everything
// anew. What this partition said under the old epoch is then nobody's word any more.
Status Applier::PlanEpochs(EncodedBatch* batch, Plan* plan) {
  if (options_.role == ApplierOptions::Role::kEngine) return Status::Ok();
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
        if (replaced.contains(std::string(id))) return Status::Ok();
        Commit::Item item;
        item.item_id = id;
        item.old_label = row.label;
        item.deleted = true;
        plan->commit.items.push_back(std::move(item));
        plan->tombstones.push_back(row.label);
        plan->visible.push_back({std::string(id), std::nullopt});
        return Status::Ok();
      }));
    } else {
      FRESHET_TRY(store_->ForEachUser([&](std::string_view id, const UserState& user) {
        const bool from_here = user.partition == source.partition.partition || user.epoch == store_->restored_epoch();
        if (!from_here || user.epoch >= source.epoch) return Status::Ok();
        plan->users[std::string(id)] = std::nullopt;
        ++plan->gone_users;
        return Status::Ok();
      }));
    }
  }
  return Status::Ok();
}

Status Applier::Apply(EncodedBatch batch) {
  if (!batch.space_id.empty() && batch.space_id != store_options_.space_id) {
    return FailedPrecondition(
        StrCat("a batch of embedding space ", batch.space_id, " came to a store of ", store_options_.space_id));
  }
  Plan plan;
  const std::uint64_t first_label = next_label_;
  const std::uint64_t first_sequence = next_sequence_;
  Status planned = PlanEpochs(&batch, &plan);
  if (planned.ok()) planned = PlanItems(&batch, &plan);
  if (planned.ok()) planned = PlanUsers(&batch, &plan);
  if (!planned.ok()) {
    next_label_ = first_label;
    next_sequence_ = first_sequence;
    return planned;
  }
  stale_.Add(static_cast<double>(plan.stale));
  std::uint64_t newest = sequence_;
  for (const PartitionProgress& source : batch.progress) {
    const auto known = progress_.find(source.partition);
    PartitionProgress merged = source;
    if (known != progress_.end()) {
      const PartitionProgress& old = known->second;
      if (merged.next_offset <= old.next_offset) continue;
      if (merged.epoch < old.epoch) {
        merged.epoch = old.epoch;
        merged.sequence = old.sequence;
      } else if (merged.epoch == old.epoch) {
        merged.sequence = std::max(merged.sequence, old.sequence);
      }
    }
    newest = options_.role == ApplierOptions::Role::kFollower ? std::max(newest, merged.sequence) : newest;
    plan.commit.progress.push_back(std::move(merged));
  }
  for (auto& [partition, row] : plan.sources) plan.commit.progress.push_back(std::move(row));
  if (options_.role == ApplierOptions::Role::kEngine) newest = next_sequence_ - 1;
  if (!plan.commit.progress.empty() || !plan.commit.items.empty() || !plan.commit.users.empty()) {
    plan.commit.next_label = next_label_;
    plan.commit.sequence = newest;
    plan.commit.as_of_ms = std::max(as_of_ms_.load(), batch.as_of_ms);
    const std::int64_t begin_us = clock_->MonotonicUs();
    FRESHET_TRY(WriteOrWait(plan.commit));
    commit_seconds_.Observe(static_cast<double>(clock_->MonotonicUs() - begin_us) * 1e-6);
    commits_.Add();
    FRESHET_TRY(MakeVisible(plan));
    sequence_ = newest;
    // Last: whoever sees these offsets finds what they cover in the answers. Who is assigned a partition a moment
    // earlier reads a little again, which is dropped as stale.
    const std::lock_guard lock(mu_);
    for (const PartitionProgress& source : plan.commit.progress) progress_[source.partition] = source;
  }
  if (batch.as_of_ms > as_of_ms_) as_of_ms_ = batch.as_of_ms;
  return Status::Ok();
}

Status Applier::MakeVisible(const Plan& plan) {
  const std::int64_t begin_us = clock_->MonotonicUs();
  // The new labels first, so that an item being replaced is never in neither version; then the catalog, which decides.
  if (!plan.inserts.empty()) FRESHET_TRY(index_->Insert(plan.inserts, plan.vectors));
  FRESHET_TRY(FaultPoint("applier.between_index_and_catalog"));
  catalog_.Apply(plan.visible);
  index_->Tombstone(plan.tombstones);
  for (const auto& [item_id, timestamp_ms] : plan.interactions) CountInteraction(item_id, timestamp_ms);
  users_ += plan.new_users;
  users_ -= plan.gone_users;
  const std::int64_t now_us = clock_->MonotonicUs();
  visible_seconds_.Observe(static_cast<double>(now_us - begin_us) * 1e-6);
  const std::int64_t now_ms = clock_->WallMs();
  for (const std::int64_t timestamp_ms : plan.record_timestamps_ms) {
    freshness_seconds_.Observe(static_cast<double>(std::max<std::int64_t>(0, now_ms - timestamp_ms)) * 1e-3);
  }
  const auto deletes = static_cast<double>(
      std::count_if(plan.commit.items.begin(), plan.commit.items.end(), [](const auto& item) { return item.deleted; }));
  applied_deletes_.Add(deletes);
  applied_items_.Add(static_cast<double>(plan.commit.items.size()) - deletes);
  applied_users_.Add(static_cast<double>(plan.user_changes));
  applied_records_ += plan.record_timestamps_ms.size();
  live_items_.Set(static_cast<double>(catalog_.live()));
  FRESHET_TRY(index_->Maintain());
  if (now_us - labels_forgotten_us_ > kForgetLabelsEveryUs) {
    catalog_.ForgetDeadLabels();
    ReportAttributes();
    labels_forgotten_us_ = now_us;
  }
  return Status::Ok();
}

void Applier::Start(BoundedQueue<EncodedBatch>* in,
                    std::function<void(const std::vector<PartitionProgress>&)> on_stored) {
  {
    const std::lock_guard lock(rest_mu_);
    applying_ = true;
  }
  thread_ = std::thread([this, in, on_stored = std::move(on_stored)] {
    Run(in, on_stored);
    const std::lock_guard lock(rest_mu_);
    applying_ = false;
    if (rest_work_ != nullptr) rest_result_ = (*rest_work_)();
    rest_work_ = nullptr;
    rested_.notify_all();
  });
}

void Applier::Run(BoundedQueue<EncodedBatch>* in,
                  const std::function<void(const std::vector<PartitionProgress>&)>& on_stored) {
  while (true) {
    WorkAtRest();
    auto batch = in->PopFor(kRestEvery);
    if (!batch) {
      if (in->drained()) return;
      if (!store_->writable()) (void)TryReopen(Unavailable("a write failed"));  // told by blocked(), tried again soon
      continue;
    }
    // A changelog that cannot be published holds the stream back; what is stored stays answered.
    while (options_.outbox && store_->outbox_bytes() > options_.outbox_max_bytes && !stopping_) {
      WorkAtRest();
      std::this_thread::sleep_for(kBackpressureWait);
    }
    std::vector<PartitionProgress> progress = batch->progress;
    const Status status = Apply(std::move(*batch));
    if (!status.ok()) {
      LogError("store", "stopped applying", {{"reason", status.ToString()}});
      {
        const std::lock_guard lock(mu_);
        status_ = status;
      }
      in->Close();
      while (in->Pop()) {
      }
      return;
    }
    if (on_stored && !progress.empty()) on_stored(progress);
  }
}

void Applier::Join() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

Status Applier::status() const {
  const std::lock_guard lock(mu_);
  return status_;
}

std::map<TopicPartition, std::int64_t> Applier::StoredOffsets(const std::vector<TopicPartition>& wanted) const {
  const std::lock_guard lock(mu_);
  std::map<TopicPartition, std::int64_t> offsets;
  for (const TopicPartition& partition : wanted) {
    const auto it = progress_.find(partition);
    if (it != progress_.end()) offsets[partition] = it->second.next_offset;
  }
  return offsets;
}

Status Applier::Audit() const {
  std::vector<Label> stored;
  std::size_t items = 0;
  FRESHET_TRY(store_->ForEachItem([&](std::string_view id, const ItemRow& row) {
    ++items;
    stored.push_back(row.label);
    if (catalog_.LabelOf(id) != row.label) {
      return Corruption(StrCat("item `", id, "` is stored under another label than the catalog has"));
    }
    return Status::Ok();
  }));
  if (catalog_.live() != items) {
    return Corruption(StrCat("the catalog has ", catalog_.live(), " live items, the store ", items));
  }
  std::sort(stored.begin(), stored.end());
  const std::vector<Label> indexed = index_->LiveLabels();
  if (indexed != stored) {
    return Corruption(
        StrCat("the index has ", indexed.size(), " live labels, the store ", stored.size(), ", or they differ"));
  }
  return Status::Ok();
}

Result<std::optional<UserState>> Applier::GetUser(std::string_view user_id) const { return store_->GetUser(user_id); }

Result<std::optional<Attributes>> Applier::GetAttributes(std::string_view item_id) const {
  return store_->GetAttributes(item_id);
}

Result<std::optional<std::vector<float>>> Applier::GetVector(std::string_view item_id) const {
  // The item may be replaced between the two reads, and its old vector be gone: look again.
  for (int attempt = 0; attempt < 8; ++attempt) {
    const std::optional<Label> label = catalog_.LabelOf(item_id);
    if (!label) return std::optional<std::vector<float>>();
    FRESHET_ASSIGN(std::optional<std::vector<float>> vector, store_->GetVector(*label));
    if (vector) return vector;
    FRESHET_ASSIGN(const std::optional<ItemRow> row, store_->GetItem(item_id));
    if (!row) return std::optional<std::vector<float>>();
    FRESHET_ASSIGN(std::optional<std::vector<float>> newest, store_->GetVector(row->label));
    if (newest) return newest;
  }
  return Unavailable("the item is being replaced faster than it can be read");
}

}  // namespace freshet
