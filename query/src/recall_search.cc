// From a query vector to hits: which way is the cheapest, and what to do where it finds too few.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <optional>

#include "freshet/core/slot_table.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/effort.h"
#include "freshet/indexer/label_filters.h"
#include "recall_query.h"

namespace freshet {
namespace {

// Beyond this a scan of everything is cheaper than a wider search.
constexpr std::size_t kMaxWidening = 16;
constexpr int kMaxAttempts = 4;
constexpr std::size_t kDeadlineEvery = 256;
constexpr std::size_t kTieRoom = 64;

// What a search costs, in microseconds, by `freshet_bench filters` (128 dimensions); only their ratios matter, and they
// decide the path alone, never the answer.
constexpr double kReadVectorUs = 8.0;    // one vector out of the store
constexpr double kVisitUs = 0.55;        // one step of a graph search with a filter
constexpr double kTestLabelUs = 0.001;   // one label in a scan of the index
constexpr double kTestBitUs = 0.00002;   // ... of a filter that it remembers
constexpr double kScanVectorUs = 0.027;  // one vector in it that matches, by its code

enum class Path { kGraph, kScan, kSet };

// The graph is searched until `effort` matching items are found, so it visits effort / selectivity of them, where those
// near the query match as others do. A scan of the index looks at every label, and scores what matches; the last resort
// reads what matches out of the store.
Path Plan(const RecallRequest& request, std::size_t k, const Catalog::Selection& selection, std::size_t live) {
  const auto m = static_cast<double>(selection.count());
  const auto n = std::max(static_cast<double>(live), m);
  const double test = selection.number() != 0 ? kTestBitUs : kTestLabelUs;
  const double set = kReadVectorUs * m;
  const double scan = test * n + kScanVectorUs * m;
  const double graph = kVisitUs * WalkWidth(request.ef, k, live, m / n);
  if (set <= scan) return Path::kSet;
  return request.exact || scan <= graph ? Path::kScan : Path::kGraph;
}

// A selection answers by way of the item that has a label, two tables away. A scan asks for every label: for that the
// labels of what matches are gathered when the first one does, as bits where they lie close together, else as a
// table.
constexpr std::uint64_t kBitsForEach = 512;  // of the matching labels
constexpr std::uint64_t kBitsAtLeast = 1 << 22;

// What lasts of it, as long as no item changes: exclusions do not, they are one request's own.
class Lasting final : public LastingFilter {
 public:
  Lasting(const Catalog& catalog, const Catalog::Selection& selection, std::uint64_t as_of)
      : catalog_(catalog), selection_(selection), as_of_(as_of) {}
  [[nodiscard]] std::uint64_t key() const override { return selection_.number(); }
  [[nodiscard]] std::uint64_t as_of() const override { return as_of_; }
  [[nodiscard]] bool Allows(Label label) const override { return selection_.Allows(label); }
  [[nodiscard]] std::uint64_t AllowsEach(std::span<const Label> labels) const override {
    // Asked first, as call_once() is slow where it was called before.
    if (!gathered_.load(std::memory_order_acquire)) std::call_once(once_, [this] { Gather(); });
    std::uint64_t later = 0;
    std::uint64_t allowed = bits_ ? bits_->AllowsEach(labels, &later) : ListedOf(labels, &later);
    for (std::size_t i = 0; later != 0; ++i, later >>= 1) {
      if ((later & 1) != 0) allowed |= std::uint64_t{selection_.Allows(labels[i])} << i;
    }
    return allowed;
  }

 private:
  void Gather() const {
    const Catalog::Labels of = catalog_.LabelsOf(selection_);
    newest_ = of.newest;
    const auto least = std::min_element(of.labels.begin(), of.labels.end());
    if (least != of.labels.end() &&
        newest_ - *least <= std::max<std::uint64_t>(kBitsForEach * of.labels.size(), kBitsAtLeast)) {
      bits_.emplace(*least, newest_ + 1, of.labels);
    } else {
      listed_.emplace(of.labels);
    }
    gathered_.store(true, std::memory_order_release);
  }
  [[nodiscard]] std::uint64_t ListedOf(std::span<const Label> labels, std::uint64_t* later) const {
    *later = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) *later |= std::uint64_t{labels[i] > newest_} << i;
    return listed_->AllowsEach(labels) & ~*later;
  }

