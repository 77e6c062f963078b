// A look through the store: all of it, or the part that is cheap, a page at a time.
#include <rocksdb/snapshot.h>

#include <algorithm>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"
#include "store_chain.h"
#include "store_rocks.h"

namespace freshet {
namespace {

constexpr std::uint64_t kRowsPerStep = 4096;
constexpr std::size_t kExamples = 16;

// A walk through one family over a common snapshot, in key order.
class Walk {
 public:
  Walk(const RocksHandle& handle, const rocksdb::ReadOptions& read, Family family, const std::string& from = "")
      : it_(handle.db()->NewIterator(read, handle.Of(family))), name_(kFamilyNames[family]) {
    it_->Seek(from);
  }
  [[nodiscard]] bool valid() const { return it_->Valid(); }
  [[nodiscard]] std::string_view key() const { return ToView(it_->key()); }
  [[nodiscard]] std::string_view value() const { return ToView(it_->value()); }
  void Next() { it_->Next(); }
  void Last() { it_->SeekToLast(); }
  [[nodiscard]] Status status() const { return FromRocks(it_->status(), name_); }

 private:
  const std::unique_ptr<rocksdb::Iterator> it_;
  const char* const name_;
};

std::string Shown(Family family, std::string_view key) {
  const bool number = (family == kVectors || family == kLabels || family == kOutbox) && key.size() == 8;
  return StrCat(kFamilyNames[family], " `", number ? StrCat(FromOrderedKey(key)) : std::string(key), "`");
}

// What is read together: one moment of a store.
class View {
 public:
  explicit View(std::shared_ptr<RocksHandle> handle) : handle_(std::move(handle)), snapshot_(handle_->db()) {
    read_.fill_cache = false;  // answers keep their blocks
    read_.readahead_size = std::size_t{1} << 20;
    read_.iterate_upper_bound = RowsEnd();
    read_.snapshot = snapshot_.snapshot();
  }
  [[nodiscard]] const RocksHandle& handle() const { return *handle_; }
  [[nodiscard]] const rocksdb::ReadOptions& read() const { return read_; }
  [[nodiscard]] Walk Through(Family family, const std::string& from = "") const {
    return {*handle_, read_, family, from};
  }

 private:
  const std::shared_ptr<RocksHandle> handle_;
  rocksdb::ManagedSnapshot snapshot_;
  rocksdb::ReadOptions read_;
};

void Differ(std::string what, StoreCheck* check) {
  ++check->differences;
  if (check->examples.size() < kExamples) check->examples.push_back(std::move(what));
}

// Numbers against their counters, and items against the offsets that cover them.
class Numbers {
 public:
  Numbers(const View& view, std::uint64_t epoch, const std::string& items_topic, StoreCheck* check)
      : view_(view), epoch_(epoch), items_topic_(items_topic), check_(check) {}

  // Before the others.
  Status ReadCounters() {
    std::string bytes;
    const rocksdb::Status found = view_.handle().db()->Get(view_.read(), view_.handle().Of(kMeta), kStateKey, &bytes);
    if (!found.IsNotFound()) {
      FRESHET_TRY(FromRocks(found, "meta"));
      FRESHET_ASSIGN(state_, DecodeState(bytes));
    }
    Walk offsets = view_.Through(kOffsets);
    for (; offsets.valid(); offsets.Next()) {
      auto progress = DecodeOffsetRow(offsets.key(), offsets.value());
      if (!progress.ok()) return progress.status().Prefixed(Shown(kOffsets, offsets.key()));
      const TopicPartition& partition = progress->partition;
      const std::string name = StrCat(partition.topic, "[", partition.partition, "]");
      if (progress->next_offset < 0) Differ(StrCat("offset of ", name, " is negative"), check_);
      if (progress->sequence > state_.sequence) Differ(name + " is above the sequence", check_);
      if (partition.topic == items_topic_) sources_[partition.partition] = std::move(*progress);
    }
    return offsets.status();
  }

