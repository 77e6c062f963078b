#include "freshet/encoder/evaluation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>

#include "ann_recall.h"
#include "bootstrap.h"
#include "cooccurrence.h"
#include "dataset.h"
#include "freshet/core/clock.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "ranking.h"
#include "scorers.h"

namespace freshet {
namespace {

constexpr std::size_t kScoreUsers = 64;
constexpr std::size_t kPopularity = 0;  // the first system

enum Slice : std::size_t { kAll, kWarmUsers, kColdUsers, kHeadItems, kTailItems, kColdItems, kNewItems, kSlices };
constexpr std::array<const char*, kSlices> kSliceNames = {"all",        "warm users", "cold users", "head items",
                                                          "tail items", "cold items", "new items"};
// Which of them hold an item.
enum class ItemKind : std::uint8_t { kHead, kTail, kCold };

struct Case {
  std::int32_t user = 0;
  std::vector<std::int32_t> items;  // sorted, distinct
};

class Evaluation {
 public:
  Evaluation(const EvaluateOptions& options, const std::function<void(double, const std::string&)>& progress,
             const SearchIndex& search)
      : options_(options), progress_(progress), search_(search) {}

  Result<EvaluationReport> Run() {
    const SystemClock clock;
    const std::int64_t started_us = clock.MonotonicUs();
    FRESHET_TRY(Load());
    FRESHET_TRY(MakeScorers());
    for (std::size_t t = 0; t < options_.mask_seen.size(); ++t) FRESHET_TRY(Judge(t));
    if (search_ && options_.ann_users > 0) FRESHET_TRY(JudgeIndexes());
    report_.seconds = static_cast<double>(clock.MonotonicUs() - started_us) * 1e-6;
    return std::move(report_);
  }

 private:
  static std::size_t Index(std::int32_t number) { return static_cast<std::size_t>(number); }

  Status Load() {
    const Part judged = options_.judge_validation ? Part::kValidation : Part::kTest;
    const DatasetOptions what{
        options_.items_file, options_.interactions_file, options_.users_file, options_.until_ms, options_.split, judged,
        options_.schemas};
    FRESHET_ASSIGN(Dataset data, LoadDataset(what));
    report_.unknown_items = data.unknown_items;
    report_.later_items = data.later_items;
    report_.warnings = std::move(data.warnings);
    history_.items = std::move(data.items);
    history_.users = std::move(data.users);
    history_.seen.resize(history_.users.size());
    history_.counts.resize(history_.items.size());
    history_.recent_counts.resize(history_.items.size());
    asked_counts_.resize(history_.items.size());
    std::vector<std::int64_t> train_counts(history_.items.size());
    cases_.resize(history_.users.size());
    std::vector<std::int32_t> before;
    for (const Positive& positive : data.positives) {
      if (positive.part == judged) {
        if (!positive.asked) continue;
        cases_[Index(positive.user)].items.push_back(positive.item);
        ++report_.judged_interactions;
        continue;
      }
      if (positive.part == Part::kTrain) ++train_counts[Index(positive.item)];
      report_.train_interactions += positive.part == Part::kTrain ? 1 : 0;
      history_.seen[Index(positive.user)].push_back(positive.item);
      history_.users[Index(positive.user)].history.push_back({history_.items[Index(positive.item)].item_id,
                                                              data.event_names[Index(positive.event)], positive.value,
                                                              positive.timestamp_ms});
      ++history_.counts[Index(positive.item)];
      if (positive.asked) ++asked_counts_[Index(positive.item)];
      before.push_back(positive.item);
    }
    report_.history_interactions = static_cast<std::int64_t>(before.size());
    if (report_.judged_interactions == 0 || before.empty()) {
      return InvalidArgument(StrCat(options_.interactions_file, ": ", before.size(),
                                    " interactions lie before the judged part and ", report_.judged_interactions,
                                    " in it", options_.split.events.empty() ? "" : " of the events that are asked for",
                                    ": choose another split", AlsoLeftOut()));
    }
    const auto recent =
        static_cast<std::size_t>(std::ceil(options_.recent_fraction * static_cast<double>(before.size())));
    for (std::size_t i = before.size() - recent; i < before.size(); ++i) ++history_.recent_counts[Index(before[i])];
    MakeCases();
    SortItems(train_counts);
    return Status::Ok();
  }

  [[nodiscard]] std::string AlsoLeftOut() const {
    std::string text;
    for (const std::string& warning : report_.warnings) text += "\n  " + warning;
    return text;
  }

