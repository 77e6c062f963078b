#include "input_cache.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "freshet/core/checksum.h"

namespace freshet {
namespace {

// The indices of bag `bag` of row `row`.
std::span<const std::int64_t> Bag(const TowerInput& input, std::int64_t row, int bag, int bags) {
  const auto at = static_cast<std::size_t>(row * bags + bag);
  const auto begin = static_cast<std::size_t>(input.offsets[at]);
  const std::size_t end =
      at + 1 < input.offsets.size() ? static_cast<std::size_t>(input.offsets[at + 1]) : input.indices.size();
  return std::span(input.indices).subspan(begin, end - begin);
}

int BagOf(const FeatureSpec& spec, std::string_view name) {
  int bag = 0;
  for (const FeatureDef& def : spec.features) {
    if (def.kind == FeatureKind::kDense) continue;
    if (def.name == name) return bag;
    ++bag;
  }
  return -1;
}

std::size_t FeatureOf(const FeatureSpec& spec, std::string_view name) {
  const auto found =
      std::find_if(spec.features.begin(), spec.features.end(), [&](const FeatureDef& def) { return def.name == name; });
  return static_cast<std::size_t>(found - spec.features.begin());
}

void CopyDense(const TowerInput& from, std::int64_t row, int count, TowerInput* to) {
  const auto begin = from.dense.begin() + static_cast<std::ptrdiff_t>(row * count);
  to->dense.insert(to->dense.end(), begin, begin + count);
}

}  // namespace

InputCache::InputCache(const TrainingData& data) : data_(data), item_spec_(data.item_spec), user_spec_(data.user_spec) {
  for (const ItemUpdate& item : data.items) freshet::AppendItem(item_spec_, item, &items_);
  for (const UserContext& user : data.users) freshet::AppendUser(user_spec_, user, &users_);
  id_bag_ = BagOf(item_spec_, "item_id");
  history_bag_ = BagOf(user_spec_, "history");
  for (std::size_t f = 0; f < user_spec_.features.size(); ++f) {
    const FeatureDef& def = user_spec_.features[f];
    if (def.name == "user_id") user_id_ = static_cast<std::ptrdiff_t>(f);
    if (def.kind == FeatureKind::kHistory) max_history_ = static_cast<std::size_t>(def.max_values);
    history_beside_ += IsOfHistory(def.kind) && def.kind != FeatureKind::kHistory ? 1 : 0;
    if (def.kind != FeatureKind::kHistoryEvents) continue;
    for (const std::string& event : data.event_names) {
      event_rows_.push_back(RowOf(user_spec_, f, event));
      hidden_events_.push_back(BucketRowOf(user_spec_, f, event));
    }
  }
  const std::size_t id = FeatureOf(item_spec_, "item_id");
  const std::size_t history = FeatureOf(user_spec_, "history");
  for (const ItemUpdate& item : data.items) {
    hidden_ids_.push_back(BucketRowOf(item_spec_, id, item.item_id));
    history_rows_.push_back(RowOf(user_spec_, history, item.item_id));
  }
}

std::vector<std::int64_t> InputCache::SharedRows() const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(user_spec_.table_rows()), -1);
  const std::size_t history = FeatureOf(user_spec_, "history");
  const auto words = static_cast<std::int64_t>(user_spec_.features[history].vocabulary.size());
  for (std::size_t item = 0; item < history_rows_.size(); ++item) {
    if (history_rows_[item] < 0 || history_rows_[item] - user_spec_.row_base[history] >= words) continue;
    const auto ids = Bag(items_, static_cast<std::int64_t>(item), id_bag_, item_spec_.bag_count());
    // A bucket is of many items: it stands for none of them.
    if (!ids.empty() && ids[0] != hidden_ids_[item]) rows[static_cast<std::size_t>(history_rows_[item])] = ids[0];
  }
  return rows;
}

