// The hot path of JSON: simdjson reads, its tree becomes the one that everybody knows. This file alone names simdjson.
#include "freshet/core/json.h"

#ifdef FRESHET_SIMDJSON
#include <simdjson.h>
#endif

#include <algorithm>
#include <cstring>

namespace freshet {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{32} << 10;  // of the tree; more is taken where needed, and given back

#ifdef FRESHET_SIMDJSON
// simdjson keeps about fourteen times the longest text it has read. Longer ones go the other way.
constexpr std::size_t kMaxFastBytes = std::size_t{64} << 10;

// A whole -0 is a double for us and a plain zero for simdjson. Dates ("2026-01-05") are no match.
bool MayHoldMinusZero(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  while ((at = static_cast<const char*>(std::memchr(at, '-', static_cast<std::size_t>(end - at)))) != nullptr) {
    ++at;
    if (end - at < 2) return at < end;  // cut off: not worth a thought
    if (at[0] == '0' && std::strchr(",]} \t\r\n", at[1]) != nullptr) return true;
  }
  return false;
}

// A zero with an exponent that no double has, 0e309, is refused by the careful reader.
bool MayHoldLargeExponent(std::string_view text) {
  for (std::size_t at = text.find_first_of("eE"); at != std::string_view::npos; at = text.find_first_of("eE", at + 1)) {
    const std::string_view digits = text.substr(at + (text.substr(at + 1, 1) == "+" ? 2 : 1), 3);
    if (digits.size() == 3 && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return true;
    }
  }
  return false;
}

// Copies simdjson's tree; its texts stay where they are. False: deeper than allowed.
class TreeBuilder {
 public:
  TreeBuilder(rapidjson::MemoryPoolAllocator<>* pool, int max_depth) : pool_(*pool), max_depth_(max_depth) {}

  [[nodiscard]] bool met_zero() const { return met_zero_; }  // as a double

  bool Build(simdjson::dom::element from, int depth, JsonValue* to) {
    using Type = simdjson::dom::element_type;
    switch (from.type()) {
      case Type::OBJECT: {
        if (depth >= max_depth_) return false;
        const simdjson::dom::object object = from.get_object().value_unsafe();
        to->SetObject();
        for (const simdjson::dom::key_value_pair member : object) {
          JsonValue value;
          if (!Build(member.value, depth + 1, &value)) return false;
          JsonValue name(Text(member.key));
          to->AddMember(name, value, pool_);
        }
        return true;
      }
      case Type::ARRAY: {
        if (depth >= max_depth_) return false;
        const simdjson::dom::array array = from.get_array().value_unsafe();
        to->SetArray().Reserve(static_cast<rapidjson::SizeType>(array.size()), pool_);
        for (const simdjson::dom::element entry : array) {
          JsonValue value;
          if (!Build(entry, depth + 1, &value)) return false;
          to->PushBack(value, pool_);
        }
        return true;
      }
      case Type::STRING:
        to->SetString(Text(from.get_string().value_unsafe()));
        return true;
      case Type::INT64:
        to->SetInt64(from.get_int64().value_unsafe());
        return true;
      case Type::UINT64:
        to->SetUint64(from.get_uint64().value_unsafe());
        return true;
      case Type::DOUBLE:
        to->SetDouble(from.get_double().value_unsafe());
        met_zero_ |= to->GetDouble() == 0;
        return true;
      case Type::BOOL:
        to->SetBool(from.get_bool().value_unsafe());
        return true;
      case Type::NULL_VALUE:
        to->SetNull();
        return true;
    }
    return false;
  }

 private:
  static JsonValue::StringRefType Text(std::string_view text) {
    return {text.data(), static_cast<rapidjson::SizeType>(text.size())};
  }

  rapidjson::MemoryPoolAllocator<>& pool_;
  const int max_depth_;
  bool met_zero_ = false;
};
#endif

}  // namespace

struct JsonArena::Impl {
  std::unique_ptr<char[]> block{new char[kBlockBytes]};
  rapidjson::MemoryPoolAllocator<> pool{block.get(), kBlockBytes};
#ifdef FRESHET_SIMDJSON
  simdjson::dom::parser parser{kMaxFastBytes};
#endif
};

JsonArena::JsonArena() : impl_(std::make_unique<Impl>()) {}
JsonArena::~JsonArena() = default;

Result<std::unique_ptr<JsonDocument>> JsonArena::Parse(std::string_view text, int max_depth) {
  impl_->pool.Clear();
#ifdef FRESHET_SIMDJSON
  // Whatever it does not take, and what we understand otherwise, is read by the careful reader, which has the last word
  // and says what is wrong and where.
  if (text.size() <= kMaxFastBytes && !MayHoldMinusZero(text)) {
    simdjson::dom::element root;
    if (impl_->parser.parse(text.data(), text.size(), /*realloc_if_needed=*/true).get(root) == simdjson::SUCCESS) {
      auto document = std::make_unique<JsonDocument>(&impl_->pool);
      JsonValue tree;
      TreeBuilder builder(&impl_->pool, std::min(max_depth, kJsonDepthBound));
      if (builder.Build(root, 0, &tree) && !(builder.met_zero() && MayHoldLargeExponent(text))) {
        static_cast<JsonValue&>(*document) = tree;  // moves
        return document;
      }
    }
    impl_->pool.Clear();
  }
#endif
  return internal::ParseJsonIn(text, max_depth, &impl_->pool);
}

}  // namespace freshet