  void MakeCases() {
    std::vector<Case> cases;
    for (std::size_t user = 0; user < cases_.size(); ++user) {
      if (cases_[user].items.empty()) continue;
      Case& one = cases.emplace_back(std::move(cases_[user]));
      one.user = static_cast<std::int32_t>(user);
      std::sort(one.items.begin(), one.items.end());
      one.items.erase(std::unique(one.items.begin(), one.items.end()), one.items.end());
    }
    cases_ = std::move(cases);
    report_.judged_users = static_cast<std::int64_t>(cases_.size());
    const auto most = static_cast<std::size_t>(options_.max_users);
    if (most > 0 && cases_.size() > most) {
      std::mt19937_64 random(options_.seed);
      for (std::size_t i = 0; i < most; ++i) std::swap(cases_[i], cases_[i + random() % (cases_.size() - i)]);
      cases_.resize(most);
    }
    report_.drawn_users = static_cast<std::int64_t>(cases_.size());
  }

  // Head, tail, cold; and the order of ties, by chance.
  void SortItems(const std::vector<std::int64_t>& train_counts) {
    std::vector<std::size_t> order;
    kinds_.resize(history_.items.size(), ItemKind::kTail);
    for (std::size_t i = 0; i < kinds_.size(); ++i) {
      if (train_counts[i] == 0) {
        kinds_[i] = ItemKind::kCold;
        ++report_.cold_items;
      } else {
        order.push_back(i);
      }
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return train_counts[a] > train_counts[b]; });
    const auto head =
        static_cast<std::size_t>(std::llround(options_.head_fraction * static_cast<double>(order.size())));
    for (std::size_t i = 0; i < head; ++i) kinds_[order[i]] = ItemKind::kHead;
    report_.items = static_cast<std::int64_t>(kinds_.size());
    tie_.resize(kinds_.size());
    std::iota(tie_.begin(), tie_.end(), 0U);
    std::mt19937_64 random(options_.seed);
    for (std::size_t i = tie_.size(); i > 1; --i) std::swap(tie_[i - 1], tie_[random() % i]);
  }

  Status MakeScorers() {
    scorers_.push_back(MakeCountScorer("popularity", history_.counts));
    scorers_.push_back(MakeCountScorer("recent popularity", history_.recent_counts));
    if (!options_.split.events.empty()) scorers_.push_back(MakeCountScorer("popularity (asked)", asked_counts_));
    scorers_.push_back(MakeRandomScorer(options_.seed));
    CooccurrenceLimits limits;
    limits.seed = options_.seed;
    scorers_.push_back(MakeCooccurrenceScorer(history_, limits));
    first_model_ = scorers_.size();
    for (const auto& [name, directory] : options_.models) {
      FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package, OpenModelPackage({directory, "", options_.threads}));
      FRESHET_ASSIGN(std::unique_ptr<VectorScorer> scorer, MakeModelScorer(name, *package, history_));
      models_.push_back(scorer.get());
      scorers_.push_back(std::move(scorer));
    }
    for (const auto& [name, file] : options_.lists) {
      FRESHET_ASSIGN(std::unique_ptr<Scorer> scorer, MakeListScorer(name, file, history_));
      scorers_.push_back(std::move(scorer));
    }
    return Status::Ok();
  }

  // By users of the judged part, seen items kept: an index knows nothing of what was seen.
  Status JudgeIndexes() {
    std::vector<std::int32_t> users;
    for (const Case& one : cases_) users.push_back(one.user);
    std::mt19937_64 random(options_.seed);
    for (std::size_t i = users.size(); i > 1; --i) std::swap(users[i - 1], users[random() % i]);
    users.resize(std::min(users.size(), static_cast<std::size_t>(options_.ann_users)));
    for (VectorScorer* model : models_) {
      if (progress_) progress_(1, StrCat("index of ", model->name()));
      Result<AnnRecall> recall = JudgeIndex(model, users, options_, search_);
      if (!recall.ok()) return recall.status().Prefixed(StrCat("judging an index of ", model->name()));
      if (recall->users > 0) report_.ann.push_back(std::move(*recall));
    }
    return Status::Ok();
  }

  [[nodiscard]] std::vector<std::string> MetricNames() const {
    std::vector<std::string> names;
    for (const int k : options_.ks) {
      for (const char* name : {"recall_at_", "hit_rate_at_", "ndcg_at_", "accuracy_at_"})
        names.push_back(StrCat(name, k));
    }
    names.emplace_back("mrr");
    return names;
  }

  // The cases of a table: what was seen is neither recommended nor asked for where it is masked.
  [[nodiscard]] std::vector<Case> CasesOf(bool masked) const {
    if (!masked) return cases_;
    std::vector<Case> cases;
    for (const Case& one : cases_) {
      Case& kept = cases.emplace_back(one);
      const std::vector<std::int32_t>& seen = history_.seen[Index(one.user)];
      std::erase_if(kept.items,
                    [&](std::int32_t item) { return std::find(seen.begin(), seen.end(), item) != seen.end(); });
      if (kept.items.empty()) cases.pop_back();
    }
    return cases;
  }

