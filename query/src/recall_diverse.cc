// Where not simply the best are wanted: at most so many of each value (`max_per`), and popular items.
#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "freshet/core/strings.h"
#include "recall_query.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxDiverseRounds = 32;
constexpr std::size_t kMostPage = 16 * kMaxK;  // ids of items that are looked at together
constexpr int kMaxStalledPages = 4;            // that brought nothing, as their items were changing

using Value = std::pair<std::size_t, FilterValue>;         // which attribute of `max_per`
using FullValues = std::vector<std::vector<FilterValue>>;  // by attribute

// The request's filter without what a full value still could bring.
Filter Without(const FullValues& full, const RecallRequest& request) {
  Filter filter;
  if (request.filter) filter.must.push_back(*request.filter);
  for (std::size_t a = 0; a < full.size(); ++a) {
    if (full[a].empty()) continue;
    filter.must_not.emplace_back().condition = AnyCondition(request.max_per[a].first, full[a]);
  }
  return filter;
}

// How many of each value were taken. Single-threaded.
class Quotas {
 public:
  explicit Quotas(const RecallRequest& request) : max_per_(request.max_per), full_(max_per_.size()) {}

  // Takes an item of these values (by attribute) if all of them have room.
  bool Take(const std::vector<std::vector<FilterValue>>& values) {
    for (std::size_t a = 0; a < values.size(); ++a) {
      for (const FilterValue& value : values[a]) {
        if (taken_[{a, value}] >= max_per_[a].second) return false;
      }
    }
    for (std::size_t a = 0; a < values.size(); ++a) {
      for (const FilterValue& value : values[a]) {
        if (++taken_[{a, value}] == max_per_[a].second) full_[a].push_back(value);
      }
    }
    return true;
  }
  [[nodiscard]] const FullValues& full() const { return full_; }

 private:
  const std::vector<std::pair<std::string, std::size_t>>& max_per_;
  std::map<Value, std::size_t> taken_;
  FullValues full_;
};

}  // namespace

