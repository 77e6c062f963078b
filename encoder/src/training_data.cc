#include "training_data.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "dataset.h"
#include "feature_builder.h"
#include "freshet/core/strings.h"
#include "training_run.h"

namespace freshet {
namespace {

class Loader {
 public:
  Loader(const TrainOptions& options, TrainOn part) : options_(options), part_(part) {}

  Result<TrainingData> Load() {
    const DatasetOptions what{options_.items_file, options_.interactions_file, options_.users_file, options_.until_ms,
                              options_.split,      Part::kValidation,          options_.schemas};
    FRESHET_ASSIGN(Dataset dataset, LoadDataset(what));
    data_.items = std::move(dataset.items);
    data_.users = std::move(dataset.users);
    data_.unknown_items = dataset.unknown_items;
    data_.later_items = dataset.later_items;
    data_.warnings = std::move(dataset.warnings);
    item_first_ms_ = std::move(dataset.item_first_ms);
    split_ms_ = dataset.judged_from_ms;
    data_.event_names = std::move(dataset.event_names);
    FRESHET_TRY(CheckEventWeights());
    FRESHET_TRY(MakeExamples(dataset.positives));
    FRESHET_TRY(FitItems());
    FRESHET_TRY(FitUsers());
    WarnOfLoneInteractions();
    return std::move(data_);
  }

 private:
  // A weight for what never happens is a slip of the pen, and would pass unnoticed.
  Status CheckEventWeights() const {
    const std::vector<std::string>& names = data_.event_names;
    for (const auto& [event, weight] : options_.event_weights) {
      if (std::find(names.begin(), names.end(), event) != names.end()) continue;
      return ConfigError(StrCat("event_weights: no interaction of ", options_.interactions_file, " is a `", event, "`",
                                EventsThatThereAre(event, names)));
    }
    return Status::Ok();
  }

