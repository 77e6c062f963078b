#include "freshet/query/recall_service.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

// Beyond this a scan of everything is cheaper than a wider search.
constexpr std::size_t kMaxWidening = 16;

// Refuses a few thousand labels at most, so that a sorted array beats a hash table.
class ExcludedLabels final : public LabelFilter {
 public:
  void Add(Label label) { labels_.push_back(label); }
  void Finish() { std::sort(labels_.begin(), labels_.end()); }
  [[nodiscard]] bool empty() const { return labels_.empty(); }
  [[nodiscard]] bool Allows(Label label) const override {
    return !std::binary_search(labels_.begin(), labels_.end(), label);
  }

 private:
  std::vector<Label> labels_;
};

Status Validate(const RecallRequest& request) {
  const int targets = (request.user ? 1 : 0) + (request.item ? 1 : 0) + (request.vector ? 1 : 0);
  if (targets != 1) {
    return InvalidArgument(StrCat("exactly one of `user`, `item` and `vector` is needed, ", targets, " are given"));
  }
  if (request.user && !IsValidId(*request.user)) {
    return InvalidArgument(StrCat("/user: must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  }
  if (request.item && !IsValidId(*request.item)) {
    return InvalidArgument(StrCat("/item: must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  }
  if (request.k < 1 || request.k > kMaxK) return InvalidArgument(StrCat("/k: must be between 1 and ", kMaxK));
  if (request.exclude_ids.size() > kMaxExcludeIds) {
    return InvalidArgument(StrCat("/exclude_ids: must be at most ", kMaxExcludeIds, " ids"));
  }
  for (std::size_t i = 0; i < request.exclude_ids.size(); ++i) {
    if (IsValidId(request.exclude_ids[i])) continue;
    return InvalidArgument(StrCat("/exclude_ids/", i, ": must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  }
  if (request.exclude_seen && !request.user) {
    return InvalidArgument("/exclude_seen: needs `user`; only a user has seen something");
  }
  if (request.ef > kMaxEf) return InvalidArgument(StrCat("/params/ef: must be between 0 and ", kMaxEf));
  if (request.score_threshold && !std::isfinite(*request.score_threshold)) {
    return InvalidArgument("/score_threshold: must be a finite number");
  }
  if (request.timeout_ms < 0 || request.timeout_ms > kMaxTimeoutMs) {
    return InvalidArgument(StrCat("/timeout_ms: must be between 1 and ", kMaxTimeoutMs));
  }
  return Status::Ok();
}

// Descending score, equal ones by ascending id.
bool Before(const RecallHit& a, const RecallHit& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; }

}  // namespace

struct RecallService::Query {
  std::vector<float> vector;
  std::vector<std::string> seen;
  std::unordered_set<std::string_view> excluded_ids;  // into the request and into `seen`
  ExcludedLabels excluded_labels;
  std::string degraded;
  std::int64_t deadline_us = 0;
};

RecallService::RecallService(const Replica* replica, const UserEncoder* user_encoder, const Clock* clock,
                             Metrics* metrics)
    : replica_(replica),
      user_encoder_(user_encoder),
      clock_(clock),
      seconds_(metrics->GetHistogram("freshet_query_seconds", "Time to answer a recall")),
      short_answers_(metrics->GetCounter("freshet_query_short_answers_total",
                                         "Answers with fewer items than k although more were live; should stay 0")),
      degraded_(metrics->GetCounter("freshet_query_degraded_total",
                                    "Answers for users of whom nothing was known, so that they are not personal")) {}

Result<RecallResponse> RecallService::Recall(const RecallRequest& request) const {
  const std::int64_t start_us = clock_->MonotonicUs();
  FRESHET_TRY(Validate(request));

  Query query;
  query.deadline_us = request.deadline_us;
  if (request.timeout_ms > 0) {
    const std::int64_t asked_us = start_us + request.timeout_ms * 1000;
    query.deadline_us = query.deadline_us == 0 ? asked_us : std::min(query.deadline_us, asked_us);
  }

  // Read before anything else: the answer is at least this fresh.
  RecallResponse response;
  response.as_of_ms = replica_->as_of_ms();
  response.index_version = replica_->sequence();
  response.model_version = replica_->space_id();

  if (request.item) FRESHET_TRY(ResolveItem(request, &query));
  if (request.user) FRESHET_TRY(ResolveUser(request, &query));
  if (request.vector) FRESHET_TRY(ResolveVector(request, &query));
  FRESHET_TRY(CheckDeadline(query, "before the search"));
  Exclude(request, &query);
  FRESHET_TRY(Search(request, query, &response));
  FRESHET_TRY(CheckDeadline(query, "after the search"));

  if (request.with_attributes) {
    for (RecallHit& hit : response.results) {
      FRESHET_ASSIGN(std::optional<Attributes> attributes, replica_->GetAttributes(hit.id));
      if (attributes) hit.attributes = std::move(*attributes);
    }
    FRESHET_TRY(CheckDeadline(query, "while reading attributes"));
  }
  response.degraded = std::move(query.degraded);
  if (!response.degraded.empty()) degraded_.Add();
  const double seconds = static_cast<double>(clock_->MonotonicUs() - start_us) * 1e-6;
  response.took_ms = seconds * 1e3;
  seconds_.Observe(seconds);
  return response;
}

Result<ItemView> RecallService::GetItem(std::string_view item_id) const {
  if (!IsValidId(item_id)) return InvalidArgument(StrCat("an item id is 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  ItemView view;
  view.id = item_id;
  view.index_version = replica_->sequence();
  view.live = replica_->catalog().LabelOf(item_id).has_value();
  FRESHET_ASSIGN(std::optional<Attributes> attributes, replica_->GetAttributes(item_id));
  if (!attributes) return NotFound("no such item");
  view.attributes = std::move(*attributes);
  return view;
}

Status RecallService::ResolveItem(const RecallRequest& request, Query* query) const {
  // The catalog decides: what it does not know is not live, whatever the store still holds.
  if (!replica_->catalog().LabelOf(*request.item)) return NotFound("/item: no such item");
  FRESHET_ASSIGN(std::optional<std::vector<float>> vector, replica_->GetVector(*request.item));
  if (!vector) return NotFound("/item: no such item");
  query->vector = std::move(*vector);
  const Status prepared = PrepareVector(replica_->metric(), replica_->dim(), query->vector);
  if (!prepared.ok()) return Corruption(StrCat("the item's stored vector: ", prepared.message()));
  return Status::Ok();
}

Status RecallService::ResolveUser(const RecallRequest& request, Query* query) const {
  if (user_encoder_ == nullptr) return Unavailable("no user tower is loaded here: ask by `item` or by `vector`");
  if (user_encoder_->space_id() != replica_->space_id() || user_encoder_->dim() != replica_->dim()) {
    return Unavailable(StrCat("the user tower speaks embedding space `", user_encoder_->space_id(), "` (",
                              user_encoder_->dim(), " dimensions), the items are of `", replica_->space_id(), "` (",
                              replica_->dim(), ")"));
  }
  FRESHET_ASSIGN(std::optional<UserState> state, replica_->GetUser(*request.user));
  FRESHET_TRY(CheckDeadline(*query, "while reading the user"));
  UserContext context;
  context.user_id = *request.user;
  if (!state) {
    query->degraded = "unknown_user";
  } else {
    if (state->history.empty()) query->degraded = "no_history";
    context.features = std::move(state->features);
    context.history = std::move(state->history);
    query->seen = std::move(state->seen);
  }
  query->vector.resize(static_cast<std::size_t>(replica_->dim()));
  Status encoded = user_encoder_->Encode(context, query->vector);
  if (encoded.ok()) encoded = PrepareVector(replica_->metric(), replica_->dim(), query->vector);
  // The caller only named a user: what the tower makes of the user's data is not the caller's mistake.
  if (encoded.category() == Category::kInput) return Internal(StrCat("the user tower: ", encoded.message()));
  return encoded.Prefixed("the user tower");
}

Status RecallService::ResolveVector(const RecallRequest& request, Query* query) const {
  query->vector = *request.vector;
  return PrepareVector(replica_->metric(), replica_->dim(), query->vector).Prefixed("/vector");
}

void RecallService::Exclude(const RecallRequest& request, Query* query) const {
  query->excluded_ids.reserve(request.exclude_ids.size() + query->seen.size() + 1);
  query->excluded_ids.insert(request.exclude_ids.begin(), request.exclude_ids.end());
  if (request.exclude_seen) query->excluded_ids.insert(query->seen.begin(), query->seen.end());
  if (request.item) query->excluded_ids.insert(*request.item);
  for (const std::string_view id : query->excluded_ids) {
    if (const std::optional<Label> label = replica_->catalog().LabelOf(id)) query->excluded_labels.Add(*label);
  }
  query->excluded_labels.Finish();
}

std::size_t RecallService::Expected(const RecallRequest& request, const Query& query) const {
  std::size_t excluded = 0;
  for (const std::string_view id : query.excluded_ids) excluded += replica_->catalog().LabelOf(id) ? 1 : 0;
  const std::size_t live = replica_->catalog().live();
  return std::min(request.k, live - std::min(live, excluded));
}

// While a batch is being applied the index knows labels that the catalog does not (yet, or any more), and may know an
// item by two labels. Such hits take places in the index's answer, so the search is repeated with room for them.
Status RecallService::Search(const RecallRequest& request, const Query& query, RecallResponse* response) const {
  SearchOptions options;
  options.k = request.k;
  options.ef = request.ef;
  options.exact = request.exact;
  options.score_threshold = request.score_threshold;
  if (!query.excluded_labels.empty()) options.filter = &query.excluded_labels;

  // Of two moments: what goes live or goes away during the search may be in the answer or not.
  const std::size_t live_before = replica_->catalog().live();
  const std::size_t expected_before =
      live_before >= request.k + query.excluded_ids.size() ? request.k : Expected(request, query);
  std::vector<RecallHit>& results = response->results;
  while (true) {
    FRESHET_ASSIGN(const std::size_t found, SearchOnce(options, query, &results));
    if (results.size() >= request.k) break;
    FRESHET_TRY(CheckDeadline(query, "while searching"));
    const bool all_found = found < options.k;
    if (all_found && (request.score_threshold || results.size() >= Expected(request, query))) break;
    const bool everything = options.k >= replica_->index().Stats().live;
    if (options.exact && (everything || all_found)) break;
    if (everything || all_found || options.k > kMaxWidening * request.k) options.exact = true;
    options.k = std::max(2 * options.k, options.k + (found - results.size()));
  }
  std::sort(results.begin(), results.end(), Before);
  if (results.size() > request.k) results.resize(request.k);
  if (!request.score_threshold && results.size() < expected_before && results.size() < Expected(request, query)) {
    short_answers_.Add();
  }
  return Status::Ok();
}

Result<std::size_t> RecallService::SearchOnce(const SearchOptions& options, const Query& query,
                                              std::vector<RecallHit>* hits) const {
  FRESHET_ASSIGN(const std::vector<Hit> found, replica_->index().Search(query.vector, options));
  std::vector<std::string> ids;
  replica_->catalog().Resolve(found, &ids);
  hits->clear();
  hits->reserve(found.size());
  std::unordered_map<std::string_view, std::size_t> places;  // keys are views into `ids`
  places.reserve(found.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    // By id again: an excluded item may have got another label since.
    if (ids[i].empty() || query.excluded_ids.contains(ids[i])) continue;
    const auto [place, first] = places.try_emplace(ids[i], hits->size());
    if (first) {
      hits->push_back(RecallHit{ids[i], found[i].score, {}});
    } else if (replica_->catalog().LabelOf(ids[i]) == found[i].label) {
      (*hits)[place->second].score = found[i].score;  // the item as it is now, not as it was
    }
  }
  return found.size();
}

Status RecallService::CheckDeadline(const Query& query, const char* stage) const {
  if (query.deadline_us == 0 || clock_->MonotonicUs() < query.deadline_us) return Status::Ok();
  return DeadlineExceeded(StrCat("the deadline passed ", stage));
}

}  // namespace freshet