std::string InputCache::Fingerprint(const TrainingData& data) const {
  Xxh3Stream hash;
  const auto add = [&](const auto& values) {
    const std::uint64_t size = values.size();
    hash.Update({reinterpret_cast<const char*>(&size), sizeof(size)});
    hash.Update({reinterpret_cast<const char*>(values.data()), size * sizeof(values[0])});
  };
  add(data.item_spec.ToYaml(0));
  add(data.user_spec.ToYaml(0));
  for (const TowerInput* input : {&items_, &users_}) {
    add(input->indices);
    add(input->offsets);
    add(input->dense);
  }
  for (const ItemUpdate& item : data.items) add(item.item_id);
  for (const auto& sequence : data.sequences) add(sequence);
  if (history_beside_ > 0) {
    for (const auto& events : data.sequence_events) add(events);
    for (const auto& times_ms : data.sequence_times_ms) add(times_ms);
    for (const std::string& name : data.event_names) add(name);
  }
  for (const TrainingExample& one : data.examples) {
    add(std::array{one.user, one.position, one.earlier});
    add(std::array{one.timestamp_ms});
    if (one.weight != 1) add(std::array{one.weight});
  }
  for (const ValidationCase& one : data.validation) {
    add(std::array{one.user});
    add(one.items);
  }
  return hash.Hex();
}

void InputCache::AppendItem(std::int32_t item, bool hide_id, TowerInput* input) const {
  const int bags = item_spec_.bag_count();
  for (int bag = 0; bag < bags; ++bag) {
    input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
    if (hide_id && bag == id_bag_) {
      const std::int64_t row = hidden_ids_[static_cast<std::size_t>(item)];
      if (row >= 0) input->indices.push_back(row);
      continue;
    }
    const auto rows = Bag(items_, item, bag, bags);
    input->indices.insert(input->indices.end(), rows.begin(), rows.end());
  }
  CopyDense(items_, item, item_spec_.dense_count(), input);
  ++input->rows;
}

void InputCache::AppendUser(std::int32_t user, TowerInput* input) const {
  const std::size_t size = data_.sequences[static_cast<std::size_t>(user)].size();
  std::vector<std::int32_t> newest(std::min(size, max_history_));
  std::iota(newest.begin(), newest.end(), static_cast<std::int32_t>(size - newest.size()));
  AppendUser(user, newest, {}, input);
}

void InputCache::AppendUser(std::int32_t user, std::span<const std::int32_t> positions, const HiddenOfUser& hidden,
                            TowerInput* input) const {
  const auto number = static_cast<std::size_t>(user);
  const int bags = user_spec_.bag_count();
  int bag = -1;
  for (std::size_t f = 0; f < user_spec_.features.size(); ++f) {
    const FeatureKind kind = user_spec_.features[f].kind;
    if (kind == FeatureKind::kDense) continue;
    ++bag;
    input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
    if (kind == FeatureKind::kHistory) {
      const std::vector<std::int32_t>& sequence = data_.sequences[number];
      input->history.kept.clear();
      const std::size_t count = std::min(positions.size(), max_history_);
      for (std::size_t i = 1; i <= count; ++i) {  // newest first, as in serving
        const auto position = static_cast<std::size_t>(positions[positions.size() - i]);
        const std::int64_t row = history_rows_[static_cast<std::size_t>(sequence[position])];
        if (row < 0) continue;
        input->indices.push_back(row);
        input->history.kept.push_back(position);
      }
    } else if (kind == FeatureKind::kHistoryEvents) {
      const std::vector<std::int64_t>& rows = hidden.context ? hidden_events_ : event_rows_;
      for (const std::size_t position : input->history.kept) {
        input->indices.push_back(rows[static_cast<std::size_t>(data_.sequence_events[number][position])]);
      }
    } else if (kind == FeatureKind::kHistoryGaps) {
      input->history.times_ms.clear();
      for (const std::size_t position : input->history.kept) {
        input->history.times_ms.push_back(hidden.context ? 0 : data_.sequence_times_ms[number][position]);
      }
      AppendGaps(user_spec_, f, input->history.times_ms, &input->indices);
    } else if (hidden.id && static_cast<std::ptrdiff_t>(f) == user_id_) {
      const std::int64_t row = BucketRowOf(user_spec_, f, data_.users[number].user_id);
      if (row >= 0) input->indices.push_back(row);
    } else {
      const auto rows = Bag(users_, user, bag, bags);
      input->indices.insert(input->indices.end(), rows.begin(), rows.end());
    }
  }
  CopyDense(users_, user, user_spec_.dense_count(), input);
  ++input->rows;
}

}  // namespace freshet
