#include "freshet/core/json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

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
  // RapidJSON 1.1 reads a zero with an exponent as something else ("0e44" as -1.5e-272), so the numbers are ours to
  // read. Its grammar has let only JSON numbers through. What no double can hold ends the parsing.
  bool RawNumber(const char* s, rapidjson::SizeType n, bool /*copy*/) {
    const std::string_view text(s, n);
    if (text.find_first_of(".eE") == std::string_view::npos) {
      std::int64_t negative = 0;
      std::uint64_t positive = 0;
      if (text[0] == '-' ? Reads(text, &negative) && negative != 0 : Reads(text, &positive)) {
        return text[0] == '-' ? document_->Int64(negative) : document_->Uint64(positive);
      }
    }
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range) {
      if (!IsTiny(text)) return number_out_of_range_ = true, false;
      value = text[0] == '-' ? -0.0 : 0.0;
    }
    return document_->Double(value);
  }
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

  [[nodiscard]] bool number_out_of_range() const { return number_out_of_range_; }

 private:
  template <typename Integer>
  static bool Reads(std::string_view text, Integer* value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
    return error == std::errc() && end == text.data() + text.size();
  }
  // Out of a double's range on the small side: a negative exponent, or nothing but zeros before the point.
  static bool IsTiny(std::string_view text) {
    const std::size_t exponent = text.find_first_of("eE");
    if (exponent != std::string_view::npos) return text[exponent + 1] == '-';
    return text.rfind("0.", 0) == 0 || text.rfind("-0.", 0) == 0;
  }

  JsonDocument* document_;
  int max_depth_;
  int depth_ = 0;
  bool number_out_of_range_ = false;
};

// Not the encoding: it is checked before, in one go.
constexpr unsigned kParseFlags = rapidjson::kParseInsituFlag | rapidjson::kParseNumbersAsStringsFlag;
// Sixteen bytes at a time may look beyond the end, never beyond these.
constexpr std::size_t kPadding = 32;

// Document::Populate wants a generator; this one reads text and reports how the reading went.
struct Generator {
  char* text;  // ends with a zero byte; becomes the document's texts
  std::size_t size;
  int max_depth;
  rapidjson::ParseResult result;
  bool number_out_of_range = false;
  bool operator()(JsonDocument& document) {
    DepthLimiter limiter(&document, max_depth);
    rapidjson::InsituStringStream stream(text);
    rapidjson::Reader reader;
    result = reader.Parse<kParseFlags>(stream, limiter);
    number_out_of_range = limiter.number_out_of_range();
    // A zero byte ends the reading wherever it stands.
    if (!result.IsError() && stream.Tell() != size) {
      result.Set(rapidjson::kParseErrorDocumentRootNotSingular, stream.Tell());
    }
    return !result.IsError();
  }
};

// RapidJSON 1.1, sixteen bytes at a time, takes 0x1A to 0x1F for part of a text. JSON has no bytes of 0x18 to 0x1F at
// all.
bool HasControls(std::string_view text) {
  bool found = false;
  for (const char c : text) found |= (c & 0xF8) == 0x18;
  return found;
}

// Its writer of StringBuffer has the same fault, and would let those bytes through as they are: this one looks at each
// byte, because it is of another type.
struct WriterMemory : rapidjson::CrtAllocator {};
using BytewiseWriter = rapidjson::Writer<rapidjson::StringBuffer, rapidjson::UTF8<>, rapidjson::UTF8<>, WriterMemory>;

std::string QuoteBytewise(std::string_view text) {
  rapidjson::StringBuffer buffer;
  BytewiseWriter writer(buffer);
  writer.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
  return {buffer.GetString(), buffer.GetSize()};
}

}  // namespace

Result<std::unique_ptr<JsonDocument>> internal::ParseJsonIn(std::string_view text, int max_depth,
                                                            rapidjson::MemoryPoolAllocator<>* pool) {
  if (text.empty()) return InvalidArgument("JSON is empty");
  if (!IsValidUtf8(text)) return InvalidArgument("JSON is not UTF-8");
  if (HasControls(text)) return InvalidArgument("JSON has control characters");
  auto document = std::make_unique<JsonDocument>(pool);
  char* const copy = static_cast<char*>(document->GetAllocator().Malloc(text.size() + kPadding));
  std::memcpy(copy, text.data(), text.size());
  std::memset(copy + text.size(), 0, kPadding);
  Generator generator{copy, text.size(), std::min(max_depth, kJsonDepthBound), {}, false};
  document->Populate(generator);
  if (generator.result.IsError()) {
    const char* reason = generator.result.Code() == rapidjson::kParseErrorTermination
                             ? (generator.number_out_of_range ? "number out of range" : "nested deeper than allowed")
                             : rapidjson::GetParseError_En(generator.result.Code());
    return InvalidArgument(StrCat("JSON at byte ", generator.result.Offset(), ": ", reason));
  }
  return document;
}

Result<std::unique_ptr<JsonDocument>> ParseJson(std::string_view text, int max_depth) {
  return internal::ParseJsonIn(text, max_depth, nullptr);
}

std::string JsonQuote(std::string_view text) {
  JsonWriter writer;
  writer.String(text);
  return writer.Take();
}

std::string ToJson(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  BytewiseWriter writer(buffer);
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
  if (HasControls(key)) {
    const std::string quoted = QuoteBytewise(key);
    writer_.RawValue(quoted.data(), quoted.size(), rapidjson::kStringType);
    return *this;
  }
  writer_.Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
  return *this;
}
JsonWriter& JsonWriter::String(std::string_view value) {
  if (HasControls(value)) {
    const std::string quoted = QuoteBytewise(value);
    writer_.RawValue(quoted.data(), quoted.size(), rapidjson::kStringType);
    return *this;
  }
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
