#include "body_codec.h"

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_binary.h"
#include "request_json.h"

namespace freshet {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// RFC 3986 percent-decoding of one path segment.
Result<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
    if (high < 0 || low < 0) return InvalidArgument("the id in the path is not percent-encoded rightly");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

class Json : public BodyCodec {
 public:
  [[nodiscard]] Result<RecallRequest> ReadRecall(std::string_view body) const override {
    return ParseRecallRequest(body);
  }
  [[nodiscard]] Result<std::vector<Result<RecallRequest>>> ReadBatch(std::string_view body) const override {
    FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(body, kMaxJsonDepth + 2));
    FRESHET_TRY(CheckFields(*document, "", {"requests"}));
    const JsonValue* requests = JsonFind(*document, "requests");
    if (requests == nullptr || !requests->IsArray() || requests->Empty() || requests->Size() > kMaxBatch) {
      return Wrong("/requests", StrCat("must be an array of 1 to ", kMaxBatch, " recall requests"));
    }
    std::vector<Result<RecallRequest>> read;
    read.reserve(requests->Size());
    for (const JsonValue& one : requests->GetArray()) read.push_back(ReadRecallRequest(one));
    return read;
  }
  [[nodiscard]] Result<ScoreRequest> ReadScore(std::string_view body) const override { return ReadScoreRequest(body); }
  [[nodiscard]] Result<std::string> ReadItemId(std::string_view segment, std::string_view /*body*/) const override {
    return PercentDecode(segment);
  }
  [[nodiscard]] Result<std::string> ReadUserId(std::string_view segment, std::string_view /*body*/) const override {
    return PercentDecode(segment);
  }
  [[nodiscard]] Status ReadNothing(std::string_view /*body*/) const override { return Status::Ok(); }

  [[nodiscard]] HttpAnswer Recall(const RecallResponse& response) const override {
    return JsonAnswer(200, RecallResponseToJson(response));
  }
  [[nodiscard]] HttpAnswer Batch(std::vector<std::optional<HttpAnswer>>* answers, std::size_t bytes) const override {
    // Appended one after the other, each freed then: these may be many megabytes.
    constexpr std::size_t kAround = 32;  // status, names and braces of one
    std::string body = R"({"responses":[)";
    body.reserve(bytes + kAround * answers->size() + kAround);
    for (std::optional<HttpAnswer>& one : *answers) {
      if (body.back() != '[') body += ',';
      body += StrCat(R"({"status":)", one->status, one->status == 200 ? R"(,"answer":)" : R"(,"problem":)");
      body += one->body;
      body += '}';
      one.reset();
    }
    return JsonAnswer(200, body + "]}");
  }
  [[nodiscard]] HttpAnswer Score(const ScoreResponse& response) const override {
    return JsonAnswer(200, ScoreResponseToJson(response));
  }
  [[nodiscard]] HttpAnswer Item(const ItemView& item) const override { return JsonAnswer(200, ItemViewToJson(item)); }
  [[nodiscard]] HttpAnswer User(const UserView& user) const override { return JsonAnswer(200, UserViewToJson(user)); }
  [[nodiscard]] HttpAnswer Report(std::string json) const override { return JsonAnswer(200, std::move(json)); }
};

class Binary final : public Json {
 public:
  [[nodiscard]] Result<RecallRequest> ReadRecall(std::string_view body) const override {
    return DecodeBinaryRequest(body);
  }
  [[nodiscard]] HttpAnswer Recall(const RecallResponse& response) const override {
    return {200, std::string(kBinaryRecallType), EncodeBinaryAnswer(response), "", 0};
  }
};

}  // namespace

const BodyCodec& JsonCodec() {
  static const Json codec;
  return codec;
}

const BodyCodec& BinaryCodec() {
  static const Binary codec;
  return codec;
}

}  // namespace freshet