  const Catalog& catalog_;
  const Catalog::Selection& selection_;
  const std::uint64_t as_of_;
  mutable std::once_flag once_;
  mutable std::atomic<bool> gathered_{false};
  // Constant once they are gathered. Above the newest are items that have changed since: of those the selection knows.
  mutable Label newest_ = 0;
  mutable std::optional<LabelBitmap> bits_;
  mutable std::optional<OnlyLabels> listed_;
};

class Matching final : public LabelFilter {
 public:
  // `changes`: of the index, before the selection was made.
  Matching(const Catalog& catalog, const Catalog::Selection& selection, std::uint64_t changes)
      : selection_(selection),
        each_(catalog, selection, changes),
        lasting_(catalog, selection.WithExcluded(), changes),
        lasts_(selection.number() != 0) {}
  [[nodiscard]] bool Allows(Label label) const override { return selection_.Allows(label); }
  [[nodiscard]] std::uint64_t AllowsEach(std::span<const Label> labels) const override {
    return each_.AllowsEach(labels);
  }
  [[nodiscard]] const LastingFilter* lasting() const override { return lasts_ ? &lasting_ : nullptr; }

 private:
  const Catalog::Selection& selection_;
  const Lasting each_;
  const Lasting lasting_;
  const bool lasts_;
};

const char* Name(Path path) {
  switch (path) {
    case Path::kGraph:
      return "graph";
    case Path::kScan:
      return "scan";
    case Path::kSet:
      return "set";
  }
  return "";
}

}  // namespace

