// Which label is which item, in memory, and what the items' attributes are: what an answer may contain.
//
// Place in the flow: rebuilt from the store at start, changed by the Applier after each commit, read by every answer.
// The index may lag behind by the moments of an apply; the catalog decides: a hit counts only if its label's item is
// live here. While an item is being replaced a search may have found its old or its new label, so both resolve to the
// item (the caller returns each item once). A deleted item's labels resolve to nothing from the moment Apply() returns.
// A filter is answered in two steps: Select() says which labels are worth searching, Resolve() judges what was found by
// the attributes that the items have then. Thread-safe: many readers, one writer; a waiting writer goes before readers
// that come later.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/slot_table.h"
#include "freshet/indexer/index.h"
#include "freshet/store/attribute_index.h"
#include "freshet/store/filter_cache.h"
#include "freshet/store/label_map.h"

namespace freshet {

class Catalog {
 public:
  struct Change {
    std::string item_id;
    std::optional<Label> label;  // nothing: deleted
    Attributes attributes = {};
    std::int32_t partition = -1;  // of the items topic; see ShowOnly()
  };
  explicit Catalog(const AttributeIndexOptions& options = {})
      : filters_(options.filter_cache_bytes), attributes_(options) {}

  // Room for so many items, at once.
  void Reserve(std::size_t items);
  // Makes all changes visible at once. An item may come with the label that it has: only its attributes change.
  void Apply(const std::vector<Change>& changes);
  // Items of other partitions are in no answer that begins later, as if they were deleted, until they are shown again;
  // nothing: all are shown, as at first.
  void ShowOnly(std::optional<std::set<std::int32_t>> partitions);
  // Forgets the labels that were already dead at the previous call. The writer calls it less often than any search may
  // last (request deadlines are seconds), so no search still holds one of them.
  void ForgetDeadLabels();

  // Whose label a hit has.
  struct Resolved {
    std::string id;          // empty: of nothing that is live now and matches `filter` now
    std::uint32_t slot = 0;  // of the item: what two labels have in common while it is being replaced
    bool newest = false;     // it is the label that the item has now, not the one before
  };
  // One entry for each hit. One lock for all of them: the answer is true of one moment.
  [[nodiscard]] std::vector<Resolved> Resolve(const std::vector<Hit>& hits, const Filter* filter = nullptr) const;
  [[nodiscard]] std::optional<Label> LabelOf(std::string_view item_id) const;
  [[nodiscard]] std::size_t live() const;
  // Items that live but are not shown. While there are any, an unfiltered search meets their labels in the index.
  [[nodiscard]] std::size_t hidden() const;
  // As LabelOf, of items that are not shown as well; for audits.
  [[nodiscard]] std::optional<Label> StoredLabelOf(std::string_view item_id) const;
  [[nodiscard]] std::vector<std::string> LiveIds() const;  // unordered; for audits and tests

  // The items that match a filter, as a filter for the index. Valid as long as a request may last.
  class Selection final : public LabelFilter {
   public:
    [[nodiscard]] bool Allows(Label label) const override {
      const auto slot = labels_.Find(label);
      return slot && *slot / 64 < words_.size() && (words_[*slot / 64] >> (*slot % 64) & 1) != 0;
    }
    // All of the table's places are on their way before the first is looked at.
    [[nodiscard]] std::uint64_t AllowsEach(std::span<const Label> labels) const override {
      for (const Label label : labels) labels_.Prefetch(label);
      return LabelFilter::AllowsEach(labels);
    }
    [[nodiscard]] std::size_t count() const { return count_; }
    // What matches and is shown, the excluded ones too; for LastingFilter.
    [[nodiscard]] const Selection& WithExcluded() const { return with_excluded_ ? *with_excluded_ : *this; }
    // Of the filter; what it says of a label changes only with an Apply() for its item. 0: it was not met often enough.
    [[nodiscard]] std::uint64_t number() const { return number_; }

