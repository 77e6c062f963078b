// Answers as messages of gRPC, and the codec itself.
#include <google/protobuf/arena.h>
#include <google/protobuf/unknown_field_set.h>

#include <type_traits>
#include <utility>

#include "freshet/v1/recall.pb.h"
#include "grpc_codec.h"
#include "grpc_status.h"

namespace freshet {
namespace {

template <typename Message>
HttpAnswer MessageAnswer(const Message& message) {
  HttpAnswer answer;
  answer.content_type = "application/grpc";
  message.SerializeToString(&answer.body);
  return answer;
}

// One message that is thrown away with all that it holds.
template <typename Message>
class Scratch {
 public:
  Message* operator->() { return message_; }
  Message* get() { return message_; }
  [[nodiscard]] HttpAnswer Answer() const { return MessageAnswer(*message_); }

 private:
  google::protobuf::Arena arena_;
  Message* const message_ = google::protobuf::Arena::CreateMessage<Message>(&arena_);
};

template <typename List, typename Values>
void AddAll(const Values& values, List* list) {
  for (const auto& value : values) list->add_values(value);
}

void Fill(const AttributeValue& value, v1::AttributeValue* out) {
  std::visit(
      [out](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, bool>) {
          out->set_flag(v);
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          out->set_integer(v);
        } else if constexpr (std::is_same_v<T, double>) {
          out->set_number(v);
        } else if constexpr (std::is_same_v<T, std::string>) {
          out->set_text(v);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          AddAll(v, out->mutable_texts());
        } else if constexpr (std::is_same_v<T, std::vector<bool>>) {
          AddAll(v, out->mutable_flags());
        } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
          AddAll(v, out->mutable_integers());
        } else {
          static_assert(std::is_same_v<T, std::vector<double>>);
          AddAll(v, out->mutable_numbers());
        }
      },
      value);
}

template <typename Map>
void Fill(const Attributes& attributes, Map* out) {
  for (const auto& [name, value] : attributes) Fill(value, &(*out)[name]);
}

void Fill(const FeatureValue& value, v1::FeatureValue* out) {
  if (const auto* number = std::get_if<double>(&value)) out->set_number(*number);
  if (const auto* text = std::get_if<std::string>(&value)) out->set_text(*text);
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) AddAll(*texts, out->mutable_texts());
}

void Fill(const Explanation& explanation, v1::Explanation* out) {
  out->set_path(explanation.path);
  out->set_live(explanation.live);
  out->set_matching(explanation.matching);
  out->set_candidates(explanation.candidates);
  out->set_searches(explanation.searches);
  if (explanation.reranked) out->set_reranked(*explanation.reranked);
  for (const auto& [stage, ms] : explanation.stage_ms) (*out->mutable_stage_ms())[stage] = ms;
}

void Fill(const RecallResponse& response, v1::RecallResponse* out) {
  out->mutable_results()->Reserve(static_cast<int>(response.results.size()));
  for (const RecallHit& hit : response.results) {
    v1::Hit* one = out->add_results();
    one->set_id(hit.id);
    one->set_score(hit.score);
    Fill(hit.attributes, one->mutable_attributes());
    if (hit.parts) {
      one->mutable_parts()->set_similarity(hit.parts->similarity);
      one->mutable_parts()->set_popularity(hit.parts->popularity);
      one->mutable_parts()->set_recency(hit.parts->recency);
    }
    if (hit.similarity) one->set_similarity(*hit.similarity);
  }
  out->set_index_version(response.index_version);
  out->set_model_version(response.model_version);
  if (response.as_of_ms > 0) out->set_as_of_ms(response.as_of_ms);
  out->set_took_ms(response.took_ms);
  out->set_degraded(response.degraded);
  if (response.explanation) Fill(*response.explanation, out->mutable_explain());
}