  void Item(std::string_view id, const ItemRow& row) {
    if (row.label >= state_.next_label) Differ(StrCat(Shown(kItems, id), " has a label not given yet"), check_);
    if (row.sequence > state_.sequence) Differ(StrCat(Shown(kItems, id), " is above the sequence"), check_);
    const auto source = sources_.find(row.position.partition);
    // What others numbered came from a changelog or with a snapshot: its position is of another log.
    if (row.epoch != epoch_ || source == sources_.end()) return;
    const PartitionProgress& progress = source->second;
    std::int64_t end = progress.next_offset;
    if (progress.rereading) {
      // The offset went back to the beginning. What was not met again yet may be of the log that was read before; it is
      // met, or swept, when the end is reached.
      if (row.generation != progress.generation) return;
      end = std::max(end, progress.seen_below);
    }
    ++check_->covered;
    if (row.position.offset >= end) {
      Differ(StrCat(Shown(kItems, id), " comes from an offset that is not covered"), check_);
    }
  }

  void Outbox(std::uint64_t sequence) {
    if (sequence > state_.sequence) Differ(StrCat("outbox `", sequence, "` is above the sequence"), check_);
  }

 private:
  const View& view_;
  const std::uint64_t epoch_;
  const std::string& items_topic_;
  StoreCheck* const check_;
  StoreState state_;
  std::map<std::int32_t, PartitionProgress> sources_;  // of the items topic
};

// One look through a whole store.
class Checker {
 public:
  Checker(const View& view, const StoreIdentity& identity, const StoreCheckOptions& options)
      : view_(view),
        identity_(identity),
        options_(options),
        numbers_(view, identity.epoch, options.items_topic, &check_),
        total_(std::max<std::uint64_t>(1, IntProperty(view.handle(), "rocksdb.estimate-num-keys"))) {}

  Result<StoreCheck> Run() {
    FRESHET_TRY(numbers_.ReadCounters());
    FRESHET_TRY(Items());
    FRESHET_TRY(Labels());
    if (item_labels_ != label_items_) Differ("items and labels name each other differently", &check_);
    FRESHET_TRY(Each(kUsers, [this](std::string_view, std::string_view value) -> Status {
      ++check_.users;
      return DecodeUserRow(value).status();
    }));
    FRESHET_TRY(Each(kOutbox, [this](std::string_view key, std::string_view value) -> Status {
      ++check_.outbox;
      if (key.size() != 8) return Corruption("outbox key does not decode");
      numbers_.Outbox(FromOrderedKey(key));
      return DecodeOutboxRow(FromOrderedKey(key), value).status();
    }));
    return check_;
  }

 private:
  // Items, their features and their attributes stand side by side.
  Status Items() {
    Walk items = view_.Through(kItems);
    Walk features = view_.Through(kFeatures);
    Walk attributes = view_.Through(kAttributes);
    for (; items.valid(); items.Next()) {
      FRESHET_TRY(Step());
      ++check_.items;
      auto row = DecodeItemRow(items.value());
      if (!row.ok()) return row.status().Prefixed(Shown(kItems, items.key()));
      FRESHET_TRY(Beside(items.key(), &features, kFeatures));
      FRESHET_TRY(Beside(items.key(), &attributes, kAttributes));
      item_labels_ += Pair(items.key(), row->label);
      numbers_.Item(items.key(), *row);
    }
    FRESHET_TRY(items.status());
    FRESHET_TRY(Rest(&features, kFeatures));
    return Rest(&attributes, kAttributes);
  }

  Status Beside(std::string_view key, Walk* walk, Family family) {
    while (walk->valid() && walk->key() < key) {
      Differ(StrCat(Shown(family, walk->key()), " belongs to no item"), &check_);
      walk->Next();
    }
    if (!walk->valid() || walk->key() != key) {
      Differ(StrCat(Shown(kItems, key), " has no ", kFamilyNames[family]), &check_);
      return walk->status();
    }
    const Status decoded =
        family == kFeatures ? DecodeFeatureRow(walk->value()).status() : DecodeAttributeRow(walk->value()).status();
    walk->Next();
    return decoded.Prefixed(Shown(family, key));
  }
  Status Rest(Walk* walk, Family family) {
    for (; walk->valid(); walk->Next()) Differ(StrCat(Shown(family, walk->key()), " belongs to no item"), &check_);
    return walk->status();
  }