  [[nodiscard]] std::vector<std::int32_t> InSlice(const Case& one, Slice slice) const {
    const bool cold_user = history_.seen[Index(one.user)].empty();
    if (slice == kAll || (slice == kWarmUsers && !cold_user) || (slice == kColdUsers && cold_user)) return one.items;
    if (slice == kWarmUsers || slice == kColdUsers) return {};
    if (slice == kNewItems) {
      std::vector<std::int32_t> items = one.items;
      std::erase_if(items, [&](std::int32_t item) { return history_.counts[Index(item)] > 0; });
      return items;
    }
    const ItemKind wanted = slice == kHeadItems   ? ItemKind::kHead
                            : slice == kTailItems ? ItemKind::kTail
                                                  : ItemKind::kCold;
    std::vector<std::int32_t> items;
    for (const std::int32_t item : one.items) {
      if (kinds_[Index(item)] == wanted) items.push_back(item);
    }
    return items;
  }

  Status Judge(std::size_t table_index) {
    EvaluationTable table;
    table.seen_masked = options_.mask_seen[table_index];
    const std::vector<Case> cases = CasesOf(table.seen_masked);
    if (cases.empty()) {
      return InvalidArgument("everything that is asked for was seen before: nothing is left with seen items masked");
    }
    const std::vector<std::string> metrics = MetricNames();
    std::vector<std::vector<UserSums>> sums(kSlices, std::vector<UserSums>(scorers_.size(), UserSums(metrics.size())));
    for (std::size_t s = 0; s < scorers_.size(); ++s) {
      std::string lists;
      const bool write = table_index == 0 && s == first_model_ && !options_.write_lists.empty();
      const double at = static_cast<double>(table_index * scorers_.size() + s);
      const double all = static_cast<double>(options_.mask_seen.size() * scorers_.size());
      const auto tell = [&](double fraction) {
        if (progress_) progress_((at + fraction) / all, scorers_[s]->name());
      };
      FRESHET_TRY(JudgeOne(s, cases, &table, &sums, write ? &lists : nullptr, tell)
                      .Prefixed(StrCat("judging ", scorers_[s]->name())));
      if (write) FRESHET_TRY(WriteFileAtomically(options_.write_lists, lists));
    }
    for (std::size_t slice = 0; slice < kSlices; ++slice) {
      if (sums[slice].front().users() == 0) continue;
      EvaluationSlice out;
      out.name = kSliceNames[slice];
      out.metrics = metrics;
      for (const Case& one : cases) {
        const auto count = static_cast<std::int64_t>(InSlice(one, static_cast<Slice>(slice)).size());
        out.interactions += count;
        out.users += count > 0 ? 1 : 0;
      }
      std::vector<Resampled> results = Bootstrap(sums[slice], kPopularity, options_.resamples, options_.seed);
      for (std::size_t s = 0; s < scorers_.size(); ++s) {
        out.systems.push_back({scorers_[s]->name(), std::move(results[s].metrics), std::move(results[s].ratios)});
      }
      table.slices.push_back(std::move(out));
    }
    report_.tables.push_back(std::move(table));
    return Status::Ok();
  }

  Status JudgeOne(std::size_t system, const std::vector<Case>& cases, EvaluationTable* table,
                  std::vector<std::vector<UserSums>>* sums, std::string* lists,
                  const std::function<void(double)>& tell) {
    const std::size_t items = history_.items.size();
    const auto most = static_cast<std::size_t>(*std::max_element(options_.ks.begin(), options_.ks.end()));
    std::vector<bool> covered(items);
    double popularity = 0;
    std::size_t recommended = 0;
    for (std::size_t begin = 0; begin < cases.size(); begin += kScoreUsers) {
      const std::size_t end = std::min(begin + kScoreUsers, cases.size());
      users_.clear();
      for (std::size_t i = begin; i < end; ++i) users_.push_back(cases[i].user);
      scores_.resize(users_.size() * items);
      FRESHET_TRY(scorers_[system]->Score(users_, scores_));
      for (std::size_t i = begin; i < end; ++i) {
        const std::span<float> row = std::span(scores_).subspan((i - begin) * items, items);
        if (table->seen_masked) {
          for (const std::int32_t seen : history_.seen[Index(cases[i].user)]) row[Index(seen)] = -INFINITY;
        }
        if (std::any_of(row.begin(), row.end(), [](float score) { return std::isnan(score); })) {
          return InvalidArgument("a score is not a number");
        }
        const std::vector<std::int32_t> top = TopK(row, tie_, most);
        for (const std::int32_t item : top) {
          covered[Index(item)] = true;
          popularity += static_cast<double>(history_.counts[Index(item)]);
        }
        recommended += top.size();
        Count(system, cases[i], row, top, sums);
        if (lists != nullptr) AppendList(cases[i].user, top, lists);
      }
      tell(static_cast<double>(end) / static_cast<double>(cases.size()));
    }
    const auto distinct = std::count(covered.begin(), covered.end(), true);
    table->breadth.push_back({scorers_[system]->name(), static_cast<double>(distinct) / static_cast<double>(items),
                              recommended == 0 ? 0 : popularity / static_cast<double>(recommended)});
    return Status::Ok();
  }

