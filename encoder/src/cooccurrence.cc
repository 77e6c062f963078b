#include "cooccurrence.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kNewest = 50;        // items of a user
constexpr std::int64_t kFewest = 50;       // neighbours of an item
constexpr float kPopularityShare = 1e-6F;  // decides only where nothing else does

std::size_t Index(std::int32_t number) { return static_cast<std::size_t>(number); }

std::vector<std::int32_t> Distinct(std::vector<std::int32_t> items) {
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  return items;
}

class CooccurrenceScorer final : public Scorer {
 public:
  CooccurrenceScorer(const EvaluationHistory& history, const CooccurrenceLimits& limits)
      : Scorer("co-occurrence"),
        history_(history),
        most_neighbours_(static_cast<std::size_t>(
            std::max(kFewest, limits.neighbours / static_cast<std::int64_t>(history.items.size())))) {
    users_of_.resize(history.items.size());
    items_of_.resize(history.seen.size());
    neighbours_.resize(history.items.size());
    counted_.resize(history.items.size());
    own_.resize(history.items.size());
    counts_.resize(history.items.size());
    CountUsers(limits);
    most_ =
        static_cast<float>(std::max<std::int64_t>(1, *std::max_element(history.counts.begin(), history.counts.end())));
  }

  Status Score(std::span<const std::int32_t> users, std::span<float> out) override {
    const std::size_t items = history_.items.size();
    for (std::size_t row = 0; row < users.size(); ++row) One(users[row], out.subspan(row * items, items));
    return Status::Ok();
  }

 private:
  struct Neighbour {
    std::int32_t item = 0;
    std::int32_t users = 0;  // who took both
  };

  // The items of the users who are counted, and the other way round.
  void CountUsers(const CooccurrenceLimits& limits) {
    std::vector<std::size_t> order(history_.seen.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::mt19937_64 random(limits.seed);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    double looks = 0;
    std::size_t left_out = 0;
    for (const std::size_t user : order) {
      std::vector<std::int32_t> items = Distinct(history_.seen[user]);
      const auto many = static_cast<double>(items.size());
      if (looks + many * many > limits.looks) {
        ++left_out;
        continue;
      }
      looks += many * many;
      items_of_[user] = std::move(items);
    }
    for (std::size_t user = 0; user < items_of_.size(); ++user) {
      for (const std::int32_t item : items_of_[user]) users_of_[Index(item)].push_back(static_cast<std::int32_t>(user));
    }
    if (left_out > 0) {
      LogInfo("evaluate", "co-occurrence counts some of the users only: all would take too long",
              {{"users", StrCat(order.size() - left_out)}, {"of", StrCat(order.size())}});
    }
  }

  [[nodiscard]] float Norm(std::int32_t item) const {
    return std::sqrt(static_cast<float>(std::max<std::size_t>(1, users_of_[Index(item)].size())));
  }

  // The item itself among them.
  const std::vector<Neighbour>& Neighbours(std::int32_t item) {
    std::vector<Neighbour>& row = neighbours_[Index(item)];
    if (counted_[Index(item)]) return row;
    counted_[Index(item)] = true;
    touched_.clear();
    for (const std::int32_t user : users_of_[Index(item)]) {
      for (const std::int32_t also : items_of_[Index(user)]) {
        if (counts_[Index(also)]++ == 0) touched_.push_back(also);
      }
    }
    row.reserve(touched_.size());
    for (const std::int32_t also : touched_) row.push_back({also, std::exchange(counts_[Index(also)], 0)});
    if (row.size() > most_neighbours_) {
      const auto similarity = [&](const Neighbour& one) { return static_cast<float>(one.users) / Norm(one.item); };
      std::nth_element(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(most_neighbours_), row.end(),
                       [&](const Neighbour& a, const Neighbour& b) {
                         const float x = similarity(a);
                         const float y = similarity(b);
                         return x != y ? x > y : a.item < b.item;
                       });
      row.resize(most_neighbours_);
      row.shrink_to_fit();
    }
    return row;
  }

  void One(std::int32_t user, std::span<float> scores) {
    std::fill(scores.begin(), scores.end(), 0.0F);
    const std::vector<std::int32_t>& seen = history_.seen[Index(user)];
    const auto newest =
        Distinct({seen.end() - static_cast<std::ptrdiff_t>(std::min(seen.size(), kNewest)), seen.end()});
    // Their own taking of both says nothing of others.
    for (const std::int32_t item : items_of_[Index(user)]) own_[Index(item)] = 1;
    for (const std::int32_t item : newest) {
      const float weight = 1.0F / Norm(item);
      const std::int32_t self = own_[Index(item)];
      for (const Neighbour& also : Neighbours(item)) {
        scores[Index(also.item)] += weight * static_cast<float>(also.users - (self & own_[Index(also.item)]));
      }
    }
    for (const std::int32_t item : items_of_[Index(user)]) own_[Index(item)] = 0;
    for (std::size_t item = 0; item < scores.size(); ++item) {
      scores[item] /= Norm(static_cast<std::int32_t>(item));
      scores[item] += kPopularityShare * static_cast<float>(history_.counts[item]) / most_;
    }
  }

  const EvaluationHistory& history_;
  const std::size_t most_neighbours_;
  std::vector<std::vector<std::int32_t>> users_of_;  // per item, those who are counted
  std::vector<std::vector<std::int32_t>> items_of_;  // per user; empty: not counted
  float most_ = 1;
  std::vector<std::vector<Neighbour>> neighbours_;  // per item, once `counted_`
  std::vector<bool> counted_;
  // Reused, zero between calls:
  std::vector<std::int32_t> own_;     // per item: whether the user has it
  std::vector<std::int32_t> counts_;  // per item
  std::vector<std::int32_t> touched_;
};

}  // namespace

std::unique_ptr<Scorer> MakeCooccurrenceScorer(const EvaluationHistory& history, const CooccurrenceLimits& limits) {
  return std::make_unique<CooccurrenceScorer>(history, limits);
}

}  // namespace freshet
