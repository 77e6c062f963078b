// Messages of gRPC as requests.
#include <google/protobuf/arena.h>

#include <cmath>
#include <utility>

#include "freshet/core/strings.h"
#include "freshet/v1/recall.pb.h"
#include "grpc_codec.h"

namespace freshet {
namespace {

using Name = JsonValue::StringRefType;

// Errors are made at the bottom as ": what" and get their pointer on the way up, from those who know it; so no pointer
// is made for what is right.
Status Wrong(std::string_view what) { return InvalidArgument(StrCat(": ", what)); }

Status Under(std::string_view pointer, const Status& status) {
  return status.ok() ? status : InvalidArgument(StrCat(pointer, status.message()));
}

// Of a whole message: without a pointer there is no colon either.
Status Whole(const Status& status) {
  return status.ok() || !status.message().starts_with(": ") ? status : InvalidArgument(status.message().substr(2));
}

// Nothing that a newer client means may be passed over.
template <typename Message>
Status CheckKnown(const Message& message) {
  const auto& unknown = message.GetReflection()->GetUnknownFields(message);
  if (unknown.empty()) return Status::Ok();
  return Wrong(StrCat("the field with the number ", unknown.field(0).number(), " is not known to this server"));
}

class Tree {
 public:
  explicit Tree(JsonDocument* document) : memory_(document->GetAllocator()) {}

  // Refers to `text`, which outlives the tree.
  static JsonValue Text(const std::string& text) {
    return JsonValue(Name(text.data(), static_cast<rapidjson::SizeType>(text.size())));
  }
  static JsonValue Object() { return JsonValue(rapidjson::kObjectType); }
  static JsonValue Array() { return JsonValue(rapidjson::kArrayType); }
  void Add(const char* name, JsonValue value, JsonValue* to) { to->AddMember(Name(name), value, memory_); }
  void Add(const std::string& name, JsonValue value, JsonValue* to) {
    JsonValue key = Text(name);
    to->AddMember(key, value, memory_);
  }
  void Push(JsonValue value, JsonValue* to) { to->PushBack(value, memory_); }
  template <typename Strings>
  JsonValue Texts(const Strings& texts) {
    JsonValue array = Array();
    array.Reserve(static_cast<rapidjson::SizeType>(texts.size()), memory_);
    for (const std::string& text : texts) Push(Text(text), &array);
    return array;
  }

  // What recall and score have in common.
  template <typename Request>
  Status Target(const Request& request, JsonValue* root) {
    if (request.has_user()) FRESHET_TRY(Under("/user", User(request.user(), root)));
    if (request.has_item()) Add("item", Text(request.item()), root);
    if (!request.items().empty()) Add("items", Texts(request.items()), root);
    if (!request.negative().empty()) Add("negative", Texts(request.negative()), root);
    if (!request.vector().empty()) {
      JsonValue vector = Array();
      vector.Reserve(static_cast<rapidjson::SizeType>(request.vector_size()), memory_);
      for (const float x : request.vector()) Push(JsonValue(static_cast<double>(x)), &vector);
      Add("vector", std::move(vector), root);
    }
    if (request.has_weights()) FRESHET_TRY(Under("/weights", Weights(request.weights(), root)));
    if (request.has_min_as_of()) Add("min_as_of", JsonValue(request.min_as_of()), root);
    if (request.has_timeout_ms()) Add("timeout_ms", JsonValue(request.timeout_ms()), root);
    return Status::Ok();
  }

