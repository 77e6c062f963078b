// Which label is which item, in memory: what an answer may contain.
//
// Place in the flow: rebuilt from the store at start, changed by the Applier after each commit, read by every answer.
// The index may lag behind by the moments of an apply; the catalog decides: a hit counts only if its label's item is
// live here. While an item is being replaced a search may have found its old or its new label, so both resolve to the
// item (the caller returns each item once). A deleted item's labels resolve to nothing from the moment Apply() returns.
// Thread-safe: many readers, one writer.
#pragma once

#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "freshet/indexer/index.h"

namespace freshet {

class Catalog {
 public:
  struct Change {
    std::string item_id;
    std::optional<Label> label;  // nothing: deleted
  };
  // Makes all changes visible at once.
  void Apply(const std::vector<Change>& changes);
  // Forgets the labels that were already dead at the previous call. The writer calls it less often than any search may
  // last (request deadlines are seconds), so no search still holds one of them.
  void ForgetDeadLabels();

  // ids[i] is the item's id when the label of hits[i] belongs, or belonged until a moment ago, to an item that is live
  // now; empty otherwise. One lock for all of them: the answer is true of one moment.
  void Resolve(const std::vector<Hit>& hits, std::vector<std::string>* ids) const;
  [[nodiscard]] std::optional<Label> LabelOf(std::string_view item_id) const;
  [[nodiscard]] std::size_t live() const;
  [[nodiscard]] std::vector<std::string> LiveIds() const;  // unordered; for audits and tests

 private:
  struct Item {
    std::string id;
    Label label = 0;           // the newest
    std::uint32_t labels = 0;  // how many entries of by_label_ point here
    bool live = false;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  mutable std::shared_mutex mu_;
  // Guarded by mu_. Slots are stable: a label points to the slot of its item for as long as it is remembered.
  std::vector<Item> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> by_id_;
  std::unordered_map<Label, std::uint32_t> by_label_;
  std::vector<std::pair<Label, std::uint32_t>> newly_dead_;  // since the last ForgetDeadLabels()
  std::vector<std::pair<Label, std::uint32_t>> dead_;        // before it
  std::size_t live_ = 0;
};

}  // namespace freshet
