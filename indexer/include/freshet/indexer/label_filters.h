// Filters that most callers need, ready made: the labels of a bitmap, those of a list, and all but those of a list.
//
// Place in the flow: SearchOptions::filter, of every kind of index. Thread-safe while they are searched with, which is
// once they are filled; a filter outlives the searches that have it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "freshet/indexer/index.h"

namespace freshet {

// What may be returned, a bit for each label of a range; outside of it nothing may. Errors: std::bad_alloc.
class LabelBitmap final : public LabelFilter {
 public:
  // Of the labels from `begin` to before `end`; none of them is allowed yet.
  LabelBitmap(Label begin, Label end)
      : begin_(begin), size_(end - begin), words_(static_cast<std::size_t>((size_ + 63) / 64)) {}
  // These are, labels of the range; faster than one by one where they are many.
  LabelBitmap(Label begin, Label end, std::span<const Label> allowed);
  // REQUIRES for both: a label of the range.
  void Allow(Label label) { words_[WordOf(label)] |= BitOf(label); }
  void Refuse(Label label) { words_[WordOf(label)] &= ~BitOf(label); }
  [[nodiscard]] bool Allows(Label label) const override {
    return label - begin_ < size_ && (words_[WordOf(label)] & BitOf(label)) != 0;
  }
  [[nodiscard]] std::uint64_t AllowsEach(std::span<const Label> labels) const override {
    std::uint64_t behind = 0;
    return AllowsEach(labels, &behind);
  }
  // And which of them lie behind the range: those that came after it was made, perhaps.
  [[nodiscard]] std::uint64_t AllowsEach(std::span<const Label> labels, std::uint64_t* behind) const;

 private:
  [[nodiscard]] std::size_t WordOf(Label label) const { return static_cast<std::size_t>((label - begin_) / 64); }
  [[nodiscard]] std::uint64_t BitOf(Label label) const { return std::uint64_t{1} << ((label - begin_) % 64); }

  Label begin_;
  std::uint64_t size_;
  std::vector<std::uint64_t> words_;
};

// What may not be returned, a few thousand labels as a rule: what a user has seen. A hash table of at most half its
// places, so that a label that is not in it, as most are, costs one read. Errors: std::bad_alloc.
class ExcludedLabels final : public LabelFilter {
 public:
  ExcludedLabels() = default;
  explicit ExcludedLabels(std::span<const Label> labels) {
    Reserve(labels.size());
    for (const Label label : labels) Add(label);
  }
  // Room for so many at once.
  void Reserve(std::size_t labels) {
    if (2 * labels > places_.size()) Resize(std::bit_ceil(std::max<std::size_t>(64, 2 * labels)));
  }
  void Add(Label label) {
    if (!Allows(label)) return;
    ++size_;
    if (label == kNone) {
      refuses_none_ = true;
      return;
    }
    if (2 * size_ > places_.size()) Resize(std::max<std::size_t>(64, 2 * places_.size()));
    places_[FreePlace(label)] = label;
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t RefusesAtMost() const override { return size_; }
  [[nodiscard]] bool Allows(Label label) const override {
    if (label == kNone) return !refuses_none_;
    if (places_.empty()) return true;
    for (std::size_t at = Home(label); places_[at] != kNone; at = (at + 1) & (places_.size() - 1)) {
      if (places_[at] == label) return false;
    }
    return true;
  }

 private:
  static constexpr Label kNone = ~Label{0};  // an empty place

  [[nodiscard]] std::size_t Home(Label label) const {
    return static_cast<std::size_t>((label * 0x9e3779b97f4a7c15ULL) >> shift_);
  }
  [[nodiscard]] std::size_t FreePlace(Label label) const {
    std::size_t at = Home(label);
    while (places_[at] != kNone) at = (at + 1) & (places_.size() - 1);
    return at;
  }
  void Resize(std::size_t places) {
    std::vector<Label> old(places, kNone);
    old.swap(places_);
    shift_ = 64 - std::countr_zero(places);
    for (const Label label : old) {
      if (label != kNone) places_[FreePlace(label)] = label;
    }
  }

  std::vector<Label> places_;  // a power of two of them
  int shift_ = 64;             // the upper bits of the hash number a place
  std::size_t size_ = 0;
  bool refuses_none_ = false;
};

// What alone may be returned, some ten thousand labels at most: the same table, asked the other way round.
class OnlyLabels final : public LabelFilter {
 public:
  explicit OnlyLabels(std::span<const Label> labels) : table_(labels) {}
  [[nodiscard]] bool Allows(Label label) const override { return !table_.Allows(label); }

 private:
  ExcludedLabels table_;
};

}  // namespace freshet