  Status Recall(const v1::RecallRequest& request, JsonValue* root) {
    FRESHET_TRY(CheckKnown(request));
    FRESHET_TRY(Target(request, root));
    if (request.has_k()) Add("k", JsonValue(request.k()), root);
    if (request.has_filter()) {
      JsonValue filter = Object();
      FRESHET_TRY(Under("/filter", Filter(request.filter(), &filter)));
      Add("filter", std::move(filter), root);
    }
    if (!request.max_per().empty()) {
      JsonValue max_per = Object();
      for (const auto& [attribute, most] : request.max_per()) Add(attribute, JsonValue(most), &max_per);
      Add("max_per", std::move(max_per), root);
    }
    if (!request.exclude_ids().empty()) Add("exclude_ids", Texts(request.exclude_ids()), root);
    if (request.exclude_seen()) Add("exclude_seen", JsonValue(true), root);
    if (request.has_params()) {
      FRESHET_TRY(Under("/params", CheckKnown(request.params())));
      JsonValue params = Object();
      if (request.params().has_ef()) Add("ef", JsonValue(request.params().ef()), &params);
      if (request.params().exact()) Add("exact", JsonValue(true), &params);
      Add("params", std::move(params), root);
    }
    if (request.with_attributes()) Add("with_attributes", JsonValue(true), root);
    if (request.has_score_threshold()) {
      Add("score_threshold", JsonValue(static_cast<double>(request.score_threshold())), root);
    }
    if (request.has_rerank()) {
      FRESHET_TRY(Under("/rerank", CheckKnown(request.rerank())));
      JsonValue rerank = Object();
      if (request.rerank().has_candidates()) Add("candidates", JsonValue(request.rerank().candidates()), &rerank);
      Add("rerank", std::move(rerank), root);
    }
    if (request.explain()) Add("explain", JsonValue(true), root);
    return Status::Ok();
  }

  Status Score(const v1::ScoreRequest& request, JsonValue* root) {
    FRESHET_TRY(CheckKnown(request));
    FRESHET_TRY(Target(request, root));
    Add("ids", Texts(request.ids()), root);
    if (request.rerank()) Add("rerank", JsonValue(true), root);
    return Status::Ok();
  }

 private:
  // JSON has no others, so nobody asks later.
  static Status Number(double number, JsonValue* out) {
    if (!std::isfinite(number)) return Wrong("must be a finite number");
    *out = JsonValue(number);
    return Status::Ok();
  }

  Status User(const v1::UserTarget& user, JsonValue* root) {
    FRESHET_TRY(CheckKnown(user));
    JsonValue object = Object();
    if (user.has_id()) Add("id", Text(user.id()), &object);
    if (user.has_features()) {
      FRESHET_TRY(Under("/features", CheckKnown(user.features())));
      JsonValue features = Object();
      for (const auto& [name, value] : user.features().values()) {
        JsonValue feature;
        FRESHET_TRY(Under("/features", Feature(value, &feature)));
        Add(name, std::move(feature), &features);
      }
      Add("features", std::move(features), &object);
    }
    if (user.has_history()) {
      FRESHET_TRY(Under("/history", CheckKnown(user.history())));
      JsonValue history = Array();
      for (const v1::HistoryEntry& entry : user.history().entries()) {
        FRESHET_TRY(Under("/history", CheckKnown(entry)));
        JsonValue one = Object();
        Add("item_id", Text(entry.item_id()), &one);
        if (entry.has_event()) Add("event", Text(entry.event()), &one);
        if (entry.has_value()) Add("value", JsonValue(entry.value()), &one);
        if (entry.has_timestamp()) Add("timestamp", JsonValue(entry.timestamp()), &one);
        Push(std::move(one), &history);
      }
      Add("history", std::move(history), &object);
    }
    Add("user", std::move(object), root);
    return Status::Ok();
  }

  Status Feature(const v1::FeatureValue& value, JsonValue* out) {
    FRESHET_TRY(CheckKnown(value));
    switch (value.kind_case()) {
      case v1::FeatureValue::kNumber:
        return Number(value.number(), out);
      case v1::FeatureValue::kText:
        *out = Text(value.text());
        return Status::Ok();
      case v1::FeatureValue::kTexts:
        *out = Texts(value.texts().values());
        return CheckKnown(value.texts());
      case v1::FeatureValue::kFlag:
        *out = JsonValue(value.flag());
        return Status::Ok();
      case v1::FeatureValue::KIND_NOT_SET:
        break;
    }
    return Wrong("a value is not set");
  }

