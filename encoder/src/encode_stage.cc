#include "freshet/encoder/encode_stage.h"

#include <algorithm>
#include <map>
#include <span>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>

#include "batch_embedder.h"
#include "freshet/core/checksum.h"
#include "freshet/core/log.h"
#include "freshet/core/slot_table.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"

namespace freshet {
namespace {

constexpr std::ptrdiff_t kFetchAhead = 4;  // events

// Of each item its last write, in log order. Counts the writes of items. Between partitions, where a key may move when
// there are more of them, no order is kept: there the later time counts.
std::vector<Event*> LastWrites(std::vector<Event>* events, std::size_t* writes) {
  std::vector<Event*> last;
  last.reserve(events->size());
  const auto id_of = [&](std::uint32_t at) -> const std::string& {
    return std::get<ItemUpdate>(last[at]->body).item_id;
  };
  const auto hash_of = [&](std::uint32_t at) { return Xxh3(id_of(at)); };
  SlotTable seen;
  seen.Reserve(events->size(), hash_of);
  for (auto event = events->rbegin(); event != events->rend(); ++event) {
    if (events->rend() - event > kFetchAhead) __builtin_prefetch(&event[kFetchAhead].body);
    const auto* item = std::get_if<ItemUpdate>(&event->body);
    if (item == nullptr) continue;
    ++*writes;
    const std::uint64_t hash = Xxh3(item->item_id);
    const std::uint32_t known = seen.Find(hash, [&](std::uint32_t at) { return id_of(at) == item->item_id; });
    if (known != SlotTable::kNone) {
      Event*& kept = last[known];
      const bool elsewhere = kept->position.partition != event->position.partition;
      if (elsewhere && kept->record_timestamp_ms < event->record_timestamp_ms) kept = &*event;
      continue;
    }
    seen.Add(hash, static_cast<std::uint32_t>(last.size()), hash_of);
    last.push_back(&*event);
  }
  std::reverse(last.begin(), last.end());
  return last;
}

}  // namespace

EncodeStage::EncodeStage(ItemEncoder* encoder, DeadLetterQueue* dead_letters, BoundedQueue<EventBatch>* in,
                         BoundedQueue<EncodedBatch>* out, const Clock* clock, Metrics* metrics)
    : encoder_(encoder),
      embedder_(std::make_unique<BatchEmbedder>(
          encoder, metrics, [this](std::chrono::milliseconds wait) { return WaitForMemory(wait); })),
      dead_letters_(dead_letters),
      in_(in),
      out_(out),
      clock_(clock),
      encoded_(metrics->GetCounter("freshet_encode_items_total", "Items that were embedded.")),
      kept_(metrics->GetCounter("freshet_encode_same_features_total",
                                "Items that were not embedded because their features are as stored.")),
      superseded_(metrics->GetCounter("freshet_encode_superseded_total",
                                      "Item writes dropped for a later write of the same item in their batch.")),
      encode_seconds_(metrics->GetHistogram("freshet_encode_seconds", "Time to embed the items of one batch.")) {}

EncodeStage::~EncodeStage() {
  if (thread_.joinable()) {
    in_->Close();
    out_->Close();
    thread_.join();
  }
}

void EncodeStage::Start() {
  thread_ = std::thread([this] { Run(); });
}

void EncodeStage::Join() {
  if (thread_.joinable()) thread_.join();
}

Status EncodeStage::status() const {
  const std::lock_guard lock(mu_);
  return status_;
}

void EncodeStage::Run() {
  Status status;
  while (std::optional<EventBatch> batch = in_->Pop()) {
    Result<EncodedBatch> encoded = Encode(std::move(*batch));
    if (!encoded.ok()) {
      status = encoded.status().Prefixed("encoder");
      break;
    }
    if (known_ != nullptr) Remember(*encoded);
    const std::size_t bytes = encoded->bytes;
    if (!out_->Push(std::move(*encoded), bytes)) {
      status = Cancelled("encoder: the stage after it has ended");
      break;
    }
  }
  if (!status.ok()) {
    if (status.code() != Code::kCancelled) LogError("encoder", "stopped", {{"reason", status.ToString()}});
    const std::lock_guard lock(mu_);
    status_ = std::move(status);
  }
  // Closing the input as well lets the stage before us see the end instead of blocking on a full queue.
  in_->Close();
  out_->Close();
}

Result<EncodedBatch> EncodeStage::Encode(EventBatch batch) {
  EncodedBatch result;
  result.space_id = encoder_->space_id();
  result.as_of_ms = batch.as_of_ms;
  result.bytes = batch.bytes;
  result.marks = std::move(batch.marks);
  if (known_ != nullptr) ForgetApplied();

  // Last write wins, before anything is encoded. An older good version is not brought back when the newest turns out to
  // be poison below: the producer replaced it, and what is recalled must not depend on where a batch happened to end.
  std::size_t writes = 0;
  const std::vector<Event*> kept = LastWrites(&batch.events, &writes);
  std::unordered_set<const Event*> unchanged;
  std::vector<Event*> items;  // of `kept` those to embed: neither deleted nor with the features that are stored
  items.reserve(kept.size());
  for (Event* kept_event : kept) {
    Event& event = *kept_event;
    const auto* item = std::get_if<ItemUpdate>(&event.body);
    if (item->deleted) continue;
    if (SameFeatures(*item)) {
      unchanged.insert(&event);
    } else {
      items.push_back(&event);
    }
  }
  kept_.Add(static_cast<double>(unchanged.size()));
  result.bytes += items.size() * static_cast<std::size_t>(encoder_->dim()) * sizeof(float);
  superseded_.Add(static_cast<double>(writes - kept.size()));

  std::unordered_set<const Event*> poison;
  if (!items.empty()) FRESHET_TRY(Embed(items, &poison));

  result.items.reserve(kept.size());
  for (Event* event : kept) {
    if (poison.contains(event)) continue;
    ItemUpdate& update = std::get<ItemUpdate>(event->body);
    const bool same = unchanged.contains(event);
    if (update.deleted || same) update.vector.clear();
    result.items.push_back(
        {std::move(update), same, event->position, event->progress_index, event->record_timestamp_ms, 0});
  }
  for (Event& event : batch.events) {
    UserChange change;
    if (auto* interaction = std::get_if<Interaction>(&event.body)) {
      change.body = std::move(*interaction);
    } else if (auto* user = std::get_if<UserUpdate>(&event.body)) {
      change.body = std::move(*user);
    } else {
      continue;
    }
    change.progress_index = event.progress_index;
    change.position = event.position;
    change.record_timestamp_ms = event.record_timestamp_ms;
    result.users.push_back(std::move(change));
  }
  result.progress = std::move(batch.progress);
  result.encoded_at_us = clock_->MonotonicUs();
  return result;
}

Status EncodeStage::Embed(const std::vector<Event*>& items, std::unordered_set<const Event*>* poison) {
  const auto dim = static_cast<std::size_t>(encoder_->dim());
  updates_.clear();
  for (const Event* event : items) updates_.push_back(&std::get<ItemUpdate>(event->body));
  if (vectors_.size() < items.size() * dim) vectors_.resize(items.size() * dim);
  const std::span<float> vectors = std::span(vectors_).first(items.size() * dim);
  std::vector<BatchEmbedder::Refusal> refused;
  const std::int64_t started_us = clock_->MonotonicUs();
  FRESHET_TRY(embedder_->Embed(updates_, vectors, &refused));
  encode_seconds_.Observe(static_cast<double>(clock_->MonotonicUs() - started_us) * 1e-6);
  encoded_.Add(static_cast<double>(items.size() - refused.size()));
  std::vector<DeadLetter> letters;
  for (BatchEmbedder::Refusal& one : refused) {
    Event& event = *items[one.item];
    poison->insert(&event);
    letters.push_back(
        {CopyOf(event.raw), event.position, event.record_timestamp_ms, "TRANSFORMATION", std::move(one.reason)});
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto row = vectors.begin() + static_cast<std::ptrdiff_t>(i * dim);
    std::get<ItemUpdate>(items[i]->body).vector.assign(row, row + static_cast<std::ptrdiff_t>(dim));
  }
  return letters.empty() ? Status::Ok() : dead_letters_->Send(std::move(letters));
}

Status EncodeStage::WaitForMemory(std::chrono::milliseconds wait) const {
  constexpr std::chrono::milliseconds kLook{50};
  while (wait.count() > 0) {
    if (out_->closed()) return Cancelled("the stage after it has ended");
    std::this_thread::sleep_for(std::min(wait, kLook));
    wait -= kLook;
  }
  return Status::Ok();
}

bool EncodeStage::SameFeatures(const ItemUpdate& item) const {
  if (known_ == nullptr || encoder_->reads_vector() || barrier_ != 0 || newest_.contains(item.item_id)) return false;
  // A store that cannot be read is for who applies to wait for; encoding once more is never wrong.
  const Result<std::uint64_t> stored = known_->FeaturesHash(item.item_id);
  return stored.ok() && *stored != 0 && *stored == HashOf(item.features);
}

void EncodeStage::ForgetApplied() {
  const std::uint64_t applied = known_->applied_batches();
  if (applied >= barrier_) barrier_ = 0;
  for (; !in_flight_.empty() && in_flight_.front().first <= applied; in_flight_.pop_front()) {
    for (const std::string& id : in_flight_.front().second) {
      const auto newest = newest_.find(id);
      if (newest != newest_.end() && newest->second <= applied) newest_.erase(newest);
    }
  }
}

void EncodeStage::Remember(const EncodedBatch& batch) {
  ++pushed_;
  if (!batch.marks.empty()) barrier_ = pushed_;
  if (batch.items.empty() || encoder_->reads_vector()) return;
  auto& ids = in_flight_.emplace_back(pushed_, std::vector<std::string>()).second;
  for (const ItemChange& change : batch.items) {
    ids.push_back(change.update.item_id);
    newest_[change.update.item_id] = pushed_;
  }
}

}  // namespace freshet
