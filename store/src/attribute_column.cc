#include "attribute_column.h"

namespace freshet {
namespace {

// What a map's node and a string cost beside the text, near enough.
constexpr std::size_t kEntryBytes = 144;
constexpr std::size_t kListBytes = 96;

}  // namespace

std::string IndexedText(const std::string& text) {
  if (text.size() <= kMaxFilterTextBytes) return text;
  return text.substr(0, kMaxFilterTextBytes) + '\xff';  // never in UTF-8
}

std::uint32_t TextDictionary::Take(const std::string& text) {
  const auto [at, is_new] = codes_.try_emplace(text, 0);
  if (is_new) {
    if (free_.empty()) {
      at->second = static_cast<std::uint32_t>(entries_.size());
      entries_.emplace_back();
    } else {
      at->second = free_.back();
      free_.pop_back();
    }
    entries_[at->second].at = at;
    bytes_ += kEntryBytes + text.size();
  }
  ++entries_[at->second].uses;
  return at->second;
}

void TextDictionary::Release(std::uint32_t code) {
  Entry& entry = entries_[code];
  if (--entry.uses > 0) return;
  bytes_ -= kEntryBytes + entry.at->first.size();
  codes_.erase(entry.at);
  entry = Entry{};
  free_.push_back(code);
}

void TextDictionary::AddToList(std::uint32_t code, AttributeIndex::Slot slot) {
  const auto [list, is_new] =
      entries_[code].lists.try_emplace(static_cast<std::uint32_t>(slot / AttributeIndex::kChunkSlots));
  if (is_new) bytes_ += kListBytes;
  const auto at = static_cast<std::uint16_t>(slot % AttributeIndex::kChunkSlots);
  auto& slots = list->second;
  slots.insert(std::lower_bound(slots.begin(), slots.end(), at), at);
  bytes_ += sizeof at;
}

void TextDictionary::RemoveFromList(std::uint32_t code, AttributeIndex::Slot slot) {
  Lists& lists = entries_[code].lists;
  const auto list = lists.find(static_cast<std::uint32_t>(slot / AttributeIndex::kChunkSlots));
  const auto at = static_cast<std::uint16_t>(slot % AttributeIndex::kChunkSlots);
  auto& slots = list->second;
  slots.erase(std::lower_bound(slots.begin(), slots.end(), at));
  bytes_ -= sizeof at;
  if (!slots.empty()) return;
  lists.erase(list);
  bytes_ -= kListBytes;
}

namespace {

template <typename T>
std::size_t SetList(AttributeIndex::Slot slot, std::vector<T> list, Cells<std::vector<T>>* cells) {
  std::sort(list.begin(), list.end());
  list.erase(std::unique(list.begin(), list.end()), list.end());
  list.shrink_to_fit();
  const std::size_t bytes = list.size() * sizeof(T);
  return bytes + cells->Set(slot, std::move(list));
}

// Returns the bytes that come back.
template <typename T>
std::size_t ClearList(AttributeIndex::Slot slot, Cells<std::vector<T>>* cells) {
  const std::vector<T>* list = cells->Get(slot);
  if (list == nullptr) return 0;
  const std::size_t bytes = list->size() * sizeof(T);
  cells->Clear(slot);
  return bytes;
}

}  // namespace

void AttributeIndex::Column::Set(Slot slot, const AttributeValue& value) {
  if (const auto* boolean = std::get_if<bool>(&value)) {
    cell_bytes += booleans.Set(slot, *boolean ? 1 : 0);
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    cell_bytes += integers.Set(slot, *integer);
  } else if (const auto* number = std::get_if<double>(&value)) {
    cell_bytes += doubles.Set(slot, *number);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    cell_bytes += texts.Set(slot, dictionary.Take(IndexedText(*text)));
    if (const auto us = ParseTimestampUs(*text)) cell_bytes += times.Set(slot, *us);
  } else if (const auto* whole = std::get_if<std::vector<std::int64_t>>(&value)) {
    cell_bytes += SetList(slot, *whole, &integer_lists);
  } else if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    cell_bytes += SetList(slot, *numbers, &double_lists);
  } else if (const auto* flags = std::get_if<std::vector<bool>>(&value)) {
    std::uint8_t has = 0;
    for (const bool flag : *flags) has |= flag ? kHasTrue : kHasFalse;
    cell_bytes += boolean_lists.Set(slot, has);
  } else {
    std::vector<std::uint32_t> codes;
    std::vector<std::int64_t> instants;
    for (const std::string& one : std::get<std::vector<std::string>>(value)) {
      if (const auto us = ParseTimestampUs(one)) instants.push_back(*us);
      const std::uint32_t code = dictionary.Take(IndexedText(one));
      if (std::find(codes.begin(), codes.end(), code) != codes.end()) {
        dictionary.Release(code);
        continue;
      }
      dictionary.AddToList(code, slot);
      codes.push_back(code);
    }
    cell_bytes += codes.size() * sizeof(std::uint32_t);
    cell_bytes += lists.Set(slot, std::move(codes));
    if (!instants.empty()) cell_bytes += SetList(slot, std::move(instants), &time_lists);
  }
}

void AttributeIndex::Column::Remove(Slot slot) {
  if (booleans.Get(slot) != nullptr) booleans.Clear(slot);
  if (integers.Get(slot) != nullptr) integers.Clear(slot);
  if (doubles.Get(slot) != nullptr) doubles.Clear(slot);
  if (times.Get(slot) != nullptr) times.Clear(slot);
  if (boolean_lists.Get(slot) != nullptr) boolean_lists.Clear(slot);
  cell_bytes -= ClearList(slot, &integer_lists) + ClearList(slot, &double_lists) + ClearList(slot, &time_lists);
  if (const std::uint32_t* code = texts.Get(slot)) {
    dictionary.Release(*code);
    texts.Clear(slot);
  }
  if (const std::vector<std::uint32_t>* codes = lists.Get(slot)) {
    for (const std::uint32_t code : *codes) {
      dictionary.RemoveFromList(code, slot);
      dictionary.Release(code);
    }
    cell_bytes -= codes->size() * sizeof(std::uint32_t);
    lists.Clear(slot);
  }
}

}  // namespace freshet