  Status Weights(const v1::Weights& weights, JsonValue* root) {
    FRESHET_TRY(CheckKnown(weights));
    JsonValue object = Object();
    if (weights.has_similarity()) Add("similarity", JsonValue(weights.similarity()), &object);
    if (weights.has_popularity()) Add("popularity", JsonValue(weights.popularity()), &object);
    if (weights.has_recency()) Add("recency", JsonValue(weights.recency()), &object);
    if (weights.has_recency_of()) Add("recency_of", Text(weights.recency_of()), &object);
    if (weights.has_half_life_hours()) Add("half_life_hours", JsonValue(weights.half_life_hours()), &object);
    Add("weights", std::move(object), root);
    return Status::Ok();
  }

  // As deep as protocol buffers let a message be, which is 100.
  Status Filter(const v1::Filter& filter, JsonValue* out) {
    FRESHET_TRY(CheckKnown(filter));
    FRESHET_TRY(Filters("must", filter.must(), out));
    FRESHET_TRY(Filters("should", filter.should(), out));
    FRESHET_TRY(Filters("must_not", filter.must_not(), out));
    if (filter.has_key()) Add("key", Text(filter.key()), out);
    JsonValue value;
    switch (filter.test_case()) {
      case v1::Filter::kMatch:
        FRESHET_TRY(Under("/match", Value(filter.match(), &value)));
        Add("match", std::move(value), out);
        break;
      case v1::Filter::kAny: {
        FRESHET_TRY(Under("/any", CheckKnown(filter.any())));
        JsonValue any = Array();
        for (const v1::Value& one : filter.any().values()) {
          FRESHET_TRY(Under("/any", Value(one, &value)));
          Push(std::move(value), &any);
        }
        Add("any", std::move(any), out);
        break;
      }
      case v1::Filter::kRange: {
        JsonValue range = Object();
        FRESHET_TRY(Under("/range", Range(filter.range(), &range)));
        Add("range", std::move(range), out);
        break;
      }
      case v1::Filter::kPrefix:
        Add("prefix", Text(filter.prefix()), out);
        break;
      case v1::Filter::kExists:
        Add("exists", JsonValue(filter.exists()), out);
        break;
      case v1::Filter::TEST_NOT_SET:
        break;
    }
    return Status::Ok();
  }

  template <typename List>
  Status Filters(const char* name, const List& filters, JsonValue* out) {
    if (filters.empty()) return Status::Ok();
    JsonValue array = Array();
    for (int i = 0; i < filters.size(); ++i) {
      JsonValue one = Object();
      if (const Status read = Filter(filters[i], &one); !read.ok()) return Under(StrCat("/", name, "/", i), read);
      Push(std::move(one), &array);
    }
    Add(name, std::move(array), out);
    return Status::Ok();
  }

  Status Range(const v1::Range& range, JsonValue* out) {
    FRESHET_TRY(CheckKnown(range));
    const auto bound = [&](const char* name, bool given, const v1::Value& value) -> Status {
      if (!given) return Status::Ok();
      JsonValue read;
      if (const Status status = Value(value, &read); !status.ok()) return Under(StrCat("/", name), status);
      Add(name, std::move(read), out);
      return Status::Ok();
    };
    FRESHET_TRY(bound("gt", range.has_gt(), range.gt()));
    FRESHET_TRY(bound("gte", range.has_gte(), range.gte()));
    FRESHET_TRY(bound("lt", range.has_lt(), range.lt()));
    return bound("lte", range.has_lte(), range.lte());
  }

