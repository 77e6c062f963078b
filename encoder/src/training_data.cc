#include "training_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "dataset.h"
#include "feature_builder.h"
#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

class Loader {
 public:
  Loader(const TrainOptions& options, TrainOn part) : options_(options), part_(part) {}

  Result<TrainingData> Load() {
    const DatasetOptions what{options_.items_file, options_.interactions_file, options_.users_file, options_.until_ms,
                              options_.split,      Part::kValidation};
    FRESHET_ASSIGN(Dataset dataset, LoadDataset(what));
    data_.items = std::move(dataset.items);
    data_.users = std::move(dataset.users);
    data_.unknown_items = dataset.unknown_items;
    item_first_ms_ = std::move(dataset.item_first_ms);
    split_ms_ = dataset.judged_from_ms;
    FRESHET_TRY(MakeExamples(dataset.positives));
    FRESHET_TRY(FitItems());
    FRESHET_TRY(FitUsers());
    WarnOfLoneInteractions();
    return std::move(data_);
  }

 private:
  Status MakeExamples(const std::vector<Positive>& positives) {
    data_.sequences.resize(data_.users.size());
    data_.item_counts.resize(data_.items.size());
    std::vector<ValidationCase> cases(data_.users.size());
    std::size_t validated = 0;
    std::vector<std::int64_t> basket_ms(data_.users.size(), -1);
    std::vector<std::int32_t> basket_begin(data_.users.size());
    for (const Positive& positive : positives) {
      const auto user = static_cast<std::size_t>(positive.user);
      if (positive.part == Part::kValidation && part_ == TrainOn::kTrainingPart) {
        cases[user].items.push_back(positive.item);
        ++validated;
        continue;
      }
      std::vector<std::int32_t>& sequence = data_.sequences[user];
      const auto position = static_cast<std::int32_t>(sequence.size());
      if (basket_ms[user] != positive.timestamp_ms) {
        basket_ms[user] = positive.timestamp_ms;
        basket_begin[user] = position;
      }
      data_.examples.push_back({positive.user, position, basket_begin[user], positive.timestamp_ms});
      sequence.push_back(positive.item);
      ++data_.item_counts[static_cast<std::size_t>(positive.item)];
    }
    if (data_.examples.size() < 2) {
      return InvalidArgument(StrCat(options_.interactions_file, ": too few interactions before the validation part (",
                                    data_.examples.size(), " of ", positives.size(),
                                    "): do they carry a `timestamp`, and do the times differ?"));
    }
    if (part_ == TrainOn::kValidationToo) return Status::Ok();
    if (validated == 0) {
      return InvalidArgument(StrCat(options_.interactions_file, ": the validation part is empty: all ",
                                    positives.size(),
                                    " interactions lie before it: let it begin earlier, or give a larger fraction"));
    }
    for (std::size_t user = 0; user < cases.size(); ++user) {
      std::vector<std::int32_t>& items = cases[user].items;
      const std::vector<std::int32_t>& before = data_.sequences[user];
      // Without any history there is little to recommend from; popularity is then nearly the whole answer.
      if (before.empty() && !options_.validate_strangers) continue;
      std::sort(items.begin(), items.end());
      items.erase(std::unique(items.begin(), items.end()), items.end());
      if (options_.mask_seen) {
        std::erase_if(items,
                      [&](std::int32_t item) { return std::find(before.begin(), before.end(), item) != before.end(); });
      }
      if (items.empty()) continue;
      cases[user].user = static_cast<std::int32_t>(user);
      data_.validation.push_back(std::move(cases[user]));
    }
    if (data_.validation.empty()) {
      return InvalidArgument(StrCat(options_.interactions_file,
                                    ": no user has interactions both before and in the validation part: give more "
                                    "interactions, or a larger validation part, or --validate-strangers"));
    }
    return Status::Ok();
  }

  // Their pairs have nothing to read: they teach what is popular and no more.
  void WarnOfLoneInteractions() {
    std::int64_t users = 0;
    std::int64_t lone = 0;
    for (const auto& sequence : data_.sequences) {
      users += sequence.empty() ? 0 : 1;
      lone += sequence.size() == 1 ? 1 : 0;
    }
    if (2 * lone <= users) return;
    data_.warnings.push_back(StrCat(options_.interactions_file, ": ", lone, " of ", users,
                                    " users have a single interaction before the validation part, so there is hardly a "
                                    "history to learn from: give a longer time, or profiles and --stranger-share"));
  }

  void WarnOfConstants(const FeatureBuilder& builder, const std::string& file) {
    for (const std::string& name : builder.Constant()) {
      data_.warnings.push_back(
          StrCat(file, ": feature `", name,
                 "` has the same value wherever it is given and tells nothing apart: leave it out, "
                 "or see whether the export cut it off"));
    }
  }

