// One attribute of all items: typed cells by slot, and the dictionary of its texts. See attribute_index.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "freshet/store/attribute_index.h"

namespace freshet {

// Values of one type by slot, in chunks that are there only where there are values.
template <typename T>
class Cells {
 public:
  static constexpr std::size_t kChunkSlots = AttributeIndex::kChunkSlots;
  struct Chunk {
    AttributeIndex::Words present{};
    std::array<T, kChunkSlots> values{};
  };
  [[nodiscard]] const Chunk* Find(std::size_t chunk) const {
    return chunk < chunks_.size() ? chunks_[chunk].get() : nullptr;
  }
  [[nodiscard]] const T* Get(AttributeIndex::Slot slot) const {
    const Chunk* chunk = Find(slot / kChunkSlots);
    const std::size_t at = slot % kChunkSlots;
    return chunk != nullptr && (chunk->present[at / 64] >> (at % 64) & 1) != 0 ? &chunk->values[at] : nullptr;
  }
  // Returns the bytes it took.
  std::size_t Set(AttributeIndex::Slot slot, T value) {
    const std::size_t number = slot / kChunkSlots;
    const std::size_t at = slot % kChunkSlots;
    std::size_t bytes = 0;
    if (number >= chunks_.size()) {
      bytes += (number + 1 - chunks_.size()) * sizeof(chunks_[0]);
      chunks_.resize(number + 1);
    }
    if (!chunks_[number]) {
      chunks_[number] = std::make_unique<Chunk>();
      bytes += sizeof(Chunk);
    }
    chunks_[number]->present[at / 64] |= std::uint64_t{1} << (at % 64);
    chunks_[number]->values[at] = std::move(value);
    return bytes;
  }
  // REQUIRES: the slot is set. The chunk stays: a slot that was used is used again.
  void Clear(AttributeIndex::Slot slot) {
    Chunk& chunk = *chunks_[slot / kChunkSlots];
    const std::size_t at = slot % kChunkSlots;
    chunk.present[at / 64] &= ~(std::uint64_t{1} << (at % 64));
    chunk.values[at] = T{};
  }

 private:
  std::vector<std::unique_ptr<Chunk>> chunks_;
};

// The different texts of a column, numbered; a number is used again when no item has its text any more.
class TextDictionary {
 public:
  // The slots of a chunk, sorted, by chunk: where the text is one of an array's.
  using Lists = std::map<std::uint32_t, std::vector<std::uint16_t>>;
  using Codes = std::map<std::string, std::uint32_t, std::less<>>;

  [[nodiscard]] std::uint32_t Take(const std::string& text);
  void Release(std::uint32_t code);
  void AddToList(std::uint32_t code, AttributeIndex::Slot slot);
  void RemoveFromList(std::uint32_t code, AttributeIndex::Slot slot);
  [[nodiscard]] const std::string& Text(std::uint32_t code) const { return entries_[code].at->first; }
  [[nodiscard]] const Lists& ListsOf(std::uint32_t code) const { return entries_[code].lists; }
  [[nodiscard]] const Codes& codes() const { return codes_; }  // by text, ordered
  [[nodiscard]] std::size_t code_bound() const { return entries_.size(); }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  struct Entry {
    Codes::iterator at;
    std::uint32_t uses = 0;
    Lists lists;
  };
  Codes codes_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::size_t bytes_ = 0;
};

struct AttributeIndex::Column {
  static constexpr std::uint8_t kHasFalse = 1;
  static constexpr std::uint8_t kHasTrue = 2;

  void Set(Slot slot, const AttributeValue& value);
  void Remove(Slot slot);
  [[nodiscard]] bool Has(Slot slot) const {
    return integers.Get(slot) || doubles.Get(slot) || booleans.Get(slot) || texts.Get(slot) || lists.Get(slot) ||
           integer_lists.Get(slot) || double_lists.Get(slot) || boolean_lists.Get(slot);
  }
  [[nodiscard]] std::size_t bytes() const { return cell_bytes + dictionary.bytes(); }

  Cells<std::int64_t> integers;
  Cells<double> doubles;
  Cells<std::uint8_t> booleans;
  Cells<std::uint32_t> texts;
  Cells<std::int64_t> times;                       // beside `texts`, of those that are timestamps
  Cells<std::vector<std::uint32_t>> lists;         // of texts
  Cells<std::vector<std::int64_t>> time_lists;     // beside `lists`, of those that are timestamps
  Cells<std::vector<std::int64_t>> integer_lists;  // each sorted, without repetition
  Cells<std::vector<double>> double_lists;         // the same
  Cells<std::uint8_t> boolean_lists;               // kHasFalse, kHasTrue
  TextDictionary dictionary;
  std::size_t cell_bytes = 0;
  bool dropped = false;
};

// As texts are compared: not beyond the bound, so that no filter's text equals a longer one by its beginning.
[[nodiscard]] std::string IndexedText(const std::string& text);

}  // namespace freshet