   private:
    friend class Catalog;
    explicit Selection(LabelMap::View labels) : labels_(std::move(labels)) {}
    LabelMap::View labels_;
    std::vector<std::uint64_t> words_;
    std::size_t count_ = 0;
    std::uint64_t number_ = 0;
    std::shared_ptr<const Selection> with_excluded_;  // null: none is, or it has no number
  };
  // What matches and is none of `excluded_ids`. An item that changes meanwhile may be in it or not; whoever was live
  // and matched all the time is in it. `expired` is asked now and then. Errors: kUnavailable (see AttributeIndex),
  // kDeadlineExceeded.
  [[nodiscard]] Result<Selection> Select(const Filter& filter, const std::vector<std::string_view>& excluded_ids,
                                         const std::function<bool()>& expired) const;
  // Those still live, the first `max` by slot.
  [[nodiscard]] std::vector<std::string> IdsOf(const Selection& selection, std::size_t max = ~std::size_t{0}) const;
  // Their labels, for a filter that is cheaper to ask than the selection. An item that changes afterwards gets a label
  // above `newest`: of those the selection knows.
  struct Labels {
    std::vector<Label> labels;
    Label newest = 0;
  };
  [[nodiscard]] Labels LabelsOf(const Selection& selection) const;
  // Of those ids the ones that are live and match now.
  [[nodiscard]] std::vector<bool> Matching(const std::vector<std::string>& ids, const Filter& filter) const;
  // The values of one attribute of each item; none of an item that is not live.
  [[nodiscard]] std::vector<std::vector<FilterValue>> ValuesOf(const std::vector<std::string>& ids,
                                                               std::string_view key) const;
  // Errors: kUnavailable when this attribute cannot be filtered by, because the attribute index is full.
  Status CheckFilterable(const std::string& key) const;
  [[nodiscard]] AttributeIndexStats attribute_stats() const;
  [[nodiscard]] FilterCache::Stats filter_cache_stats() const { return filters_.stats(); }

 private:
  struct Item {
    std::string id;
    Label label = 0;           // the newest
    std::uint32_t labels = 0;  // how many entries of by_label_ point here
    bool live = false;
    std::int32_t partition = -1;
  };
  // The slot of a live item, or SlotTable::kNone.
  [[nodiscard]] std::uint32_t SlotOf(std::string_view item_id) const;
  [[nodiscard]] std::uint32_t SlotOf(std::string_view item_id, std::uint64_t hash) const;
  void ApplyOne(const Change& change, std::uint64_t id_hash);
  [[nodiscard]] bool IsShown(std::uint32_t slot) const { return slot != SlotTable::kNone && !IsHidden(slot); }
  [[nodiscard]] bool IsHidden(std::uint32_t slot) const {
    return slot / 64 < hidden_.size() && (hidden_[slot / 64] >> (slot % 64) & 1) != 0;
  }
  void SetHidden(std::uint32_t slot, bool hidden);
  // What is selected and still live, by slot, until `item` says false. REQUIRES: mu_.
  void ForEachSelected(const Selection& selection, const std::function<bool(const Item&)>& item) const;
  void Reveal(std::uint32_t slot);  // or hide: as its partition says
  [[nodiscard]] std::shared_lock<std::shared_mutex> ReadLock() const {
    const std::lock_guard gate(gate_);
    return std::shared_lock(mu_);
  }

  // The slots that match, chunk by chunk, into an empty selection.
  Status EvaluateFilter(const Filter& filter, const std::function<bool()>& expired,
                        std::shared_lock<std::shared_mutex>* lock, Selection* selection) const;

  mutable FilterCache filters_;
  mutable std::mutex gate_;  // a waiting writer holds it, so that readers cannot starve it
  mutable std::shared_mutex mu_;
  // Guarded by mu_. Slots are stable: a label points to the slot of its item for as long as it is remembered.
  std::vector<Item> slots_;
  std::vector<Label> label_of_;  // by slot, of those that live: close together, for LabelsOf()
  std::vector<std::uint32_t> free_slots_;
  SlotTable by_id_;
  LabelMap by_label_;
  Label newest_label_ = 0;
  AttributeIndex attributes_;                                // by slot
  std::vector<std::pair<Label, std::uint32_t>> newly_dead_;  // since the last ForgetDeadLabels()
  std::vector<std::pair<Label, std::uint32_t>> dead_;        // before it
  std::size_t live_ = 0;
  std::optional<std::set<std::int32_t>> shown_;  // nothing: all
  std::vector<std::uint64_t> hidden_;            // by slot, of those that live
  std::size_t hidden_live_ = 0;
};

}  // namespace freshet