  void Count(std::size_t system, const Case& one, std::span<const float> row, const std::vector<std::int32_t>& top,
             std::vector<std::vector<UserSums>>* sums) const {
    for (std::size_t slice = 0; slice < kSlices; ++slice) {
      const std::vector<std::int32_t> relevant = InSlice(one, static_cast<Slice>(slice));
      if (relevant.empty()) continue;
      UserSums& sum = (*sums)[slice][system];
      for (const int k : options_.ks) {
        const RankMetrics metrics = JudgeRanking(top, relevant, static_cast<std::size_t>(k));
        sum.Add(metrics.recall, 1);
        sum.Add(metrics.hit_rate, 1);
        sum.Add(metrics.ndcg, 1);
        sum.Add(metrics.hits, static_cast<double>(relevant.size()));
      }
      sum.Add(ReciprocalRank(row, tie_, relevant), 1);
    }
  }

  void AppendList(std::int32_t user, const std::vector<std::int32_t>& top, std::string* lists) const {
    JsonWriter json;
    json.BeginObject().Key("user_id").String(history_.users[Index(user)].user_id).Key("items").BeginArray();
    for (const std::int32_t item : top) json.String(history_.items[Index(item)].item_id);
    json.EndArray().EndObject();
    *lists += json.Take() + "\n";
  }

  const EvaluateOptions& options_;
  const std::function<void(double, const std::string&)>& progress_;
  const SearchIndex& search_;
  EvaluationReport report_;
  EvaluationHistory history_;
  std::vector<std::int64_t> asked_counts_;  // as history_.counts, of the events that are asked for
  std::vector<Case> cases_;
  std::vector<ItemKind> kinds_;
  std::vector<std::uint32_t> tie_;
  std::vector<std::unique_ptr<Scorer>> scorers_;
  std::vector<VectorScorer*> models_;  // of them
  std::size_t first_model_ = 0;
  // Reused from block to block:
  std::vector<std::int32_t> users_;
  std::vector<float> scores_;
};

}  // namespace

Status EvaluateOptions::Validate() const {
  if (items_file.empty()) return ConfigError("an items file is wanted");
  if (interactions_file.empty()) return ConfigError("an interactions file is wanted");
  FRESHET_TRY(split.Validate());
  const bool by_share = split.kind == SplitKind::kFraction || split.kind == SplitKind::kRandom;
  if (!judge_validation &&
      ((by_share && split.test_fraction <= 0) || (split.kind == SplitKind::kTime && split.test_from_ms == 0))) {
    return ConfigError("the split has no test part: give --test-fraction, --test-from, or judge the validation part");
  }
  if (ks.empty() || std::any_of(ks.begin(), ks.end(), [](int k) { return k < 1 || k > 10'000; })) {
    return ConfigError("k must be 1 to 10000");
  }
  if (mask_seen.empty()) return ConfigError("a table is wanted: seen items masked or not");
  if (!(recent_fraction > 0 && recent_fraction <= 1))
    return ConfigError("the recent fraction must be above 0, at most 1");
  if (!(head_fraction > 0 && head_fraction < 1)) return ConfigError("the head fraction must lie between 0 and 1");
  if (max_users < 0) return ConfigError("the users must not be negative");
  if (resamples < 0 || resamples > 100'000) return ConfigError("resamples must be 0 to 100000");
  if (ann_users < 0 || ann_users > 1'000'000) return ConfigError("the users of ANN recall must be 0 to 1000000");
  if (threads < 1 || threads > 256) return ConfigError("threads must be 1 to 256");
  if (!write_lists.empty() && models.empty() && lists.empty())
    return ConfigError("there is no model whose lists to write");
  return Status::Ok();
}

Result<EvaluationReport> Evaluate(const EvaluateOptions& options,
                                  const std::function<void(double fraction, const std::string&)>& progress,
                                  const SearchIndex& search) {
  FRESHET_TRY(options.Validate());
  return Evaluation(options, progress, search).Run();
}

}  // namespace freshet
