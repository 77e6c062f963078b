#include "freshet/store/attribute_index.h"

#include <algorithm>
#include <bit>

#include "attribute_column.h"
#include "freshet/core/strings.h"
#include "range_bits.h"

namespace freshet {
namespace {

using Words = AttributeIndex::Words;

bool IsEmpty(const Words& words) {
  return std::all_of(words.begin(), words.end(), [](std::uint64_t word) { return word == 0; });
}

// A range as a predicate, which 64 numbers are asked at once.
template <typename T>
struct InRange {
  const Interval<T>& range;
  bool operator()(T value) const { return value >= range.low && value <= range.high; }
};
template <typename T, typename Predicate>
std::uint64_t BitsOf(const T* values, const Predicate& matches) {
  std::uint64_t found = 0;
  for (int bit = 0; bit < 64; ++bit) found |= static_cast<std::uint64_t>(matches(values[bit])) << bit;
  return found;
}
std::uint64_t BitsOf(const std::int64_t* values, const InRange<std::int64_t>& matches) {
  return FastestRangeKernels().integers(values, matches.range);
}
std::uint64_t BitsOf(const double* values, const InRange<double>& matches) {
  return FastestRangeKernels().doubles(values, matches.range);
}

// Sets in `out` the bits of `wanted` whose cell satisfies `matches`.
template <typename T, typename Predicate>
void Scan(const Cells<T>& cells, std::size_t number, const Words& wanted, const Predicate& matches, Words* out) {
  const auto* chunk = cells.Find(number);
  if (chunk == nullptr) return;
  for (std::size_t w = 0; w < AttributeIndex::kChunkWords; ++w) {
    std::uint64_t word = wanted[w] & chunk->present[w];
    if (word == 0) continue;
    const T* values = chunk->values.data() + w * 64;
    if (std::popcount(word) < 16) {
      for (std::uint64_t left = word; left != 0; left &= left - 1) {
        const int bit = std::countr_zero(left);
        if (!matches(values[bit])) word &= ~(std::uint64_t{1} << bit);
      }
      (*out)[w] |= word;
      continue;
    }
    (*out)[w] |= word & BitsOf(values, matches);
  }
}

template <typename T>
bool Contains(const std::vector<T>& sorted, const T& value) {
  return std::binary_search(sorted.begin(), sorted.end(), value);
}

template <typename T>
bool Contains(const Interval<T>& range, T value) {
  return InRange<T>{range}(value);
}

// Whether any of a list is in the range, or among those that are wanted. All are sorted.
template <typename T>
bool ContainsAny(const Interval<T>& range, const std::vector<T>& list) {
  const auto at = std::lower_bound(list.begin(), list.end(), range.low);
  return at != list.end() && *at <= range.high;
}

template <typename T>
bool ContainsAny(const std::vector<T>& wanted, const std::vector<T>& list) {
  return std::any_of(list.begin(), list.end(), [&](const T& value) { return Contains(wanted, value); });
}

// What Contains() says of one value, as a predicate.
template <typename T>
InRange<T> Among(const Interval<T>& range) {
  return {range};
}
template <typename T>
auto Among(const std::vector<T>& sorted) {
  return [&sorted](const T& value) { return Contains(sorted, value); };
}

bool MatchesText(const Condition& condition, const std::string& text) {
  return condition.kind == Condition::Kind::kPrefix ? text.starts_with(condition.prefix)
                                                    : Contains(condition.texts, text);
}

}  // namespace

// A filter's node with its attribute and its texts looked up.
struct AttributeIndex::Node {
  const Condition* condition = nullptr;  // nothing: a group
  const Column* column = nullptr;        // nothing: no item has the attribute
  std::vector<std::uint32_t> codes;
  std::vector<bool> is_code;  // by code
  std::vector<Node> must, should, must_not;

