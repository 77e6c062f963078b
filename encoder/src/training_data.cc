#include "training_data.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "feature_builder.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/event_file.h"

namespace freshet {
namespace {

struct Positive {
  std::int32_t user = 0;
  std::int32_t item = 0;
  std::int64_t timestamp_ms = 0;
};

// Numbers for ids, in order of appearance.
class Numbering {
 public:
  [[nodiscard]] std::int32_t Of(const std::string& id) {
    return numbers_.emplace(id, static_cast<std::int32_t>(numbers_.size())).first->second;
  }
  [[nodiscard]] std::int32_t Find(const std::string& id) const {
    const auto found = numbers_.find(id);
    return found == numbers_.end() ? -1 : found->second;
  }
  [[nodiscard]] std::size_t size() const { return numbers_.size(); }

 private:
  std::unordered_map<std::string, std::int32_t> numbers_;
};

class Loader {
 public:
  explicit Loader(const TrainOptions& options) : options_(options) {}

  Result<TrainingData> Load() {
    FRESHET_TRY(ReadItems());
    FRESHET_TRY(ReadInteractions());
    FRESHET_TRY(ReadUsers());
    FRESHET_TRY(SplitByTime());
    FRESHET_TRY(FitItems());
    FRESHET_TRY(FitUsers());
    return std::move(data_);
  }

 private:
  [[nodiscard]] bool Seen(std::int64_t timestamp_ms) const {
    return options_.until_ms == 0 || timestamp_ms < options_.until_ms;
  }

  Status ReadItems() {
    std::unordered_map<std::string, std::size_t> at;
    std::vector<std::int64_t> first_ms;
    FRESHET_TRY(ForEachEvent(options_.items_file, TopicRole::kItems, DecodeLimits{}, [&](Event&& event, double) {
      auto* item = std::get_if<ItemUpdate>(&event.body);
      if (item == nullptr || !Seen(event.record_timestamp_ms)) return Status::Ok();
      const auto [slot, added] = at.emplace(item->item_id, data_.items.size());
      if (added) {
        data_.items.push_back(std::move(*item));
        first_ms.push_back(event.record_timestamp_ms);
      } else {
        data_.items[slot->second] = std::move(*item);
      }
      return Status::Ok();
    }));
    std::size_t kept = 0;
    for (std::size_t i = 0; i < data_.items.size(); ++i) {
      if (data_.items[i].deleted) continue;
      if (kept != i) data_.items[kept] = std::move(data_.items[i]);
      item_first_ms_.push_back(first_ms[i]);
      ++kept;
    }
    data_.items.resize(kept);
    for (const ItemUpdate& item : data_.items) (void)item_numbers_.Of(item.item_id);
    if (data_.items.empty()) {
      return InvalidArgument(
          StrCat(options_.items_file, ": holds no items", options_.until_ms == 0 ? "" : " before --until"));
    }
    return Status::Ok();
  }

  Status ReadInteractions() {
    std::string first_unknown;
    FRESHET_TRY(
        ForEachEvent(options_.interactions_file, TopicRole::kInteractions, DecodeLimits{}, [&](Event&& event, double) {
          const auto* one = std::get_if<Interaction>(&event.body);
          // A return or a thumb down is not what the towers should bring back.
          if (one == nullptr || !Seen(one->timestamp_ms) || one->value <= 0) return Status::Ok();
          const std::int32_t item = item_numbers_.Find(one->item_id);
          if (item < 0) {
            if (data_.unknown_items++ == 0) first_unknown = one->item_id;
            return Status::Ok();
          }
          positives_.push_back({user_numbers_.Of(one->user_id), item, one->timestamp_ms});
          if (user_numbers_.size() > data_.users.size()) {
            data_.users.emplace_back().user_id = one->user_id;
          }
          return Status::Ok();
        }));
    if (!positives_.empty()) return Status::Ok();
    if (data_.unknown_items > 0) {
      return InvalidArgument(StrCat(options_.interactions_file, ": none of its items is in ", options_.items_file,
                                    " (the first is `", first_unknown, "`): are these files of the same shop?"));
    }
    return InvalidArgument(StrCat(options_.interactions_file, ": holds no positive interactions",
                                  options_.until_ms == 0 ? "" : " before --until"));
  }

  Status ReadUsers() {
    if (options_.users_file.empty()) return Status::Ok();
    return ForEachEvent(options_.users_file, TopicRole::kUsers, DecodeLimits{}, [&](Event&& event, double) {
      auto* user = std::get_if<UserUpdate>(&event.body);
      if (user == nullptr || !Seen(event.record_timestamp_ms)) return Status::Ok();
      const std::int32_t number = user_numbers_.Find(user->user_id);
      if (number < 0) return Status::Ok();
      Features& features = data_.users[static_cast<std::size_t>(number)].features;
      features = user->forgotten ? Features{} : std::move(user->features);
      return Status::Ok();
    });
  }