void Fill(const HttpAnswer& answer, v1::Problem* out) {
  out->set_code(static_cast<int>(GrpcCodeOf(answer.status)));
  out->set_type(answer.problem->type);
  out->set_title(answer.problem->title);
  out->set_detail(answer.problem->detail);
  out->set_pointer(answer.problem->pointer);
}

class Grpc final : public BodyCodec {
 public:
  [[nodiscard]] Result<RecallRequest> ReadRecall(std::string_view body) const override {
    return ReadRecallMessage(body);
  }
  [[nodiscard]] Result<std::vector<Result<RecallRequest>>> ReadBatch(std::string_view body) const override {
    return ReadBatchMessage(body);
  }
  [[nodiscard]] Result<ScoreRequest> ReadScore(std::string_view body) const override { return ReadScoreMessage(body); }
  [[nodiscard]] Result<std::string> ReadItemId(std::string_view /*segment*/, std::string_view body) const override {
    return ReadItemMessage(body);
  }
  [[nodiscard]] Result<std::string> ReadUserId(std::string_view /*segment*/, std::string_view body) const override {
    return ReadUserMessage(body);
  }
  [[nodiscard]] Status ReadNothing(std::string_view body) const override { return ReadStatusMessage(body); }

  [[nodiscard]] HttpAnswer Recall(const RecallResponse& response) const override {
    Scratch<v1::RecallResponse> message;
    Fill(response, message.get());
    return message.Answer();
  }
  [[nodiscard]] HttpAnswer Batch(std::vector<std::optional<HttpAnswer>>* answers,
                                 std::size_t /*bytes*/) const override {
    v1::RecallBatchResponse message;
    for (std::optional<HttpAnswer>& one : *answers) {
      v1::BatchEntry* entry = message.add_responses();
      if (one->problem != nullptr) {
        Fill(*one, entry->mutable_problem());
      } else {
        // The answer is bytes of that field already, which as a field that nobody knows are written as they are.
        *entry->GetReflection()->MutableUnknownFields(entry)->AddLengthDelimited(v1::BatchEntry::kAnswerFieldNumber) =
            std::move(one->body);
      }
      one.reset();
    }
    return MessageAnswer(message);
  }
  [[nodiscard]] HttpAnswer Score(const ScoreResponse& response) const override {
    Scratch<v1::ScoreResponse> message;
    Fill(response.answer, message->mutable_answer());
    for (const std::string& id : response.unknown) message->add_unknown(id);
    return message.Answer();
  }
  [[nodiscard]] HttpAnswer Item(const ItemView& item) const override {
    Scratch<v1::Item> message;
    message->set_id(item.id);
    message->set_live(item.live);
    message->set_not_live(item.not_live);
    message->set_sequence(item.sequence);
    if (item.changed_ms) message->set_changed_ms(*item.changed_ms);
    Fill(item.attributes, message->mutable_attributes());
    if (item.vector) message->mutable_vector()->Assign(item.vector->begin(), item.vector->end());
    message->set_index_version(item.index_version);
    return message.Answer();
  }
  [[nodiscard]] HttpAnswer User(const UserView& user) const override {
    Scratch<v1::User> message;
    message->set_id(user.id);
    for (const auto& [name, value] : user.state.features) Fill(value, &(*message->mutable_features())[name]);
    for (const HistoryEntry& entry : user.state.history) {
      v1::HistoryEntry* one = message->add_history();
      one->set_item_id(entry.item_id);
      one->set_event(entry.event);
      one->set_value(entry.value);
      one->set_timestamp(entry.timestamp_ms);
    }
    for (const std::string& id : user.state.seen) message->add_seen(id);
    message->set_index_version(user.index_version);
    return message.Answer();
  }
  [[nodiscard]] HttpAnswer Report(std::string json) const override {
    v1::StatusResponse message;
    message.set_json(std::move(json));
    return MessageAnswer(message);
  }
};

}  // namespace

const BodyCodec& GrpcCodec() {
  static const Grpc codec;
  return codec;
}

}  // namespace freshet