  [[nodiscard]] bool IsCode(std::uint32_t code) const { return code < is_code.size() && is_code[code]; }
};

class AttributeIndex::Compiled {
 public:
  Node root;
};

AttributeIndex::AttributeIndex(const AttributeIndexOptions& options) : options_(options) {}
AttributeIndex::~AttributeIndex() = default;

const AttributeIndex::Column* AttributeIndex::Find(std::string_view key) const {
  const auto it = columns_.find(key);
  return it == columns_.end() ? nullptr : it->second.get();
}

AttributeIndex::Column* AttributeIndex::FindOrAdd(const std::string& key) {
  const auto it = columns_.find(key);
  if (it != columns_.end()) return it->second.get();
  if (columns_.size() >= options_.max_columns) {
    if (!names_dropped_) ++columns_version_;
    names_dropped_ = true;
    return nullptr;
  }
  return columns_.emplace(key, std::make_unique<Column>()).first->second.get();
}

void AttributeIndex::Drop(Column* column) {
  *column = Column{};
  column->dropped = true;
  ++columns_version_;
}

void AttributeIndex::Set(Slot slot, const Attributes& attributes) {
  Remove(slot);
  ++version_;
  while (live_.size() <= slot / kChunkSlots) live_.push_back({});
  changed_at_.resize(live_.size());
  changed_at_[slot / kChunkSlots] = version_;
  live_[slot / kChunkSlots][slot % kChunkSlots / 64] |= std::uint64_t{1} << (slot % 64);
  for (const auto& [key, value] : attributes) {
    Column* column = FindOrAdd(key);
    if (column == nullptr || column->dropped) continue;
    bytes_ -= column->bytes();
    column->Set(slot, value);
    if (bytes_ + column->bytes() > options_.max_bytes) Drop(column);
    bytes_ += column->bytes();
  }
}

void AttributeIndex::Remove(Slot slot) {
  const std::size_t chunk = slot / kChunkSlots;
  if (chunk >= live_.size()) return;
  std::uint64_t& word = live_[chunk][slot % kChunkSlots / 64];
  const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
  if ((word & bit) == 0) return;
  word &= ~bit;
  changed_at_[chunk] = ++version_;
  for (auto& [key, column] : columns_) {
    bytes_ -= column->bytes();
    column->Remove(slot);
    bytes_ += column->bytes();
  }
}

Result<std::shared_ptr<AttributeIndex::Compiled>> AttributeIndex::Compile(const Filter& filter) const {
  auto compiled = std::make_shared<Compiled>();
  FRESHET_TRY(CompileNode(filter, &compiled->root));
  return compiled;
}

Status AttributeIndex::CompileNode(const Filter& filter, Node* node) const {
  const auto compile_all = [this](const std::vector<Filter>& filters, std::vector<Node>* nodes) {
    nodes->resize(filters.size());
    for (std::size_t i = 0; i < filters.size(); ++i) FRESHET_TRY(CompileNode(filters[i], &(*nodes)[i]));
    return Status::Ok();
  };
  if (!filter.condition) {
    FRESHET_TRY(compile_all(filter.must, &node->must));
    FRESHET_TRY(compile_all(filter.should, &node->should));
    return compile_all(filter.must_not, &node->must_not);
  }
  const Condition& condition = *filter.condition;
  node->condition = &condition;
  node->column = Find(condition.key);
  if (node->column == nullptr ? names_dropped_ : node->column->dropped) {
    return Unavailable(StrCat("no filter on `", condition.key, "` here: the attribute index is full (",
                              options_.max_bytes, " bytes, ", options_.max_columns, " attributes)"));
  }
  if (node->column == nullptr) return Status::Ok();
  const TextDictionary::Codes& codes = node->column->dictionary.codes();
  if (condition.kind == Condition::Kind::kPrefix) {
    for (auto it = codes.lower_bound(condition.prefix); it != codes.end() && it->first.starts_with(condition.prefix);
         ++it) {
      node->codes.push_back(it->second);
    }
  }
  for (const std::string& text : condition.texts) {
    if (const auto it = codes.find(text); it != codes.end()) node->codes.push_back(it->second);
  }
  if (node->codes.size() > 1) {
    node->is_code.resize(node->column->dictionary.code_bound());
    for (const std::uint32_t code : node->codes) node->is_code[code] = true;
  }
  return Status::Ok();
}

void AttributeIndex::Evaluate(const Compiled& filter, std::size_t chunk, Words* matching) const {
  *matching = live_[chunk];
  EvaluateNode(filter.root, chunk, matching);
}

// Narrows `matching` to what the node matches of it.
void AttributeIndex::EvaluateNode(const Node& node, std::size_t chunk, Words* matching) const {
  if (IsEmpty(*matching)) return;
  if (node.condition != nullptr) return EvaluateCondition(node, chunk, matching);
  for (const Node& child : node.must) EvaluateNode(child, chunk, matching);
  for (const Node& child : node.must_not) {
    Words refused = *matching;
    EvaluateNode(child, chunk, &refused);
    for (std::size_t w = 0; w < kChunkWords; ++w) (*matching)[w] &= ~refused[w];
  }
  if (node.should.empty()) return;
  Words any{};
  for (const Node& child : node.should) {
    Words one;
    for (std::size_t w = 0; w < kChunkWords; ++w) one[w] = (*matching)[w] & ~any[w];
    EvaluateNode(child, chunk, &one);
    for (std::size_t w = 0; w < kChunkWords; ++w) any[w] |= one[w];
  }
  *matching = any;
}

void AttributeIndex::EvaluateCondition(const Node& node, std::size_t chunk, Words* matching) const {
  const Condition& condition = *node.condition;
  Words found{};
  if (node.column == nullptr) {
    if (condition.kind != Condition::Kind::kExists || condition.exists) *matching = found;
    return;
  }
  const Column& column = *node.column;
  const auto all = [](const auto&) { return true; };
  const auto scan_both = [&](const auto& values, const auto& lists, const auto& wanted) {
    Scan(values, chunk, *matching, Among(wanted), &found);
    Scan(
        lists, chunk, *matching, [&](const auto& list) { return ContainsAny(wanted, list); }, &found);
  };
  switch (condition.kind) {
    case Condition::Kind::kExists:
      Scan(column.integers, chunk, *matching, all, &found);
      Scan(column.doubles, chunk, *matching, all, &found);
      Scan(column.booleans, chunk, *matching, all, &found);
      Scan(column.texts, chunk, *matching, all, &found);
      Scan(column.lists, chunk, *matching, all, &found);
      Scan(column.integer_lists, chunk, *matching, all, &found);
      Scan(column.double_lists, chunk, *matching, all, &found);
      Scan(column.boolean_lists, chunk, *matching, all, &found);
      if (!condition.exists) {
        for (std::size_t w = 0; w < kChunkWords; ++w) found[w] = (*matching)[w] & ~found[w];
      }
      break;
    case Condition::Kind::kNumbers:
      scan_both(column.integers, column.integer_lists, Interval<std::int64_t>(condition.integer_range));
      scan_both(column.doubles, column.double_lists, Interval<double>(condition.double_range));
      break;
    case Condition::Kind::kTimes:
      scan_both(column.times, column.time_lists, Interval<std::int64_t>(condition.integer_range));
      break;
    case Condition::Kind::kAny:
      if (!condition.integers.empty()) scan_both(column.integers, column.integer_lists, condition.integers);
      if (!condition.doubles.empty()) scan_both(column.doubles, column.double_lists, condition.doubles);
      if (condition.match_true || condition.match_false) {
        Scan(
            column.booleans, chunk, *matching,
            [&](std::uint8_t v) { return v != 0 ? condition.match_true : condition.match_false; }, &found);
        Scan(
            column.boolean_lists, chunk, *matching, [&](std::uint8_t v) { return MatchesAnyOf(v, condition); }, &found);
      }
      [[fallthrough]];
    case Condition::Kind::kPrefix:
      if (node.codes.size() == 1) {
        Scan(
            column.texts, chunk, *matching, [code = node.codes[0]](std::uint32_t v) { return v == code; }, &found);
      } else if (!node.codes.empty()) {
        Scan(
            column.texts, chunk, *matching, [&](std::uint32_t v) { return node.IsCode(v); }, &found);
      }
      for (const std::uint32_t code : node.codes) {
        const TextDictionary::Lists& lists = column.dictionary.ListsOf(code);
        const auto list = lists.find(static_cast<std::uint32_t>(chunk));
        if (list == lists.end()) continue;
        for (const std::uint16_t at : list->second) found[at / 64] |= std::uint64_t{1} << (at % 64);
      }
      break;
  }
  for (std::size_t w = 0; w < kChunkWords; ++w) (*matching)[w] &= found[w];
}

// A slot's value, or one of its list.
template <typename Wanted, typename T>
bool AttributeIndex::HasIn(const Wanted& wanted, Slot slot, const Cells<T>& values,
                           const Cells<std::vector<T>>& lists) {
  if (const T* value = values.Get(slot)) return Contains(wanted, *value);
  const std::vector<T>* list = lists.Get(slot);
  return list != nullptr && ContainsAny(wanted, *list);
}

bool AttributeIndex::MatchesAnyOf(std::uint8_t has, const Condition& condition) {
  return (condition.match_true && (has & Column::kHasTrue) != 0) ||
         (condition.match_false && (has & Column::kHasFalse) != 0);
}

bool AttributeIndex::Matches(const Filter& filter, Slot slot) const {
  if (filter.condition) return MatchesCondition(*filter.condition, slot);
  const auto matches = [&](const Filter& child) { return Matches(child, slot); };
  return std::all_of(filter.must.begin(), filter.must.end(), matches) &&
         std::none_of(filter.must_not.begin(), filter.must_not.end(), matches) &&
         (filter.should.empty() || std::any_of(filter.should.begin(), filter.should.end(), matches));
}

bool AttributeIndex::MatchesCondition(const Condition& condition, Slot slot) const {
  const Column* column = Find(condition.key);
  if (column == nullptr) return condition.kind == Condition::Kind::kExists && !condition.exists;
  switch (condition.kind) {
    case Condition::Kind::kExists:
      return column->Has(slot) == condition.exists;
    case Condition::Kind::kTimes:
      return HasIn(condition.integer_range, slot, column->times, column->time_lists);
    case Condition::Kind::kNumbers:
      return HasIn(condition.integer_range, slot, column->integers, column->integer_lists) ||
             HasIn(condition.double_range, slot, column->doubles, column->double_lists);
    case Condition::Kind::kAny:
      if (HasIn(condition.integers, slot, column->integers, column->integer_lists) ||
          HasIn(condition.doubles, slot, column->doubles, column->double_lists)) {
        return true;
      }
      if (const std::uint8_t* boolean = column->booleans.Get(slot)) {
        return *boolean != 0 ? condition.match_true : condition.match_false;
      }
      if (const std::uint8_t* has = column->boolean_lists.Get(slot)) return MatchesAnyOf(*has, condition);
      [[fallthrough]];
    case Condition::Kind::kPrefix:
      break;
  }
  const auto matches = [&](std::uint32_t code) { return MatchesText(condition, column->dictionary.Text(code)); };
  if (const std::uint32_t* code = column->texts.Get(slot)) return matches(*code);
  const std::vector<std::uint32_t>* codes = column->lists.Get(slot);
  return codes != nullptr && std::any_of(codes->begin(), codes->end(), matches);
}

std::vector<FilterValue> AttributeIndex::Values(std::string_view key, Slot slot) const {
  const Column* column = Find(key);
  std::vector<FilterValue> values;
  if (column == nullptr) return values;
  if (const std::int64_t* integer = column->integers.Get(slot)) values.emplace_back(*integer);
  if (const double* number = column->doubles.Get(slot)) values.emplace_back(*number);
  if (const std::uint8_t* boolean = column->booleans.Get(slot)) values.emplace_back(*boolean != 0);
  if (const std::uint32_t* code = column->texts.Get(slot)) values.emplace_back(column->dictionary.Text(*code));
  if (const std::vector<std::uint32_t>* codes = column->lists.Get(slot)) {
    for (const std::uint32_t code : *codes) values.emplace_back(column->dictionary.Text(code));
  }
  if (const std::vector<std::int64_t>* list = column->integer_lists.Get(slot)) {
    for (const std::int64_t one : *list) values.emplace_back(one);
  }
  if (const std::vector<double>* list = column->double_lists.Get(slot)) {
    for (const double one : *list) values.emplace_back(one);
  }
  if (const std::uint8_t* has = column->boolean_lists.Get(slot)) {
    if ((*has & Column::kHasFalse) != 0) values.emplace_back(false);
    if ((*has & Column::kHasTrue) != 0) values.emplace_back(true);
  }
  return values;
}

AttributeIndexStats AttributeIndex::Stats() const {
  AttributeIndexStats stats;
  stats.columns = columns_.size();
  stats.bytes = bytes_ + live_.size() * sizeof(Words);
  for (const auto& [key, column] : columns_) {
    stats.dropped_columns += column->dropped ? 1 : 0;
    stats.texts += column->dictionary.codes().size();
  }
  return stats;
}

}  // namespace freshet