Status RecallService::Search(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const {
  query->explanation.live = replica_->catalog().live();
  const bool rerank = PrepareReranking(request, query);
  query->k = request.weights || rerank ? BlendPool(request.k) : request.k;
  if (rerank && request.rerank->candidates > 0) query->k = request.rerank->candidates;
  if (!request.weights) query->score_threshold = request.score_threshold;
  if (query->popular) {
    FRESHET_TRY(SearchPopular(request, query, results));
  } else if (request.max_per.empty()) {
    FRESHET_TRY(SearchBest(request, request.filter ? &*request.filter : nullptr, query, results));
  } else {
    FRESHET_TRY(SearchDiverse(request, query, results));
    // The re-ranker has failed within it: no two kinds of scores in one answer.
    if (rerank && !query->rerank) FRESHET_TRY(SearchDiverse(request, query, results));
  }
  if (query->rerank_failed) query->degraded = "rerank";
  // Mostly the index has done it, and moving hits about is slow.
  if (!std::is_sorted(results->begin(), results->end(), BetterRecall)) {
    std::sort(results->begin(), results->end(), BetterRecall);
  }
  if (results->size() > request.k) results->resize(request.k);
  if (query->fell_short && results->size() < request.k) short_answers_.Add();
  return Status::Ok();
}

Status RecallService::SearchBest(const RecallRequest& request, const Filter* filter, Query* query,
                                 std::vector<RecallHit>* results) const {
  FRESHET_TRY(SearchSimilar(request, filter, query, results));
  if (!request.weights && !query->rerank) return Status::Ok();
  if (results->size() > query->k) {
    std::sort(results->begin(), results->end(), BetterRecall);
    results->resize(query->k);
  }
  return request.weights ? Blend(request, *query, results) : Rerank(request, query, results);
}

Status RecallService::SearchSimilar(const RecallRequest& request, const Filter* filter, Query* query,
                                    std::vector<RecallHit>* results) const {
  if (filter != nullptr) return SearchFiltered(request, *filter, query, results);
  // What the index holds of partitions that others own is left out as what does not match would be.
  if (replica_->catalog().hidden() > 0) return SearchFiltered(request, Filter{}, query, results);
  return SearchUnfiltered(request, query, results);
}

std::size_t RecallService::Expected(const Query& query) const {
  std::size_t excluded = 0;
  for (const std::string_view id : query.excluded_ids) excluded += replica_->catalog().LabelOf(id) ? 1 : 0;
  const std::size_t live = replica_->catalog().live();
  return std::min(query.k, live - std::min(live, excluded));
}

// While a batch is being applied the index knows labels that the catalog does not (yet, or any more), and may know an
// item by two labels. Such hits take places in the index's answer, so the search is repeated with room for them.
Status RecallService::SearchUnfiltered(const RecallRequest& request, Query* query,
                                       std::vector<RecallHit>* results) const {
  SearchOptions options;
  options.k = query->k;
  options.ef = request.ef;
  options.exact = request.exact;
  options.score_threshold = query->score_threshold;
  if (!query->excluded_labels.empty()) options.filter = &query->excluded_labels;

  // Of two moments: what goes live or goes away during the search may be in the answer or not.
  const std::size_t live_before = replica_->catalog().live();
  const std::size_t expected_before =
      live_before >= query->k + query->excluded_ids.size() ? query->k : Expected(*query);
  query->explanation.matching = live_before - std::min(live_before, query->excluded_ids.size());
  while (true) {
    FRESHET_ASSIGN(const std::size_t found, SearchOnce(options, nullptr, query, results));
    query->explanation.path = Name(options.exact ? Path::kScan : Path::kGraph);
    if (results->size() >= query->k) break;
    FRESHET_TRY(CheckDeadline(*query, "while searching"));
    const bool all_found = found < options.k;
    if (all_found && (query->score_threshold || results->size() >= Expected(*query))) break;
    const bool everything = options.k >= replica_->index().Stats().live;
    if (options.exact && (everything || all_found)) break;
    if (everything || all_found || options.k > kMaxWidening * query->k) options.exact = true;
    options.k = std::max(2 * options.k, options.k + (found - results->size()));
  }
  // To blend more are looked for than are asked for: those may be missing.
  if (!query->score_threshold && results->size() < std::min(request.k, expected_before) &&
      results->size() < Expected(*query)) {
    query->fell_short = true;
  }
  return Status::Ok();
}

// The set of matching items is exact and counted before anything is searched, so that a short answer is noticed; the
// last attempt reads the set itself and cannot miss anything.
Status RecallService::SearchFiltered(const RecallRequest& request, const Filter& filter, Query* query,
                                     std::vector<RecallHit>* results) const {
  const std::vector<std::string_view> excluded(query->excluded_ids.begin(), query->excluded_ids.end());
  const auto expired = [&] { return !CheckDeadline(*query, "").ok(); };
  std::size_t expected = 0;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const std::uint64_t changes = replica_->index().Changes();
    FRESHET_ASSIGN(const Catalog::Selection selection, replica_->catalog().Select(filter, excluded, expired));
    // Of two moments, again: the answer may be as short as the shorter of them.
    expected = attempt == 0 ? selection.count() : std::min(expected, selection.count());
    query->explanation.matching = selection.count();
    results->clear();
    if (selection.count() == 0) {
      query->explanation.path = Name(Path::kSet);
      return Status::Ok();
    }
    Path path = Plan(request, query->k, selection, replica_->catalog().live());
    if (attempt == 1) path = std::max(path, Path::kScan);
    if (attempt >= 2) path = Path::kSet;
    query->explanation.path = Name(path);
    if (path == Path::kSet) {
      FRESHET_TRY(ScoreSet(selection, filter, query, results));
    } else {
      SearchOptions options;
      // Room for items that are known by two labels while they are replaced.
      options.k = query->k << attempt;
      options.ef = request.ef;
      options.scan = path == Path::kScan;
      options.exact = request.exact || attempt > 0;
      options.score_threshold = query->score_threshold;
      const Matching matching(replica_->catalog(), selection, changes);
      options.filter = &matching;
      FRESHET_ASSIGN([[maybe_unused]] const std::size_t found, SearchOnce(options, &filter, query, results));
    }
    FRESHET_TRY(CheckDeadline(*query, "while searching"));
    if (query->score_threshold || results->size() >= std::min(query->k, selection.count())) return Status::Ok();
  }
  query->fell_short |= results->size() < std::min(request.k, expected);
  return Status::Ok();
}

