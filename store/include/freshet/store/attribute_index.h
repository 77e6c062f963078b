// Items' attributes in columns, for filters: which slots match?
//
// Place in the flow: a part of the Catalog, which numbers items by slots, guards it by its lock and changes both in one
// visible step; rebuilt from the store at start, nothing of it is on disk. One column per attribute name, in chunks of
// 4,096 slots that are allocated where there is a value: numbers as they are, texts as codes of a dictionary, arrays of
// texts as codes with a list of slots per text, arrays of numbers sorted. A condition is a scan over a column (about a
// nanosecond a slot), so an update costs a few writes and no lists of millions are kept. Bounded: a column that cannot
// grow any more is dropped whole, and filters that name it are refused from then on rather than answered wrongly.
// Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/ingest/event.h"
#include "freshet/store/filter.h"

namespace freshet {

struct AttributeIndexOptions {
  std::size_t max_columns = 256;
  std::size_t max_bytes = std::size_t{1} << 30;
  std::size_t filter_cache_bytes = std::size_t{64} << 20;  // of the Catalog's FilterCache; 0: none
};

struct AttributeIndexStats {
  std::size_t columns = 0;
  std::size_t dropped_columns = 0;
  std::size_t texts = 0;  // different ones
  std::size_t bytes = 0;  // estimated
};

template <typename T>
class Cells;  // attribute_column.h

class AttributeIndex {
 public:
  using Slot = std::uint32_t;
  static constexpr std::size_t kChunkSlots = 4096;
  static constexpr std::size_t kChunkWords = kChunkSlots / 64;
  using Words = std::array<std::uint64_t, kChunkWords>;  // a bit per slot of a chunk

  explicit AttributeIndex(const AttributeIndexOptions& options = {});
  ~AttributeIndex();
  AttributeIndex(const AttributeIndex&) = delete;
  AttributeIndex& operator=(const AttributeIndex&) = delete;

  void Set(Slot slot, const Attributes& attributes);  // in place of what the slot had
  void Remove(Slot slot);

  // A filter made ready for evaluation by chunks, for as long as version() stays what it is. The filter outlives it.
  class Compiled;
  // Errors: kUnavailable when an attribute it names was dropped.
  [[nodiscard]] Result<std::shared_ptr<Compiled>> Compile(const Filter& filter) const;
  [[nodiscard]] std::uint64_t version() const { return version_; }
  [[nodiscard]] std::size_t chunks() const { return live_.size(); }
  void Evaluate(const Compiled& filter, std::size_t chunk, Words* matching) const;
  [[nodiscard]] const Words& Live(std::size_t chunk) const { return live_[chunk]; }
  // When anything of the chunk changed last: the same number, the same answer to every filter, for as long as
  // columns_version() is the same too (it counts what was dropped).
  [[nodiscard]] std::uint64_t ChangedAt(std::size_t chunk) const { return changed_at_[chunk]; }
  [[nodiscard]] std::uint64_t columns_version() const { return columns_version_; }

  // One slot, by its values as they are now. REQUIRES: the slot is set.
  [[nodiscard]] bool Matches(const Filter& filter, Slot slot) const;
  // The values of one attribute of a slot: none, one, or an array's.
  [[nodiscard]] std::vector<FilterValue> Values(std::string_view key, Slot slot) const;
  [[nodiscard]] AttributeIndexStats Stats() const;

 private:
  struct Column;
  struct Node;
  Status CompileNode(const Filter& filter, Node* node) const;
  void EvaluateNode(const Node& node, std::size_t chunk, Words* matching) const;
  void EvaluateCondition(const Node& node, std::size_t chunk, Words* matching) const;
  [[nodiscard]] bool MatchesCondition(const Condition& condition, Slot slot) const;
  template <typename Wanted, typename T>
  static bool HasIn(const Wanted& wanted, Slot slot, const Cells<T>& values, const Cells<std::vector<T>>& lists);
  static bool MatchesAnyOf(std::uint8_t has, const Condition& condition);  // of a list of booleans
  [[nodiscard]] const Column* Find(std::string_view key) const;
  Column* FindOrAdd(const std::string& key);
  void Drop(Column* column);

  const AttributeIndexOptions options_;
  std::deque<Words> live_;
  std::vector<std::uint64_t> changed_at_;  // by chunk, as of version_
  std::map<std::string, std::unique_ptr<Column>, std::less<>> columns_;
  std::size_t bytes_ = 0;      // of the columns
  std::uint64_t version_ = 0;  // counts changes
  std::uint64_t columns_version_ = 0;
  bool names_dropped_ = false;  // more names than columns: of an unknown one nothing is known
};

}  // namespace freshet