  static const FeatureRequest* RequestOf(const std::vector<FeatureRequest>& requests, std::string_view name) {
    const auto found =
        std::find_if(requests.begin(), requests.end(), [&](const auto& one) { return one.name == name; });
    return found == requests.end() ? nullptr : &*found;
  }

  Status FitItems() {
    FeatureBuilder builder(options_.features.items, "item");
    std::unordered_map<std::string, std::int64_t> ids;
    for (std::size_t i = 0; i < data_.items.size(); ++i) {
      const ItemUpdate& item = data_.items[i];
      // An id that was never a target would keep its random row; such items are carried by their content.
      if (data_.item_counts[i] > 0) ids.emplace(item.item_id, data_.item_counts[i]);
      if (data_.item_counts[i] == 0 && item_first_ms_[i] >= split_ms_) continue;
      if (const Status status = builder.Add(item.features); !status.ok()) {
        return status.Prefixed(StrCat(options_.items_file, ": item `", item.item_id, "`"));
      }
    }
    WarnOfConstants(builder, options_.items_file);
    FeatureDef id = VocabularyFeature("item_id", FeatureKind::kCategorical, ids, 1);
    FeatureDef history = id;
    id.buckets = 1;  // "an item I do not know", trained by id dropout
    if (const FeatureRequest* request = RequestOf(options_.features.items, "item_id")) {
      FeatureRequest asked = *request;
      if (!asked.buckets) asked.buckets = 1;
      FRESHET_ASSIGN(id, VocabularyFeature(asked, ids, 1));
    }
    FRESHET_ASSIGN(data_.item_spec.features, builder.Build());
    data_.item_spec.features.insert(data_.item_spec.features.begin(), std::move(id));

    history.name = "history";
    history.kind = FeatureKind::kHistory;
    history.buckets = 0;  // unknown items of a history are left out of its mean
    if (const FeatureRequest* request = RequestOf(options_.features.users, "history")) {
      FeatureRequest asked = *request;
      if (!asked.buckets) asked.buckets = 0;
      FRESHET_ASSIGN(history, VocabularyFeature(asked, ids, 1));
    }
    history.max_values = options_.history;
    data_.user_spec.features.push_back(std::move(history));
    return data_.item_spec.Finish();
  }

  Status FitUsers() {
    FeatureBuilder builder(options_.features.users, "user");
    for (std::size_t i = 0; i < data_.users.size(); ++i) {
      if (data_.sequences[i].empty()) continue;
      if (const Status status = builder.Add(data_.users[i].features); !status.ok()) {
        return status.Prefixed(StrCat(options_.users_file, ": user `", data_.users[i].user_id, "`"));
      }
    }
    WarnOfConstants(builder, options_.users_file);
    FRESHET_ASSIGN(std::vector<FeatureDef> defs, builder.Build());
    for (FeatureDef& def : defs) data_.user_spec.features.push_back(std::move(def));
    return data_.user_spec.Finish();
  }

  const TrainOptions& options_;
  const TrainOn part_;
  TrainingData data_;
  std::vector<std::int64_t> item_first_ms_;
  std::int64_t split_ms_ = 0;
};

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

Result<TrainingData> LoadTrainingData(const TrainOptions& options, TrainOn part) {
  return Loader(options, part).Load();
}

InputCache::InputCache(const TrainingData& data) : item_spec_(data.item_spec), user_spec_(data.user_spec) {
  for (const ItemUpdate& item : data.items) freshet::AppendItem(item_spec_, item, &items_);
  for (const UserContext& user : data.users) freshet::AppendUser(user_spec_, user, &users_);
  id_bag_ = BagOf(item_spec_, "item_id");
  history_bag_ = BagOf(user_spec_, "history");
  for (const FeatureDef& def : user_spec_.features) {
    if (def.kind == FeatureKind::kHistory) max_history_ = static_cast<std::size_t>(def.max_values);
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
  for (const TrainingExample& one : data.examples) {
    add(std::array{one.user, one.position, one.earlier});
    add(std::array{one.timestamp_ms});
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

void InputCache::AppendUser(std::int32_t user, std::span<const std::int32_t> before, TowerInput* input) const {
  const int bags = user_spec_.bag_count();
  for (int bag = 0; bag < bags; ++bag) {
    input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
    if (bag == history_bag_) {
      const std::size_t count = std::min(before.size(), max_history_);
      for (std::size_t i = 1; i <= count; ++i) {  // newest first, as in serving
        const std::int64_t row = history_rows_[static_cast<std::size_t>(before[before.size() - i])];
        if (row >= 0) input->indices.push_back(row);
      }
    } else {
      const auto rows = Bag(users_, user, bag, bags);
      input->indices.insert(input->indices.end(), rows.begin(), rows.end());
    }
  }
  CopyDense(users_, user, user_spec_.dense_count(), input);
  ++input->rows;
}

}  // namespace freshet