// Reads every matching item's vector and scores it.
Status RecallService::ScoreSet(const Catalog::Selection& selection, const Filter& filter, Query* query,
                               std::vector<RecallHit>* results) const {
  ++query->explanation.searches;
  const std::vector<std::string> ids = replica_->catalog().IdsOf(selection);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i % kDeadlineEvery == 0) FRESHET_TRY(CheckDeadline(*query, "while searching"));
    FRESHET_ASSIGN(const std::optional<std::vector<float>> vector, replica_->GetVector(ids[i]));
    if (!vector) continue;
    const float score = ScoreOf(query->vector, *vector);
    if (!query->score_threshold || score >= *query->score_threshold) results->push_back({ids[i], score, {}});
  }
  query->explanation.candidates += ids.size();
  // Some more than k, in case some have changed since.
  const std::size_t kept = std::min(results->size(), query->k + query->k / 4 + 16);
  std::partial_sort(results->begin(), results->begin() + static_cast<std::ptrdiff_t>(kept), results->end(),
                    BetterRecall);
  results->resize(kept);
  std::vector<std::string> best;
  for (const RecallHit& hit : *results) best.push_back(hit.id);
  const std::vector<bool> matching = replica_->catalog().Matching(best, filter);
  std::size_t i = 0;
  std::erase_if(*results, [&](const RecallHit&) { return !matching[i++]; });
  return Status::Ok();
}

// The index orders equal scores by label, answers do by id. Where the cut goes through equal scores, all of those
// belong to the candidates: one hit more than asked for tells, and a second search brings them. Of more than twice as
// many those with the lowest labels are candidates.
Result<std::vector<Hit>> RecallService::SearchIndex(const SearchOptions& options, Query* query) const {
  SearchOptions more = options;
  more.k = options.k + 1;
  FRESHET_ASSIGN(std::vector<Hit> found, replica_->index().Search(query->vector, more));
  ++query->explanation.searches;
  query->explanation.candidates += std::min(found.size(), options.k);
  if (found.size() <= options.k) return found;
  const float last = found[options.k - 1].score;
  if (found.back().score == last) {
    more.k = 2 * options.k + kTieRoom;
    FRESHET_ASSIGN(found, replica_->index().Search(query->vector, more));
    ++query->explanation.searches;
    query->explanation.candidates += found.size() - std::min(found.size(), options.k);
  }
  const auto is_below = [last](const Hit& hit) { return hit.score < last; };
  const auto begin = found.begin() + static_cast<std::ptrdiff_t>(std::min(found.size(), options.k));
  found.erase(std::find_if(begin, found.end(), is_below), found.end());
  return found;
}

Result<std::size_t> RecallService::SearchOnce(const SearchOptions& options, const Filter* filter, Query* query,
                                              std::vector<RecallHit>* hits) const {
  FRESHET_ASSIGN(const std::vector<Hit> found, SearchIndex(options, query));
  std::vector<Catalog::Resolved> resolved = replica_->catalog().Resolve(found, filter);
  hits->clear();
  hits->reserve(found.size());
  SlotTable places;                     // items to where they are in `hits`
  std::vector<std::uint32_t> slots_of;  // by place
  slots_of.reserve(found.size());
  const auto hash_of = [&](std::uint32_t place) { return std::uint64_t{slots_of[place]}; };
  places.Reserve(found.size(), hash_of);
  for (std::size_t i = 0; i < found.size(); ++i) {
    Catalog::Resolved& item = resolved[i];
    // By id again: an excluded item may have got another label since.
    if (item.id.empty() || (!query->excluded_ids.empty() && query->excluded_ids.contains(item.id))) continue;
    const std::uint32_t known =
        places.Find(item.slot, [&](std::uint32_t place) { return slots_of[place] == item.slot; });
    if (known == SlotTable::kNone) {
      places.Add(item.slot, static_cast<std::uint32_t>(hits->size()), hash_of);
      slots_of.push_back(item.slot);
      hits->push_back(RecallHit{std::move(item.id), found[i].score, {}});
    } else if (item.newest) {
      (*hits)[known].score = found[i].score;  // the item as it is now, not as it was
    }
  }
  return found.size();
}

float RecallService::ScoreOf(const std::vector<float>& query, const std::vector<float>& item) const {
  // Four sums, so that one addition need not wait for the other.
  const bool l2 = replica_->metric() == Metric::kL2;
  float sums[4] = {0, 0, 0, 0};
  for (std::size_t i = 0; i < query.size() && i < item.size(); ++i) {
    const float term = l2 ? (query[i] - item[i]) * (query[i] - item[i]) : query[i] * item[i];
    sums[i % 4] += term;
  }
  const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return l2 ? -sum : sum;
}

}  // namespace freshet
