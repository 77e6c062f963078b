#include "freshet/store/applier.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

#include "applier_plan.h"
#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::int64_t kForgetLabelsEveryUs = 60'000'000;  // far above any request's deadline
// As Kafka keeps events by default: what is read later than that, and is older than the forgetting, is not foreseen.
constexpr std::int64_t kForgottenForMs = std::int64_t{7} * 24 * 3600 * 1000;
constexpr std::int64_t kTrimForgottenEveryUs = std::int64_t{24} * 3600 * 1'000'000;
constexpr auto kRestEvery = std::chrono::milliseconds(10);

}  // namespace

Applier::Applier(const ApplierOptions& options, const StoreOptions& store_options, Store* store, const Clock* clock,
                 Metrics* metrics)
    : options_(options),
      store_options_(store_options),
      store_(store),
      clock_(clock),
      metrics_(metrics),
      applied_items_(metrics->GetCounter("freshet_applied_total", "Changes applied", {{"kind", "item"}})),
      applied_deletes_(metrics->GetCounter("freshet_applied_total", "Changes applied", {{"kind", "delete"}})),
      applied_users_(metrics->GetCounter("freshet_applied_total", "Changes applied", {{"kind", "user_event"}})),
      stale_(metrics->GetCounter("freshet_stale_total", "Deliveries dropped because they were applied before")),
      unchanged_(metrics->GetCounter("freshet_unchanged_total",
                                     "Records that changed nothing: the item was as they say, or gone already")),
      attributes_only_(metrics->GetCounter("freshet_attribute_changes_total",
                                           "Changes of attributes alone: neither embedded nor indexed again")),
      swept_(metrics->GetCounter("freshet_swept_total",
                                 "Items and users removed because a partition read again no longer has them")),
      commits_(metrics->GetCounter("freshet_commits_total", "Atomic commits")),
      live_items_(metrics->GetGauge("freshet_items_live", "Items that can be recalled")),
      hidden_items_(metrics->GetGauge("freshet_items_hidden", "Items stored here whose partition is not owned now")),
      blocked_gauge_(metrics->GetGauge("freshet_store_blocked", "1 while nothing can be committed, see /readyz")),
      reopened_(metrics->GetCounter("freshet_store_reopened_total", "Openings of the store after a failed write")),
      reopen_failures_(metrics->GetCounter("freshet_store_reopen_failures_total",
                                           "Attempts to open the store after a failed write that failed too")),
      read_retries_(metrics->GetCounter("freshet_store_read_retries_total",
                                        "Reads of the store, for what a batch comes to, that had to be repeated")),
      audit_differences_(metrics->GetCounter("freshet_audit_differences_total",
                                             "Differences of index and store, repaired; other than 0 is a defect")),
      commit_seconds_(metrics->GetHistogram("freshet_commit_seconds", "Time of one commit in the store")),
      visible_seconds_(metrics->GetHistogram("freshet_visible_seconds", "Commit to searchable, per batch")),
      freshness_seconds_(
          metrics->GetHistogram("freshet_freshness_seconds", "Record timestamp to searchable here, per change")),
      catalog_(options.attributes),
      popularity_(options.popularity) {}

Applier::~Applier() { Join(); }