// At most so many of each value of some attributes. Greedy by score: an item is taken while all its values have room.
// What a full value still could bring is kept out of the next search, so that each round looks further down.
Status RecallService::SearchDiverse(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const {
  for (const auto& [key, most] : request.max_per) FRESHET_TRY(replica_->catalog().CheckFilterable(key));
  std::map<Value, std::size_t> taken;
  FullValues full(request.max_per.size());
  std::vector<RecallHit> kept;
  for (std::size_t round = 0;; ++round) {
    const Filter filter = Without(full, request);
    const bool plain = filter.must.empty() && filter.must_not.empty();
    std::vector<RecallHit> hits;
    FRESHET_TRY(SearchBest(request, plain ? nullptr : &filter, query, &hits));
    // Some of the kept may have changed since and come again.
    std::unordered_map<std::string, bool> known;
    for (const RecallHit& hit : kept) known.emplace(hit.id, true);
    std::erase_if(hits, [&](const RecallHit& hit) { return known.contains(hit.id); });
    hits.insert(hits.end(), kept.begin(), kept.end());
    std::sort(hits.begin(), hits.end(), BetterRecall);

    std::vector<std::string> ids;
    for (const RecallHit& hit : hits) ids.push_back(hit.id);
    std::vector<std::vector<Value>> values(hits.size());
    for (std::size_t a = 0; a < request.max_per.size(); ++a) {
      const auto of_items = replica_->catalog().ValuesOf(ids, request.max_per[a].first);
      for (std::size_t i = 0; i < hits.size(); ++i) {
        for (const FilterValue& value : of_items[i]) values[i].emplace_back(a, value);
      }
    }
    taken.clear();
    results->clear();
    std::vector<std::size_t> places;  // of `results` in `hits`
    bool refused = false;
    const auto has_room = [&](const Value& value) { return taken[value] < request.max_per[value.first].second; };
    for (std::size_t i = 0; i < hits.size(); ++i) {
      if (std::all_of(values[i].begin(), values[i].end(), has_room)) {
        for (const Value& value : values[i]) ++taken[value];
        results->push_back(hits[i]);
        places.push_back(i);
        continue;
      }
      refused = true;
      for (const Value& value : values[i]) {
        auto& list = full[value.first];
        if (!has_room(value) && std::find(list.begin(), list.end(), value.second) == list.end()) {
          list.push_back(value.second);
        }
      }
    }
    if (results->size() >= request.k || !refused) break;
    FRESHET_TRY(CheckDeadline(*query, "while searching"));
    if (round == kMaxDiverseRounds) {
      query->fell_short = true;
      query->degraded = "max_per";
      break;
    }
    kept.clear();
    for (std::size_t i = 0; i < results->size(); ++i) {
      const auto is_full = [&](const Value& value) {
        const auto& list = full[value.first];
        return std::find(list.begin(), list.end(), value.second) != list.end();
      };
      const auto& of_item = values[places[i]];
      if (std::any_of(of_item.begin(), of_item.end(), is_full)) kept.push_back((*results)[i]);
    }
  }
  std::vector<std::string> ids;
  for (const RecallHit& hit : *results) ids.push_back(hit.id);
  const std::vector<bool> live = replica_->catalog().Matching(ids, request.filter ? *request.filter : Filter{});
  std::size_t i = 0;
  std::erase_if(*results, [&](const RecallHit&) { return !live[i++]; });
  return Status::Ok();
}

// By how often they are interacted with; what nobody interacted with fills up. A threshold of similarity means nothing
// here. Items are looked at by pages: what was taken and what a full value could bring is kept out of the next one, so
// that each goes further down, and never more than a page of ids is held.
Status RecallService::SearchPopular(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const {
  const Catalog& catalog = replica_->catalog();
  for (const auto& [key, most] : request.max_per) FRESHET_TRY(catalog.CheckFilterable(key));
  const Filter filter = request.filter ? *request.filter : Filter{};
  const std::vector<std::string_view> excluded(query->excluded_ids.begin(), query->excluded_ids.end());
  const auto expired = [&] { return !CheckDeadline(*query, "").ok(); };
  FRESHET_ASSIGN(Catalog::Selection selection, catalog.Select(filter, excluded, expired));
  query->explanation.path = "popularity";
  query->explanation.matching = selection.count();
  Quotas quotas(request);
  std::unordered_set<std::string> taken;
  const auto take = [&](const std::vector<std::string>& ids, const std::function<float(std::size_t)>& count_of) {
    const std::vector<bool> matching = catalog.Matching(ids, filter);
    std::vector<std::vector<std::vector<FilterValue>>> values;  // by attribute, then by item
    for (const auto& [key, most] : request.max_per) values.push_back(catalog.ValuesOf(ids, key));
    std::vector<std::vector<FilterValue>> of_item(values.size());
    for (std::size_t i = 0; i < ids.size() && results->size() < request.k; ++i) {
      ++query->explanation.candidates;
      if (!matching[i] || query->excluded_ids.contains(ids[i]) || taken.contains(ids[i])) continue;
      for (std::size_t a = 0; a < values.size(); ++a) of_item[a] = std::move(values[a][i]);
      if (!quotas.Take(of_item)) continue;
      taken.insert(ids[i]);
      results->push_back({ids[i], count_of(i), {}});
    }
  };
  const std::shared_ptr<const PopularItems> popular = replica_->Popular();
  for (std::size_t begin = 0; popular && begin < popular->size() && results->size() < request.k; begin += kMaxK) {
    std::vector<std::string> ids;
    for (std::size_t i = begin; i < std::min(begin + kMaxK, popular->size()); ++i) ids.push_back((*popular)[i].first);
    take(ids, [&](std::size_t i) { return static_cast<float>((*popular)[begin + i].second); });
    FRESHET_TRY(CheckDeadline(*query, "while searching"));
  }
  int stalled = 0;
  for (std::size_t page = request.max_per.empty() ? request.k : kMaxK; results->size() < request.k;) {
    // Those taken may be among them the first time.
    const std::size_t before = results->size();
    const std::vector<std::string> ids = catalog.IdsOf(selection, page + before);
    take(ids, [](std::size_t) { return 0.0F; });
    if (results->size() == request.k || ids.size() < page + before) break;
    if (results->size() == before && ++stalled == kMaxStalledPages) break;
    FRESHET_TRY(CheckDeadline(*query, "while searching"));
    std::vector<std::string_view> rest = excluded;
    for (const RecallHit& hit : *results) rest.push_back(hit.id);
    FRESHET_ASSIGN(selection, catalog.Select(Without(quotas.full(), request), rest, expired));
    page = std::min(2 * page, kMostPage);
  }
  return Status::Ok();
}

}  // namespace freshet