  Status SplitByTime() {
    std::stable_sort(positives_.begin(), positives_.end(),
                     [](const Positive& a, const Positive& b) { return a.timestamp_ms < b.timestamp_ms; });
    const auto count = static_cast<double>(positives_.size());
    const auto at = static_cast<std::size_t>(count * (1.0 - options_.validation_fraction));
    split_ms_ = positives_[std::min(at, positives_.size() - 1)].timestamp_ms;

    data_.sequences.resize(data_.users.size());
    data_.item_counts.resize(data_.items.size());
    std::vector<ValidationCase> cases(data_.users.size());
    std::vector<std::int64_t> basket_ms(data_.users.size(), -1);
    std::vector<std::int32_t> basket_begin(data_.users.size());
    for (const Positive& positive : positives_) {
      const auto user = static_cast<std::size_t>(positive.user);
      if (positive.timestamp_ms >= split_ms_) {
        cases[user].items.push_back(positive.item);
        continue;
      }
      std::vector<std::int32_t>& sequence = data_.sequences[user];
      const auto position = static_cast<std::int32_t>(sequence.size());
      if (basket_ms[user] != positive.timestamp_ms) {
        basket_ms[user] = positive.timestamp_ms;
        basket_begin[user] = position;
      }
      data_.examples.push_back({positive.user, position, basket_begin[user]});
      sequence.push_back(positive.item);
      ++data_.item_counts[static_cast<std::size_t>(positive.item)];
    }
    if (data_.examples.size() < 2) {
      return InvalidArgument(StrCat(options_.interactions_file, ": too few interactions before the validation part (",
                                    data_.examples.size(), " of ", positives_.size(),
                                    "): do they carry a `timestamp`, and do the times differ?"));
    }
    for (std::size_t user = 0; user < cases.size(); ++user) {
      std::vector<std::int32_t>& items = cases[user].items;
      // Without any history there is nothing to recommend from; popularity is then the whole answer.
      if (items.empty() || data_.sequences[user].empty()) continue;
      std::sort(items.begin(), items.end());
      items.erase(std::unique(items.begin(), items.end()), items.end());
      cases[user].user = static_cast<std::int32_t>(user);
      data_.validation.push_back(std::move(cases[user]));
    }
    if (data_.validation.empty()) {
      return InvalidArgument(StrCat(options_.interactions_file,
                                    ": no user has interactions both before and in the validation part: give more "
                                    "interactions, or a larger validation fraction"));
    }
    return Status::Ok();
  }

  Status FitItems() {
    FeatureBuilder builder;
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
    FeatureDef id = VocabularyFeature("item_id", FeatureKind::kCategorical, ids, 1);
    id.buckets = 1;  // "an item I do not know", trained by id dropout
    data_.item_spec.features = builder.Build();
    data_.item_spec.features.insert(data_.item_spec.features.begin(), id);

    FeatureDef history = std::move(id);
    history.name = "history";
    history.kind = FeatureKind::kHistory;
    history.buckets = 0;  // unknown items of a history are left out of its mean
    history.max_values = options_.history;
    data_.user_spec.features.push_back(std::move(history));
    return data_.item_spec.Finish();
  }

  Status FitUsers() {
    FeatureBuilder builder;
    for (std::size_t i = 0; i < data_.users.size(); ++i) {
      if (data_.sequences[i].empty()) continue;
      if (const Status status = builder.Add(data_.users[i].features); !status.ok()) {
        return status.Prefixed(StrCat(options_.users_file, ": user `", data_.users[i].user_id, "`"));
      }
    }
    for (FeatureDef& def : builder.Build()) data_.user_spec.features.push_back(std::move(def));
    return data_.user_spec.Finish();
  }

  const TrainOptions& options_;
  TrainingData data_;
  Numbering item_numbers_;
  Numbering user_numbers_;
  std::vector<std::int64_t> item_first_ms_;
  std::vector<Positive> positives_;
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

void CopyDense(const TowerInput& from, std::int64_t row, int count, TowerInput* to) {
  const auto begin = from.dense.begin() + static_cast<std::ptrdiff_t>(row * count);
  to->dense.insert(to->dense.end(), begin, begin + count);
}

}  // namespace

Result<TrainingData> LoadTrainingData(const TrainOptions& options) { return Loader(options).Load(); }

InputCache::InputCache(const TrainingData& data) : item_spec_(data.item_spec), user_spec_(data.user_spec) {
  for (const ItemUpdate& item : data.items) freshet::AppendItem(item_spec_, item, &items_);
  for (const UserContext& user : data.users) freshet::AppendUser(user_spec_, user, &users_);
  id_bag_ = BagOf(item_spec_, "item_id");
  history_bag_ = BagOf(user_spec_, "history");
  for (const FeatureDef& def : user_spec_.features) {
    if (def.kind == FeatureKind::kHistory) max_history_ = static_cast<std::size_t>(def.max_values);
  }
  TowerInput probe;
  // No id is longer than kMaxIdBytes, so this one is unknown.
  ItemUpdate unknown;
  unknown.item_id.assign(kMaxIdBytes + 1, 'x');
  freshet::AppendItem(item_spec_, unknown, &probe);
  const auto hidden = Bag(probe, 0, id_bag_, item_spec_.bag_count());
  hidden_id_.assign(hidden.begin(), hidden.end());
  UserContext user;
  user.history.resize(1);
  for (const ItemUpdate& item : data.items) {
    probe.Clear();
    user.history[0].item_id = item.item_id;
    freshet::AppendUser(user_spec_, user, &probe);
    const auto rows = Bag(probe, 0, history_bag_, user_spec_.bag_count());
    history_rows_.push_back(rows.empty() ? -1 : rows[0]);
  }
}

void InputCache::AppendItem(std::int32_t item, bool hide_id, TowerInput* input) const {
  const int bags = item_spec_.bag_count();
  for (int bag = 0; bag < bags; ++bag) {
    input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
    const auto rows =
        hide_id && bag == id_bag_ ? std::span<const std::int64_t>(hidden_id_) : Bag(items_, item, bag, bags);
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
      for (const std::int32_t item : before.subspan(before.size() - count)) {
        const std::int64_t row = history_rows_[static_cast<std::size_t>(item)];
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