Status Applier::Rebuild(const IndexSource& open_index, const std::function<void(double)>& progress) {
  auto opening = std::async(std::launch::async, open_index);
  FRESHET_ASSIGN(progress_, store_->Progress());
  next_label_ = store_->next_label();
  next_sequence_ = store_->sequence() + 1;
  sequence_ = store_->sequence();
  as_of_ms_ = store_->as_of_ms();
  const std::size_t expected = store_->EstimatedItems();
  catalog_.Reserve(expected);
  std::vector<Label> labels;
  labels.reserve(expected);
  std::vector<Catalog::Change> changes;
  // The catalog fills on a thread of its own while the store is read; a few parts at a time, since all attributes of a
  // store may not fit into memory twice.
  BoundedQueue<std::vector<Catalog::Change>> parts(4, ~std::size_t{0});
  std::thread showing([&] {
    while (const auto part = parts.Pop()) catalog_.Apply(*part);
  });
  const auto show = [&] { return parts.Push(std::exchange(changes, {}), 1) ? Status::Ok() : Internal("no catalog"); };
  Status read = store_->ForEachShown([&](std::string_view id, const ItemRow& row, Attributes attributes) {
    labels.push_back(row.label);
    changes.push_back({std::string(id), row.label, std::move(attributes), PartitionOf(row)});
    return changes.size() == options_.rebuild_batch ? show() : Status::Ok();
  });
  if (read.ok()) read = show();
  parts.Close();
  showing.join();
  FRESHET_TRY(std::move(read));
  std::uint64_t users = 0;
  FRESHET_TRY(store_->ForEachUser([&](std::string_view, const UserState& user) {
    ++users;
    for (const HistoryEntry& entry : user.history) popularity_.Add(entry.item_id, entry.timestamp_ms);
    return Status::Ok();
  }));
  users_ = users;
  TrimForgotten();
  if (!is_engine()) {
    FRESHET_ASSIGN(OwnedItems owned, store_->Owned());
    if (owned.partitions) Show(std::move(owned));
  }
  FRESHET_ASSIGN(index_, opening.get());
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
  Report();
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

Status Applier::Apply(EncodedBatch batch) {
  if (!batch.space_id.empty() && batch.space_id != store_options_.space_id) {
    return FailedPrecondition(
        StrCat("a batch of embedding space ", batch.space_id, " came to a store of ", store_options_.space_id));
  }
  for (const PartitionMark& mark : batch.marks) FRESHET_TRY(ApplyMark(mark));
  Plan plan;
  const std::uint64_t first_label = next_label_;
  const std::uint64_t first_sequence = next_sequence_;
  FRESHET_TRY(RetryReads([&] {
    plan = Plan();
    Status planned = PlanEpochs(&batch, &plan);
    if (planned.ok()) planned = PlanItems(&batch, &plan);
    if (planned.ok()) planned = PlanUsers(&batch, &plan);
    if (!planned.ok()) {
      next_label_ = first_label;
      next_sequence_ = first_sequence;
    }
    return planned;
  }));
  PlanProgress(batch, &plan);
  if (batch.owned && *batch.owned != owned_items()) plan.commit.owned = std::move(batch.owned);
  if (!plan.commit.progress.empty() || !plan.commit.items.empty() || !plan.commit.users.empty()) {
    FRESHET_TRY(Write(&plan, batch.as_of_ms));
  }
  if (batch.as_of_ms > as_of_ms_) as_of_ms_ = batch.as_of_ms;
  ++applied_batches_;
  return Status::Ok();
}

Status Applier::Write(Plan* plan, std::int64_t as_of_ms) {
  const std::uint64_t newest = options_.role == ApplierOptions::Role::kEngine ? next_sequence_ - 1 : plan->newest;
  plan->commit.next_label = next_label_;
  plan->commit.sequence = newest;
  plan->commit.as_of_ms = std::max(as_of_ms_.load(), as_of_ms);
  const std::int64_t begin_us = clock_->MonotonicUs();
  FRESHET_TRY(WriteOrWait(plan->commit));
  commit_seconds_.Observe(static_cast<double>(clock_->MonotonicUs() - begin_us) * 1e-6);
  commits_.Add();
  FRESHET_TRY(MakeVisible(*plan));
  if (plan->commit.owned) Show(*plan->commit.owned);
  sequence_ = newest;
  // Last: whoever sees these offsets finds what they cover in the answers. Who is assigned a partition a moment
  // earlier reads a little again, which is dropped as stale.
  const std::lock_guard lock(mu_);
  for (const PartitionProgress& source : plan->commit.progress) progress_[source.partition] = source;
  return Status::Ok();
}

Status Applier::MakeVisible(const Plan& plan) {
  const std::int64_t begin_us = clock_->MonotonicUs();
  // The new labels first, so that an item being replaced is never in neither version; then the catalog, which decides.
  if (!plan.inserts.empty()) FRESHET_TRY(index_->Insert(plan.inserts, plan.vectors));
  FRESHET_TRY(FaultPoint("applier.between_index_and_catalog"));
  catalog_.Apply(plan.visible);
  // Filters answer by the catalog: what an index remembers of them holds no more for these.
  std::vector<Label> reconsidered;
  for (const Catalog::Change& change : plan.visible) {
    if (change.label) reconsidered.push_back(*change.label);
  }
  index_->Reconsider(reconsidered);
  index_->Tombstone(plan.tombstones);
  for (const HistoryEntry& entry : plan.history.added) popularity_.Add(entry.item_id, entry.timestamp_ms);
  for (const HistoryEntry& entry : plan.history.removed) popularity_.Remove(entry.item_id, entry.timestamp_ms);
  users_ += plan.new_users;
  users_ -= plan.gone_users;
  const std::int64_t now_us = clock_->MonotonicUs();
  visible_seconds_.Observe(static_cast<double>(now_us - begin_us) * 1e-6);
  const std::int64_t now_ms = clock_->WallMs();
  for (const std::int64_t timestamp_ms : plan.record_timestamps_ms) {
    freshness_seconds_.Observe(static_cast<double>(std::max<std::int64_t>(0, now_ms - timestamp_ms)) * 1e-3);
  }
  stale_.Add(static_cast<double>(plan.stale));
  unchanged_.Add(static_cast<double>(plan.unchanged));
  attributes_only_.Add(static_cast<double>(plan.attributes_only));
  swept_.Add(static_cast<double>(plan.swept));
  applied_deletes_.Add(static_cast<double>(plan.deletes));
  applied_items_.Add(static_cast<double>(plan.updates));
  applied_users_.Add(static_cast<double>(plan.user_changes));
  applied_records_ += plan.record_timestamps_ms.size();
  live_items_.Set(static_cast<double>(catalog_.live()));
  hidden_items_.Set(static_cast<double>(catalog_.hidden()));
  FRESHET_TRY(index_->Maintain());
  if (now_us - labels_forgotten_us_ > kForgetLabelsEveryUs) {
    catalog_.ForgetDeadLabels();
    labels_forgotten_us_ = now_us;
  }
  any_forgotten_ = any_forgotten_ || !plan.commit.forgotten.empty();
  if (any_forgotten_ && now_us - forgotten_trimmed_us_ > kTrimForgottenEveryUs) TrimForgotten();
  ReportWhenDue();
  return Status::Ok();
}

void Applier::TrimForgotten() {
  forgotten_trimmed_us_ = clock_->MonotonicUs();
  const Result<std::uint64_t> left = store_->TrimForgotten(clock_->WallMs() - kForgottenForMs);
  any_forgotten_ = !left.ok() || *left > 0;
  if (!left.ok()) {
    LogWarning("store", "notes of forgotten users were not trimmed", {{"reason", left.status().ToString()}});
  }
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
  Status status;
  while (true) {
    WorkAtRest();
    ReportWhenDue();           // of what others change, while nothing comes
    status = ReopenWhenDue();  // who trims or syncs may have broken it, while nothing is there to be applied
    if (!status.ok()) break;
    auto batch = in->PopFor(kRestEvery);
    if (!batch) {
      if (in->drained()) return;
      continue;
    }
    status = WaitForPublisher();
    if (!status.ok()) break;
    std::vector<PartitionProgress> progress = batch->progress;
    status = Apply(std::move(*batch));
    if (!status.ok()) break;
    if (on_stored && !progress.empty()) on_stored(progress);
  }
  LogError("store", "stopped applying", {{"reason", status.ToString()}});
  {
    const std::lock_guard lock(mu_);
    status_ = status;
  }
  in->Close();
  while (in->Pop()) {
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

void Applier::Own(const std::vector<TopicPartition>& partitions) {
  OwnedItems items{std::vector<std::int32_t>()};
  for (const TopicPartition& partition : partitions) {
    if (partition.topic == options_.items_topic) items.partitions->push_back(partition.partition);
  }
  Show(std::move(items));
}

void Applier::Show(OwnedItems owned) {
  {
    const std::lock_guard lock(mu_);
    owned_ = owned;
  }
  std::optional<std::set<std::int32_t>> shown;
  if (owned.partitions) shown.emplace(owned.partitions->begin(), owned.partitions->end());
  catalog_.ShowOnly(std::move(shown));
  live_items_.Set(static_cast<double>(catalog_.live()));
  hidden_items_.Set(static_cast<double>(catalog_.hidden()));
}

StoredPositions Applier::Stored(const std::vector<TopicPartition>& wanted) const {
  const std::lock_guard lock(mu_);
  StoredPositions stored;
  for (const TopicPartition& partition : wanted) {
    const auto it = progress_.find(partition);
    if (it != progress_.end()) stored.insert(*it);
  }
  return stored;
}

std::map<TopicPartition, std::int64_t> Applier::StoredOffsets(const std::vector<TopicPartition>& wanted) const {
  std::map<TopicPartition, std::int64_t> offsets;
  for (const auto& [partition, progress] : Stored(wanted)) offsets[partition] = progress.next_offset;
  return offsets;
}

Result<std::uint64_t> Applier::FeaturesHash(std::string_view item_id) const {
  FRESHET_ASSIGN(const std::optional<ItemRow> row, store_->GetItem(item_id));
  return row ? row->features_hash : 0;
}

Result<std::optional<UserState>> Applier::GetUser(std::string_view user_id) const { return store_->GetUser(user_id); }

Result<std::optional<Attributes>> Applier::GetAttributes(std::string_view item_id) const {
  return store_->GetAttributes(item_id);
}

Result<std::optional<std::uint64_t>> Applier::GetSequence(std::string_view item_id) const {
  FRESHET_ASSIGN(const std::optional<ItemRow> row, store_->GetItem(item_id));
  return row ? std::optional(row->sequence) : std::nullopt;
}

Result<std::optional<std::int64_t>> Applier::GetChangedMs(std::string_view item_id) const {
  FRESHET_ASSIGN(const std::optional<ItemRow> row, store_->GetItem(item_id));
  if (!row || row->record_timestamp_ms <= 0) return std::optional<std::int64_t>();
  return std::optional<std::int64_t>(row->record_timestamp_ms);
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
