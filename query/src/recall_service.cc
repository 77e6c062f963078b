#include "freshet/query/recall_service.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "freshet/core/strings.h"
#include "recall_query.h"

namespace freshet {
namespace {

constexpr int kReadAttempts = 8;
constexpr auto kFreshnessPoll = std::chrono::milliseconds(1);

Status CheckId(const std::string& id, std::string_view pointer) {
  if (IsValidId(id)) return Status::Ok();
  return InvalidArgument(StrCat(pointer, ": must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
}

bool HasUser(const RecallRequest& request) { return request.user || request.user_features || request.user_history; }

Status CheckExamples(const std::vector<std::string>& ids, const std::string& pointer) {
  if (ids.size() > kMaxExamples) return InvalidArgument(StrCat(pointer, ": must be at most ", kMaxExamples, " ids"));
  for (std::size_t i = 0; i < ids.size(); ++i) FRESHET_TRY(CheckId(ids[i], StrCat(pointer, "/", i)));
  return Status::Ok();
}

Status ValidateTarget(const RecallRequest& request) {
  const int targets =
      (HasUser(request) ? 1 : 0) + (request.item ? 1 : 0) + (request.items.empty() ? 0 : 1) + (request.vector ? 1 : 0);
  if (targets != 1) {
    return InvalidArgument(
        StrCat("exactly one of `user`, `item`, `items` and `vector` is needed, ", targets, " are given"));
  }
  if (request.user) FRESHET_TRY(CheckId(*request.user, "/user"));
  if (request.item) FRESHET_TRY(CheckId(*request.item, "/item"));
  FRESHET_TRY(CheckExamples(request.items, "/items"));
  FRESHET_TRY(CheckExamples(request.negative, "/negative"));
  if (!request.negative.empty() && !request.item && request.items.empty()) {
    return InvalidArgument("/negative: needs `item` or `items`");
  }
  if (request.rerank) FRESHET_TRY(CheckRerank(request));
  return request.weights ? CheckWeights(*request.weights) : Status::Ok();
}

Histogram& StageSeconds(Metrics* metrics, const std::string& stage) {
  return metrics->GetHistogram("freshet_query_stage_seconds", "Time of one stage of a recall", {{"stage", stage}});
}

// About what they take in memory.
std::size_t BytesOf(const Attributes& attributes) {
  std::size_t bytes = 0;
  for (const auto& [name, value] : attributes) {
    bytes += sizeof(Attributes::value_type) + name.size();
    if (const auto* text = std::get_if<std::string>(&value)) bytes += text->size();
    if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
      for (const std::string& text : *texts) bytes += sizeof(std::string) + text.size();
    }
    if (const auto* whole = std::get_if<std::vector<std::int64_t>>(&value))
      bytes += whole->size() * sizeof(std::int64_t);
    if (const auto* numbers = std::get_if<std::vector<double>>(&value)) bytes += numbers->size() * sizeof(double);
  }
  return bytes;
}

Status Validate(const RecallRequest& request) {
  FRESHET_TRY(ValidateTarget(request));
  if (request.k < 1 || request.k > kMaxK) return InvalidArgument(StrCat("/k: must be between 1 and ", kMaxK));
  if (request.exclude_ids.size() > kMaxExcludeIds) {
    return InvalidArgument(StrCat("/exclude_ids: must be at most ", kMaxExcludeIds, " ids"));
  }
  for (std::size_t i = 0; i < request.exclude_ids.size(); ++i) {
    if (IsValidId(request.exclude_ids[i])) continue;
    return InvalidArgument(StrCat("/exclude_ids/", i, ": must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  }
  if (request.max_per.size() > kMaxPerAttributes) {
    return InvalidArgument(StrCat("/max_per: must be at most ", kMaxPerAttributes, " attributes"));
  }
  for (const auto& [key, most] : request.max_per) {
    if (most < 1 || most > kMaxK) return InvalidArgument(StrCat("/max_per: must be between 1 and ", kMaxK));
  }
  if (request.exclude_seen && !HasUser(request)) {
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

}  // namespace

RecallService::RecallService(const Replica* replica, const UserEncoder* user_encoder, const Clock* clock,
                             Metrics* metrics, const RecallLimits& limits, const Reranker* reranker)
    : replica_(replica),
      user_encoder_(user_encoder),
      reranker_(reranker),
      clock_(clock),
      limits_(limits),
      seconds_(metrics->GetHistogram("freshet_query_seconds", "Time to answer a recall")),
      resolve_seconds_(StageSeconds(metrics, "resolve")),
      search_seconds_(StageSeconds(metrics, "search")),
      rerank_seconds_(StageSeconds(metrics, "rerank")),
      attributes_seconds_(StageSeconds(metrics, "attributes")),
      short_answers_(metrics->GetCounter("freshet_query_short_answers_total",
                                         "Answers with fewer items than k although more were live; should stay 0")),
      degraded_(metrics->GetCounter(
          "freshet_query_degraded_total",
          "Answers that are less than they could be: not personal, not re-ranked, short by max_per")),
      rerank_failures_(metrics->GetCounter("freshet_query_rerank_failures_total",
                                           "Answers in the recall's order though re-ranking was asked for: the "
                                           "re-ranker failed, or there is none")) {}

// Deadline, freshness, target: what Recall() and Score() begin with.
Status RecallService::Begin(const RecallRequest& request, std::int64_t start_us, Query* query,
                            RecallResponse* response) const {
  query->deadline_us = request.deadline_us;
  if (request.timeout_ms > 0) {
    const std::int64_t asked_us = start_us + request.timeout_ms * 1000;
    query->deadline_us = query->deadline_us == 0 ? asked_us : std::min(query->deadline_us, asked_us);
  }
  while (replica_->as_of_ms() < request.min_as_of_ms) {
    if (query->deadline_us == 0 || clock_->MonotonicUs() >= query->deadline_us) {
      return Unavailable(
          StrCat("an answer would be as of ", replica_->as_of_ms(), " ms, `min_as_of` is ", request.min_as_of_ms));
    }
    std::this_thread::sleep_for(kFreshnessPoll);
  }
  FRESHET_TRY(CheckDeadline(*query, "before the request was looked at"));
  // Read before anything else: the answer is at least this fresh.
  response->as_of_ms = query->as_of_ms = replica_->as_of_ms();
  response->index_version = replica_->sequence();
  response->model_version = replica_->space_id();
  return Resolve(request, query);
}

Result<RecallResponse> RecallService::Recall(const RecallRequest& request) const {
  const std::int64_t start_us = clock_->MonotonicUs();
  FRESHET_TRY(Validate(request));
  Query query;
  RecallResponse response;
  std::int64_t stage_us = start_us;
  const auto end_stage = [&](const char* name, Histogram* seconds) {
    const std::int64_t now_us = clock_->MonotonicUs();
    query.explanation.stage_ms.emplace_back(name, static_cast<double>(now_us - stage_us) * 1e-3);
    seconds->Observe(static_cast<double>(now_us - stage_us) * 1e-6);
    stage_us = now_us;
  };
  FRESHET_TRY(Begin(request, start_us, &query, &response));
  end_stage("resolve", &resolve_seconds_);
  FRESHET_TRY(CheckDeadline(query, "before the search"));
  Exclude(request, &query);
  FRESHET_TRY(Search(request, &query, &response.results));
  stage_us += query.rerank_us;  // within the search, told by itself
  end_stage("search", &search_seconds_);
  if (query.explanation.reranked) {
    query.explanation.stage_ms.emplace_back("rerank", static_cast<double>(query.rerank_us) * 1e-3);
    rerank_seconds_.Observe(static_cast<double>(query.rerank_us) * 1e-6);
  }
  FRESHET_TRY(CheckDeadline(query, "after the search"));

  if (request.with_attributes) {
    FRESHET_TRY(ReadAttributes(query, &response.results));
    end_stage("attributes", &attributes_seconds_);
    FRESHET_TRY(CheckDeadline(query, "while reading attributes"));
  }
  response.degraded = std::move(query.degraded);
  if (!response.degraded.empty()) degraded_.Add();
  if (request.explain) response.explanation = std::move(query.explanation);
  const double seconds = static_cast<double>(clock_->MonotonicUs() - start_us) * 1e-6;
  response.took_ms = seconds * 1e3;
  seconds_.Observe(seconds);
  return response;
}

Status RecallService::ReadAttributes(const Query& query, std::vector<RecallHit>* results) const {
  std::size_t bytes = 0;
  for (RecallHit& hit : *results) {
    FRESHET_TRY(CheckDeadline(query, "while reading attributes"));
    FRESHET_ASSIGN(std::optional<Attributes> attributes, replica_->GetAttributes(hit.id));
    if (!attributes) continue;
    bytes += BytesOf(*attributes);
    if (bytes > limits_.max_attribute_bytes) {
      return InvalidArgument(StrCat("/with_attributes: those of the results are more than ",
                                    limits_.max_attribute_bytes, " bytes: ask for fewer results, or without"));
    }
    hit.attributes = std::move(*attributes);
  }
  return Status::Ok();
}

Result<ScoreResponse> RecallService::Score(const RecallRequest& request, const std::vector<std::string>& ids) const {
  const std::int64_t start_us = clock_->MonotonicUs();
  FRESHET_TRY(ValidateTarget(request));
  if (ids.empty() || ids.size() > kMaxScoreIds) {
    return InvalidArgument(StrCat("/ids: must be 1 to ", kMaxScoreIds, " ids"));
  }
  Query query;
  ScoreResponse response;
  FRESHET_TRY(Begin(request, start_us, &query, &response.answer));
  const std::vector<double> counts = query.popular ? replica_->CountsOf(ids) : std::vector<double>(ids.size(), 0.0);
  std::unordered_set<std::string_view> known;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    FRESHET_TRY(CheckId(ids[i], StrCat("/ids/", i)));
    if (!known.insert(ids[i]).second) continue;
    FRESHET_TRY(CheckDeadline(query, "while scoring"));
    std::optional<std::vector<float>> vector;
    if (replica_->catalog().LabelOf(ids[i])) {
      FRESHET_ASSIGN(vector, replica_->GetVector(ids[i]));
    }
    if (vector) {
      const float score = query.popular ? static_cast<float>(counts[i]) : ScoreOf(query.vector, *vector);
      response.answer.results.push_back({ids[i], score, {}});
    } else {
      response.unknown.push_back(ids[i]);
    }
  }
  if (request.weights && !query.popular) FRESHET_TRY(Blend(request, query, &response.answer.results));
  if (PrepareReranking(request, &query)) FRESHET_TRY(Rerank(request, &query, &response.answer.results));
  if (query.rerank_failed) query.degraded = "rerank";
  std::sort(response.answer.results.begin(), response.answer.results.end(), BetterRecall);
  response.answer.degraded = std::move(query.degraded);
  if (!response.answer.degraded.empty()) degraded_.Add();
  response.answer.took_ms = static_cast<double>(clock_->MonotonicUs() - start_us) * 1e-3;
  return response;
}

Result<UserView> RecallService::GetUser(std::string_view user_id) const {
  if (!IsValidId(user_id)) return InvalidArgument(StrCat("a user id is 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  UserView view;
  view.id = user_id;
  view.index_version = replica_->sequence();
  FRESHET_ASSIGN(std::optional<UserState> state, replica_->GetUser(user_id));
  if (!state) return NotFound("no such user");
  view.state = std::move(*state);
  return view;
}

Result<ItemView> RecallService::GetItem(std::string_view item_id) const {
  if (!IsValidId(item_id)) return InvalidArgument(StrCat("an item id is 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  ItemView view;
  view.id = item_id;
  view.index_version = replica_->sequence();
  // All of one change: where the number is another one afterwards, the item was changed meanwhile.
  for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
    FRESHET_ASSIGN(const std::optional<std::uint64_t> sequence, replica_->GetSequence(item_id));
    FRESHET_ASSIGN(std::optional<Attributes> attributes, replica_->GetAttributes(item_id));
    if (!sequence || !attributes) return NotFound("no such item: it was never here, or it was deleted");
    view.sequence = *sequence;
    view.attributes = std::move(*attributes);
    FRESHET_ASSIGN(view.changed_ms, replica_->GetChangedMs(item_id));
    FRESHET_ASSIGN(view.vector, replica_->GetVector(item_id));
    const Catalog& catalog = replica_->catalog();
    view.live = catalog.LabelOf(item_id).has_value();
    if (!view.live) view.not_live = catalog.StoredLabelOf(item_id) ? "partition_elsewhere" : "not_visible_yet";
    FRESHET_ASSIGN(const std::optional<std::uint64_t> still, replica_->GetSequence(item_id));
    if (still == sequence) return view;
    view.not_live.clear();
  }
  return Unavailable("the item is being changed faster than it can be read");
}

Status RecallService::Resolve(const RecallRequest& request, Query* query) const {
  if (request.vector) return ResolveVector(request, query);
  return HasUser(request) ? ResolveUser(request, query) : ResolveItems(request, query);
}

// Like some, and unlike others: the mean of the ones minus half the mean of the others (Rocchio).
Status RecallService::ResolveItems(const RecallRequest& request, Query* query) const {
  query->vector.assign(static_cast<std::size_t>(replica_->dim()), 0.0F);
  if (request.item) FRESHET_TRY(AddVector(*request.item, "/item", 1.0F, query));
  for (std::size_t i = 0; i < request.items.size(); ++i) {
    const float weight = 1.0F / static_cast<float>(request.items.size());
    FRESHET_TRY(AddVector(request.items[i], StrCat("/items/", i), weight, query));
  }
  for (std::size_t i = 0; i < request.negative.size(); ++i) {
    const float weight = -0.5F / static_cast<float>(request.negative.size());
    FRESHET_TRY(AddVector(request.negative[i], StrCat("/negative/", i), weight, query));
  }
  const Status prepared = PrepareVector(replica_->metric(), replica_->dim(), query->vector);
  if (prepared.ok()) return prepared;
  if (request.item && request.negative.empty()) {
    return Corruption(StrCat("the item's stored vector: ", prepared.message()));
  }
  return InvalidArgument("/items: cancel each other out; what is left points nowhere");
}

Status RecallService::AddVector(const std::string& item, const std::string& pointer, float weight, Query* query) const {
  // The catalog decides: what it does not know is not live, whatever the store still holds.
  if (!replica_->catalog().LabelOf(item)) return NotFound(StrCat(pointer, ": no such item"));
  FRESHET_ASSIGN(const std::optional<std::vector<float>> vector, replica_->GetVector(item));
  if (!vector) return NotFound(StrCat(pointer, ": no such item"));
  if (vector->size() != query->vector.size()) return Corruption("a stored vector has another dimension");
  for (std::size_t i = 0; i < vector->size(); ++i) query->vector[i] += weight * (*vector)[i];
  return Status::Ok();
}

Status RecallService::CheckSpace() const {
  if (user_encoder_->space_id() == replica_->space_id() && user_encoder_->dim() == replica_->dim()) return Status::Ok();
  return Unavailable(StrCat("the user tower speaks embedding space `", user_encoder_->space_id(), "` (",
                            user_encoder_->dim(), " dimensions), the items are of `", replica_->space_id(), "` (",
                            replica_->dim(), ")"));
}

Status RecallService::ResolveUser(const RecallRequest& request, Query* query) const {
  if (user_encoder_ != nullptr) FRESHET_TRY(CheckSpace());
  std::optional<UserState> state;
  if (request.user) {
    FRESHET_ASSIGN(state, replica_->GetUser(*request.user));
  }
  FRESHET_TRY(CheckDeadline(*query, "while reading the user"));
  if (!state) state.emplace();
  if (request.user_features) state->features = *request.user_features;
  if (request.user_history) {
    state->history = *request.user_history;
    for (const HistoryEntry& entry : state->history) state->seen.push_back(entry.item_id);
  }
  query->seen = std::move(state->seen);
  // Of returns alone a tower reads nothing.
  const auto taken = [](const HistoryEntry& entry) { return IsTaken(entry.value); };
  if (std::none_of(state->history.begin(), state->history.end(), taken)) {
    query->popular = state->features.empty();
    query->degraded = query->popular ? "popularity" : "no_history";
    if (query->popular) return Status::Ok();
  }
  if (user_encoder_ == nullptr) return Unavailable("no user tower is loaded here: ask by `item` or by `vector`");
  UserContext context;
  if (request.user) context.user_id = *request.user;
  context.features = std::move(state->features);
  context.history = std::move(state->history);
  query->vector.resize(static_cast<std::size_t>(replica_->dim()));
  Status encoded = user_encoder_->Encode(context, query->vector);
  if (request.rerank) query->user = std::move(context);
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
  query->excluded_ids.insert(request.items.begin(), request.items.end());
  query->excluded_ids.insert(request.negative.begin(), request.negative.end());
  query->excluded_labels.Reserve(query->excluded_ids.size());
  for (const std::string_view id : query->excluded_ids) {
    if (const std::optional<Label> label = replica_->catalog().LabelOf(id)) query->excluded_labels.Add(*label);
  }
}

Status RecallService::CheckDeadline(const Query& query, const char* stage) const {
  if (query.deadline_us == 0 || clock_->MonotonicUs() < query.deadline_us) return Status::Ok();
  return DeadlineExceeded(StrCat("the deadline passed ", stage));
}

}  // namespace freshet