  Status MakeExamples(const std::vector<Positive>& positives) {
    data_.sequences.resize(data_.users.size());
    data_.sequence_events.resize(data_.users.size());
    data_.sequence_times_ms.resize(data_.users.size());
    data_.item_counts.resize(data_.items.size());
    std::vector<ValidationCase> cases(data_.users.size());
    std::size_t validated = 0;
    std::vector<std::int64_t> basket_ms(data_.users.size(), -1);
    std::vector<std::int32_t> basket_begin(data_.users.size());
    for (const Positive& positive : positives) {
      const auto user = static_cast<std::size_t>(positive.user);
      const double weight =
          PairWeight(options_, data_.event_names[static_cast<std::size_t>(positive.event)], positive.value);
      if (positive.part == Part::kValidation && part_ == TrainOn::kTrainingPart) {
        if (weight == 0 || !positive.asked) continue;
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
      if (weight > 0) {
        data_.examples.push_back(
            {positive.user, position, basket_begin[user], positive.timestamp_ms, static_cast<float>(weight)});
        ++data_.item_counts[static_cast<std::size_t>(positive.item)];
      }
      sequence.push_back(positive.item);
      data_.sequence_events[user].push_back(positive.event);
      data_.sequence_times_ms[user].push_back(positive.timestamp_ms);
    }
    if (data_.examples.size() < 2) {
      return InvalidArgument(StrCat(options_.interactions_file, ": too few interactions before the validation part (",
                                    data_.examples.size(), " of ", positives.size(),
                                    "): do they carry a `timestamp`, and do the times differ?",
                                    options_.event_weights.empty() ? "" : " Those whose event weighs 0 do not count"));
    }
    if (part_ == TrainOn::kValidationToo) return Status::Ok();
    if (validated == 0) {
      return InvalidArgument(StrCat(options_.interactions_file, ": the validation part is empty: all ",
                                    positives.size(), " interactions lie before it",
                                    options_.event_weights.empty() ? "" : ", or their events weigh 0",
                                    options_.split.events.empty() ? "" : ", or are none of `events`",
                                    ": let it begin earlier, or give a larger fraction"));
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
    id.buckets = 1;  // "an item I do not know", trained by id dropout
    if (const FeatureRequest* request = RequestOf(options_.features.items, "item_id")) {
      FeatureRequest asked = *request;
      if (!asked.buckets) asked.buckets = 1;
      FRESHET_ASSIGN(id, VocabularyFeature(asked, ids, 1));
    }
    FRESHET_ASSIGN(data_.item_spec.features, builder.Build());
    data_.item_spec.features.insert(data_.item_spec.features.begin(), std::move(id));

    // A history also holds what is no pair.
    std::unordered_map<std::string, std::int64_t> taken;
    for (const auto& sequence : data_.sequences) {
      for (const std::int32_t item : sequence) ++taken[data_.items[static_cast<std::size_t>(item)].item_id];
    }
    FeatureDef history = VocabularyFeature("history", FeatureKind::kHistory, taken, 1);
    history.buckets = 0;  // unknown items of a history are left out of its mean
    if (const FeatureRequest* request = RequestOf(options_.features.users, "history")) {
      FeatureRequest asked = *request;
      if (!asked.buckets) asked.buckets = 0;
      FRESHET_ASSIGN(history, VocabularyFeature(asked, taken, 1));
    }
    history.max_values = options_.history;
    data_.user_spec.features.push_back(std::move(history));
    FRESHET_TRY(FitBesideHistory());
    return data_.item_spec.Finish();
  }

  // What a history tells beside its items, where that is asked for: right behind it, as the towers expect.
  Status FitBesideHistory() {
    if (const FeatureRequest* request = RequestOf(options_.features.users, "history_events")) {
      std::unordered_map<std::string, std::int64_t> events;
      for (const auto& sequence : data_.sequence_events) {
        for (const std::int32_t event : sequence) ++events[data_.event_names[static_cast<std::size_t>(event)]];
      }
      if (events.size() == 1) {
        data_.warnings.push_back(StrCat(request->where, ": every interaction is a `", events.begin()->first,
                                        "`: `history_events` tells nothing apart"));
      }
      FeatureRequest asked = *request;
      if (!asked.buckets) asked.buckets = 1;
      FRESHET_ASSIGN(FeatureDef def, VocabularyFeature(asked, events, 1));
      data_.user_spec.features.push_back(std::move(def));
    }
    if (const FeatureRequest* request = RequestOf(options_.features.users, "history_gaps")) {
      // A minute, ten, an hour, a quarter of a day; days.
      constexpr double kDay = 86'400;
      FeatureDef def;
      def.name = request->name;
      def.kind = request->kind;
      def.to = request->to.value_or(options_.ReadsSequence() ? GapsTo::kPrevious : GapsTo::kNewest);
      def.boundaries = request->boundaries;
      if (def.boundaries.empty()) def.boundaries = {60, 600, 3600, kDay / 4};
      for (const double days : {1, 3, 7, 14, 30, 90, 365}) {
        if (request->boundaries.empty()) def.boundaries.push_back(days * kDay);
      }
      data_.user_spec.features.push_back(std::move(def));
    }
    return Status::Ok();
  }

  // Off unless it is asked for: see README.md. Of users with a single pair there is nothing to learn.
  Status FitUserId() {
    const FeatureRequest* request = RequestOf(options_.features.users, "user_id");
    if (request == nullptr) return Status::Ok();
    std::unordered_map<std::string, std::int64_t> pairs;
    for (const TrainingExample& one : data_.examples) ++pairs[data_.users[static_cast<std::size_t>(one.user)].user_id];
    FeatureRequest asked = *request;
    if (!asked.buckets) asked.buckets = 1;  // "a user I do not know", trained by dropout
    FRESHET_ASSIGN(FeatureDef def, VocabularyFeature(asked, pairs, 2));
    data_.user_spec.features.push_back(std::move(def));
    return Status::Ok();
  }

  Status FitUsers() {
    FRESHET_TRY(FitUserId());
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

}  // namespace

Result<TrainingData> LoadTrainingData(const TrainOptions& options, TrainOn part) {
  return Loader(options, part).Load();
}

}  // namespace freshet