  // Vectors and labels stand side by side.
  Status Labels() {
    Walk labels = view_.Through(kLabels);
    Walk vectors = view_.Through(kVectors);
    for (; labels.valid(); labels.Next()) {
      FRESHET_TRY(Step());
      if (labels.key().size() != 8) return Corruption("label key does not decode");
      label_items_ += Pair(labels.value(), FromOrderedKey(labels.key()));
      while (vectors.valid() && vectors.key() < labels.key()) {
        Differ(StrCat(Shown(kVectors, vectors.key()), " belongs to no item"), &check_);
        vectors.Next();
      }
      if (!vectors.valid() || vectors.key() != labels.key()) {
        Differ(StrCat(Shown(kLabels, labels.key()), " has no vector"), &check_);
        FRESHET_TRY(vectors.status());
        continue;
      }
      FRESHET_TRY(DecodeVector(vectors.value(), identity_.dim, identity_.vectors)
                      .status()
                      .Prefixed(Shown(kVectors, vectors.key())));
      vectors.Next();
    }
    FRESHET_TRY(labels.status());
    return Rest(&vectors, kVectors);
  }

  Status Each(Family family, const std::function<Status(std::string_view, std::string_view)>& row) {
    Walk walk = view_.Through(family);
    for (; walk.valid(); walk.Next()) {
      FRESHET_TRY(Step());
      if (const Status status = row(walk.key(), walk.value()); !status.ok()) {
        return status.Prefixed(Shown(family, walk.key()));
      }
    }
    return walk.status();
  }

  // A sum over all pairs: equal sets of pairs have equal sums, and others all but never.
  static std::uint64_t Pair(std::string_view id, Label label) { return Xxh3(id, label); }
  Status Step() {
    if (++steps_ % kRowsPerStep != 0 || !options_.progress) return Status::Ok();
    return options_.progress(std::min(1.0, static_cast<double>(steps_) / static_cast<double>(total_)));
  }

  const View& view_;
  const StoreIdentity& identity_;
  const StoreCheckOptions& options_;
  StoreCheck check_;
  Numbers numbers_;
  std::uint64_t item_labels_ = 0;
  std::uint64_t label_items_ = 0;
  std::uint64_t steps_ = 0;
  const std::uint64_t total_;
};

}  // namespace

Result<StoreCheck> RocksStore::Check(const StoreCheckOptions& options) const {
  const View view(Current());
  return Checker(view, identity_, options).Run();
}

Result<std::optional<std::string>> RocksStore::CheckNumbers(const std::string& items_topic, const std::string& from,
                                                            std::size_t max_items, StoreCheck* check) const {
  const View view(Current());
  StoreCheck page;
  Numbers numbers(view, identity_.epoch, items_topic, &page);
  FRESHET_TRY(numbers.ReadCounters());
  if (!from.empty()) page = StoreCheck();  // the first page told
  Walk items = view.Through(kItems, from);
  for (; items.valid() && page.items < max_items; items.Next()) {
    ++page.items;
    auto row = DecodeItemRow(items.value());
    if (!row.ok()) return row.status().Prefixed(Shown(kItems, items.key()));
    numbers.Item(items.key(), *row);
  }
  FRESHET_TRY(items.status());
  std::optional<std::string> next;
  if (items.valid()) next = items.key();
  if (!next) {
    // In order of their sequence: if any is above it, the last one is.
    Walk outbox = view.Through(kOutbox);
    outbox.Last();
    if (outbox.valid()) {
      if (outbox.key().size() != 8) return Corruption("outbox key does not decode");
      numbers.Outbox(FromOrderedKey(outbox.key()));
    }
    FRESHET_TRY(outbox.status());
  }
  check->items += page.items;
  check->covered += page.covered;
  check->differences += page.differences;
  for (std::string& example : page.examples) {
    if (check->examples.size() < kExamples) check->examples.push_back(std::move(example));
  }
  return next;
}

Result<std::vector<std::pair<Label, std::string>>> RocksStore::LabelsFrom(Label from, std::size_t max) const {
  std::vector<std::pair<Label, std::string>> page;
  if (max == 0) return page;
  FRESHET_TRY(Scan(kLabels, OrderedKey(from), [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (key.size() != 8) return Corruption("label key does not decode");
    page.emplace_back(FromOrderedKey(key), value);
    return page.size() < max;
  }));
  return page;
}

}  // namespace freshet