  static Status Value(const v1::Value& value, JsonValue* out) {
    FRESHET_TRY(CheckKnown(value));
    switch (value.kind_case()) {
      case v1::Value::kText:
        *out = Text(value.text());
        return Status::Ok();
      case v1::Value::kInteger:
        *out = JsonValue(value.integer());
        return Status::Ok();
      case v1::Value::kNumber:
        return Number(value.number(), out);
      case v1::Value::kFlag:
        *out = JsonValue(value.flag());
        return Status::Ok();
      case v1::Value::KIND_NOT_SET:
        break;
    }
    return Wrong("the value is not set");
  }

  JsonDocument::AllocatorType& memory_;
};

// A message, and the tree that refers to it.
template <typename Message>
class Body {
 public:
  Status Parse(std::string_view bytes) {
    if (message_->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Status::Ok();
    return InvalidArgument(StrCat("the bytes are not a ", message_->GetTypeName(), ", or a text in it is not UTF-8"));
  }
  [[nodiscard]] const Message& message() const { return *message_; }
  // Makes the tree by `fill(tree, root)`, and reads that.
  template <typename Fill, typename Read>
  auto ReadTree(const Fill& fill, const Read& read) -> decltype(read(std::declval<const JsonValue&>())) {
    JsonDocument document;
    Tree tree(&document);
    document.SetObject();
    if (const Status filled = Whole(fill(&tree, &document)); !filled.ok()) return filled;
    return read(document);
  }

 private:
  google::protobuf::Arena arena_;
  Message* const message_ = google::protobuf::Arena::CreateMessage<Message>(&arena_);
};

template <typename Message>
Result<std::string> ReadId(std::string_view bytes) {
  Body<Message> body;
  FRESHET_TRY(body.Parse(bytes));
  FRESHET_TRY(Whole(CheckKnown(body.message())));
  return body.message().id();
}

}  // namespace

Result<RecallRequest> ReadRecallMessage(std::string_view bytes) {
  Body<v1::RecallRequest> body;
  FRESHET_TRY(body.Parse(bytes));
  return body.ReadTree([&](Tree* tree, JsonValue* root) { return tree->Recall(body.message(), root); },
                       [](const JsonValue& root) { return ReadRecallRequest(root); });
}

Result<std::vector<Result<RecallRequest>>> ReadBatchMessage(std::string_view bytes) {
  Body<v1::RecallBatchRequest> body;
  FRESHET_TRY(body.Parse(bytes));
  FRESHET_TRY(Whole(CheckKnown(body.message())));
  if (body.message().requests().empty() || body.message().requests_size() > static_cast<int>(kMaxBatch)) {
    return InvalidArgument(StrCat("/requests: must be an array of 1 to ", kMaxBatch, " recall requests"));
  }
  std::vector<Result<RecallRequest>> requests;
  requests.reserve(kMaxBatch);
  for (const v1::RecallRequest& one : body.message().requests()) {
    requests.push_back(body.ReadTree([&](Tree* tree, JsonValue* root) { return tree->Recall(one, root); },
                                     [](const JsonValue& root) { return ReadRecallRequest(root); }));
  }
  return requests;
}

Result<ScoreRequest> ReadScoreMessage(std::string_view bytes) {
  Body<v1::ScoreRequest> body;
  FRESHET_TRY(body.Parse(bytes));
  return body.ReadTree([&](Tree* tree, JsonValue* root) { return tree->Score(body.message(), root); },
                       [](const JsonValue& root) { return ReadScoreRequest(root); });
}

Result<std::string> ReadItemMessage(std::string_view bytes) { return ReadId<v1::GetItemRequest>(bytes); }

Result<std::string> ReadUserMessage(std::string_view bytes) { return ReadId<v1::GetUserRequest>(bytes); }

Status ReadStatusMessage(std::string_view bytes) {
  Body<v1::StatusRequest> body;
  FRESHET_TRY(body.Parse(bytes));
  return Whole(CheckKnown(body.message()));
}

}  // namespace freshet
