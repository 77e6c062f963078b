#include "freshet/core/json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <cmath>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

// Passes parse events on to the document and stops at the depth bound.
class DepthLimiter {
 public:
  DepthLimiter(JsonDocument* document, int max_depth) : document_(document), max_depth_(max_depth) {}
  using Ch = char;
  bool Null() { return document_->Null(); }
  bool Bool(bool v) { return document_->Bool(v); }
  bool Int(int v) { return document_->Int(v); }
  bool Uint(unsigned v) { return document_->Uint(v); }
  bool Int64(std::int64_t v) { return document_->Int64(v); }
  bool Uint64(std::uint64_t v) { return document_->Uint64(v); }
  bool Double(double v) { return document_->Double(v); }
  bool RawNumber(const char* s, rapidjson::SizeType n, bool c) { return document_->RawNumber(s, n, c); }
  bool String(const char* s, rapidjson::SizeType n, bool c) { return document_->String(s, n, c); }
  bool Key(const char* s, rapidjson::SizeType n, bool c) { return document_->Key(s, n, c); }
  bool StartObject() { return ++depth_ <= max_depth_ && document_->StartObject(); }
  bool StartArray() { return ++depth_ <= max_depth_ && document_->StartArray(); }
  bool EndObject(rapidjson::SizeType n) {
    --depth_;
    return document_->EndObject(n);
  }
  bool EndArray(rapidjson::SizeType n) {
    --depth_;
    return document_->EndArray(n);
  }

 private:
  JsonDocument* document_;
  int max_depth_;
  int depth_ = 0;
};

constexpr unsigned kParseFlags =
    rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag | rapidjson::kParseFullPrecisionFlag;

// Document::Populate wants a generator; this one reads text and reports how the reading went.
struct Generator {
  std::string_view text;
  int max_depth;
  rapidjson::ParseResult result;
  bool operator()(JsonDocument& document) {
    DepthLimiter limiter(&document, max_depth);
    rapidjson::MemoryStream memory(text.data(), text.size());
    rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> stream(memory);
    rapidjson::Reader reader;
    result = reader.Parse<kParseFlags>(stream, limiter);
    return !result.IsError();
  }
};

}  // namespace

Result<std::unique_ptr<JsonDocument>> ParseJson(std::string_view text, int max_depth) {
  if (text.empty()) return InvalidArgument("JSON is empty");
  auto document = std::make_unique<JsonDocument>();
  Generator generator{text, max_depth, {}};
  document->Populate(generator);
  if (generator.result.IsError()) {
    const char* reason = generator.result.Code() == rapidjson::kParseErrorTermination
                             ? "nested deeper than allowed"
                             : rapidjson::GetParseError_En(generator.result.Code());
    return InvalidArgument(StrCat("JSON at byte ", generator.result.Offset(), ": ", reason));
  }
  return document;
}

std::string JsonQuote(std::string_view text) {
  JsonWriter writer;
  writer.String(text);
  return writer.Take();
}

std::string ToJson(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  value.Accept(writer);
  return {buffer.GetString(), buffer.GetSize()};
}

const JsonValue* JsonFind(const JsonValue& object, std::string_view key) {
  if (!object.IsObject()) return nullptr;
  const auto it =
      object.FindMember(JsonValue(rapidjson::StringRef(key.data(), static_cast<rapidjson::SizeType>(key.size()))));
  return it == object.MemberEnd() ? nullptr : &it->value;
}

JsonWriter& JsonWriter::BeginObject() {
  writer_.StartObject();
  return *this;
}
JsonWriter& JsonWriter::EndObject() {
  writer_.EndObject();
  return *this;
}
JsonWriter& JsonWriter::BeginArray() {
  writer_.StartArray();
  return *this;
}
JsonWriter& JsonWriter::EndArray() {
  writer_.EndArray();
  return *this;
}
JsonWriter& JsonWriter::Key(std::string_view key) {
  writer_.Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
  return *this;
}
JsonWriter& JsonWriter::String(std::string_view value) {
  writer_.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
  return *this;
}
JsonWriter& JsonWriter::Int(std::int64_t value) {
  writer_.Int64(value);
  return *this;
}
JsonWriter& JsonWriter::Uint(std::uint64_t value) {
  writer_.Uint64(value);
  return *this;
}
JsonWriter& JsonWriter::Double(double value) {
  if (std::isfinite(value)) {
    writer_.Double(value);
  } else {
    writer_.Null();
  }
  return *this;
}
JsonWriter& JsonWriter::Bool(bool value) {
  writer_.Bool(value);
  return *this;
}
JsonWriter& JsonWriter::Null() {
  writer_.Null();
  return *this;
}
JsonWriter& JsonWriter::Raw(std::string_view json) {
  writer_.RawValue(json.data(), json.size(), rapidjson::kObjectType);
  return *this;
}
std::string JsonWriter::Take() { return {buffer_.GetString(), buffer_.GetSize()}; }

}  // namespace freshet
