#include "avro_schema.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

using Allocator = JsonDocument::AllocatorType;

constexpr int kMaxSchemaDepth = 64;
constexpr std::size_t kMaxValues = std::size_t{1}
                                   << 18;  // of one record: an item of no bytes costs memory all the same

enum class Kind {
  kNull,
  kBoolean,
  kInt,
  kLong,
  kFloat,
  kDouble,
  kBytes,
  kString,
  kRecord,
  kEnum,
  kArray,
  kMap,
  kUnion,
  kFixed
};

struct Type {
  Kind kind = Kind::kNull;
  std::vector<std::string> names;  // of a record's fields, of an enum's symbols
  std::vector<std::size_t> parts;  // types of fields, of branches, of what an array or a map holds
  std::size_t size = 0;            // of a fixed
  std::optional<int> scale;        // of a decimal
};

const std::map<std::string, Kind, std::less<>> kPrimitives = {
    {"null", Kind::kNull},   {"boolean", Kind::kBoolean}, {"int", Kind::kInt},     {"long", Kind::kLong},
    {"float", Kind::kFloat}, {"double", Kind::kDouble},   {"bytes", Kind::kBytes}, {"string", Kind::kString}};

class Compiler {
 public:
  explicit Compiler(std::vector<Type>* types) : types_(types) {}

  Result<std::size_t> Compile(const JsonValue& schema, const std::string& space, int depth) {
    if (depth > kMaxSchemaDepth) return InvalidArgument("the Avro schema is nested too deeply");
    if (schema.IsString()) return Named(std::string(JsonText(schema)), space);
    if (schema.IsArray()) {
      const std::size_t index = Add(Kind::kUnion);
      for (const JsonValue& branch : schema.GetArray()) {
        FRESHET_ASSIGN(const std::size_t part, Compile(branch, space, depth + 1));
        (*types_)[index].parts.push_back(part);
      }
      return index;
    }
    const JsonValue* type = JsonFind(schema, "type");
    if (type == nullptr) return InvalidArgument("the Avro schema has a part without type");
    if (!type->IsString()) return Compile(*type, space, depth + 1);
    const std::string_view kind = JsonText(*type);
    if (kind == "record" || kind == "error") return Record(schema, space, depth);
    if (kind == "enum") return Enum(schema, space);
    if (kind == "fixed") return Fixed(schema, space);
    if (kind == "array") return Holder(Kind::kArray, schema, "items", space, depth);
    if (kind == "map") return Holder(Kind::kMap, schema, "values", space, depth);
    FRESHET_ASSIGN(const std::size_t index, Named(std::string(kind), space));
    if ((*types_)[index].kind == Kind::kBytes) SetDecimal(schema, index);
    return index;
  }

 private:
  std::size_t Add(Kind kind) {
    types_->emplace_back().kind = kind;
    return types_->size() - 1;
  }

  Result<std::size_t> Named(const std::string& name, const std::string& space) {
    if (const auto primitive = kPrimitives.find(name); primitive != kPrimitives.end()) return Add(primitive->second);
    const bool full = name.find('.') != std::string::npos;
    auto found = named_.find(full || space.empty() ? name : space + "." + name);
    if (found == named_.end()) found = named_.find(name);
    if (found == named_.end()) return InvalidArgument(StrCat("the Avro schema has no type ", name));
    return found->second;
  }

  // Makes the name known before what is inside, which may refer to it. `space` becomes the namespace inside.
  Result<std::size_t> Define(Kind kind, const JsonValue& schema, std::string* space) {
    const JsonValue* name = JsonFind(schema, "name");
    if (name == nullptr || !name->IsString()) return InvalidArgument("the Avro schema has a named type without name");
    const JsonValue* given = JsonFind(schema, "namespace");
    std::string full(JsonText(*name));
    if (const std::size_t dot = full.rfind('.'); dot != std::string::npos) {
      *space = full.substr(0, dot);
    } else {
      if (given != nullptr && given->IsString()) *space = JsonText(*given);
      if (!space->empty()) full = *space + "." + full;
    }
    const std::size_t index = Add(kind);
    named_[full] = index;
    return index;
  }

  Result<std::size_t> Record(const JsonValue& schema, std::string space, int depth) {
    FRESHET_ASSIGN(const std::size_t index, Define(Kind::kRecord, schema, &space));
    const JsonValue* fields = JsonFind(schema, "fields");
    if (fields == nullptr || !fields->IsArray()) return InvalidArgument("the Avro schema has a record without fields");
    for (const JsonValue& field : fields->GetArray()) {
      const JsonValue* name = JsonFind(field, "name");
      const JsonValue* type = JsonFind(field, "type");
      if (name == nullptr || !name->IsString() || type == nullptr) {
        return InvalidArgument("the Avro schema has a field without name or type");
      }
      FRESHET_ASSIGN(const std::size_t part, Compile(*type, space, depth + 1));
      (*types_)[index].names.emplace_back(JsonText(*name));
      (*types_)[index].parts.push_back(part);
    }
    return index;
  }

  Result<std::size_t> Enum(const JsonValue& schema, std::string space) {
    FRESHET_ASSIGN(const std::size_t index, Define(Kind::kEnum, schema, &space));
    const JsonValue* symbols = JsonFind(schema, "symbols");
    if (symbols == nullptr || !symbols->IsArray())
      return InvalidArgument("the Avro schema has an enum without symbols");
    for (const JsonValue& symbol : symbols->GetArray()) {
      if (!symbol.IsString()) return InvalidArgument("the Avro schema has a symbol that is no text");
      (*types_)[index].names.emplace_back(JsonText(symbol));
    }
    return index;
  }

  Result<std::size_t> Fixed(const JsonValue& schema, std::string space) {
    FRESHET_ASSIGN(const std::size_t index, Define(Kind::kFixed, schema, &space));
    const JsonValue* size = JsonFind(schema, "size");
    if (size == nullptr || !size->IsUint()) return InvalidArgument("the Avro schema has a fixed without size");
    (*types_)[index].size = size->GetUint();
    SetDecimal(schema, index);
    return index;
  }

  Result<std::size_t> Holder(Kind kind, const JsonValue& schema, const char* of, const std::string& space, int depth) {
    const JsonValue* held = JsonFind(schema, of);
    if (held == nullptr) return InvalidArgument(StrCat("the Avro schema has an array or a map without ", of));
    const std::size_t index = Add(kind);
    FRESHET_ASSIGN(const std::size_t part, Compile(*held, space, depth + 1));
    (*types_)[index].parts.push_back(part);
    return index;
  }

  void SetDecimal(const JsonValue& schema, std::size_t index) {
    const JsonValue* logical = JsonFind(schema, "logicalType");
    if (logical == nullptr || !logical->IsString() || JsonText(*logical) != "decimal") return;
    const JsonValue* scale = JsonFind(schema, "scale");
    (*types_)[index].scale = scale != nullptr && scale->IsInt() ? scale->GetInt() : 0;
  }

  std::vector<Type>* const types_;
  std::map<std::string, std::size_t> named_;
};

// Reads one record. After a failure ok() is false and all values are null.
class Reader {
 public:
  Reader(const std::vector<Type>& types, std::string_view bytes, int max_depth, Allocator* allocator)
      : types_(types), bytes_(bytes), max_depth_(max_depth), allocator_(allocator) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }

  JsonValue Value(std::size_t index, int depth) {
    if (depth > max_depth_ || ++values_ > kMaxValues) return Fail();
    const Type& type = types_[index];
    switch (type.kind) {
      case Kind::kNull:
        return JsonValue();
      case Kind::kBoolean: {
        const std::string_view byte = Take(1);
        if (!ok_ || static_cast<unsigned char>(byte[0]) > 1) return Fail();
        return JsonValue(byte[0] == 1);
      }
      case Kind::kInt:
      case Kind::kLong:
        return JsonValue(Long());
      case Kind::kFloat:
        return JsonValue(static_cast<double>(Raw<float>()));
      case Kind::kDouble:
        return JsonValue(Raw<double>());
      case Kind::kBytes:
        return Binary(type, Take(Length()));
      case Kind::kFixed:
        return Binary(type, Take(type.size));
      case Kind::kString: {
        const std::string_view text = Take(Length());
        if (!ok_ || !IsValidUtf8(text)) return Fail();
        return Text(text);
      }
      case Kind::kEnum: {
        const std::int64_t symbol = Long();
        if (symbol < 0 || static_cast<std::size_t>(symbol) >= type.names.size()) return Fail();
        return Text(type.names[static_cast<std::size_t>(symbol)]);
      }
      case Kind::kUnion: {
        const std::int64_t branch = Long();
        if (branch < 0 || static_cast<std::size_t>(branch) >= type.parts.size()) return Fail();
        return Value(type.parts[static_cast<std::size_t>(branch)], depth + 1);
      }
      case Kind::kRecord: {
        JsonValue object(rapidjson::kObjectType);
        for (std::size_t i = 0; ok_ && i < type.parts.size(); ++i) {
          JsonValue value = Value(type.parts[i], depth + 1);
          object.AddMember(Text(type.names[i]), value, *allocator_);
        }
        return object;
      }
      case Kind::kArray:
      case Kind::kMap:
        return Blocks(type, depth);
    }
    return Fail();
  }

 private:
  JsonValue Fail() {
    ok_ = false;
    return JsonValue();
  }
  std::string_view Take(std::size_t size) {
    if (!ok_ || size > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }
  // Zigzag, at most ten bytes; 0 after a failure.
  std::int64_t Long() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const std::string_view byte = Take(1);
      if (!ok_) return 0;
      const auto bits = static_cast<std::uint64_t>(static_cast<unsigned char>(byte[0]));
      if (shift == 63 && bits > 1) break;
      value |= (bits & 0x7F) << shift;
      if (bits < 0x80) return static_cast<std::int64_t>(value >> 1) ^ -static_cast<std::int64_t>(value & 1);
    }
    ok_ = false;
    return 0;
  }
  std::size_t Length() {
    const std::int64_t length = Long();
    if (length < 0) ok_ = false;
    return ok_ ? static_cast<std::size_t>(length) : 0;
  }
  template <typename T>
  T Raw() {
    T value{};
    const std::string_view bytes = Take(sizeof(T));  // little-endian, as this machine is
    if (ok_) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  JsonValue Text(std::string_view text) {
    return JsonValue(text.data(), static_cast<rapidjson::SizeType>(text.size()), *allocator_);
  }
  JsonValue Binary(const Type& type, std::string_view bytes) {
    if (!ok_) return JsonValue();
    if (type.scale) {  // two's complement, big-endian
      double unscaled = 0;
      for (const char byte : bytes) unscaled = unscaled * 256 + static_cast<unsigned char>(byte);
      if (!bytes.empty() && (static_cast<unsigned char>(bytes[0]) & 0x80) != 0) {
        unscaled -= std::pow(256.0, static_cast<double>(bytes.size()));
      }
      return JsonValue(unscaled / std::pow(10.0, *type.scale));
    }
    return IsValidUtf8(bytes) ? Text(bytes) : JsonValue();
  }
  JsonValue Blocks(const Type& type, int depth) {
    const bool map = type.kind == Kind::kMap;
    JsonValue held(map ? rapidjson::kObjectType : rapidjson::kArrayType);
    for (;;) {
      std::int64_t count = Long();
      if (count < 0) {
        Long();  // the block's size in bytes, for those who skip
        count = count == std::numeric_limits<std::int64_t>::min() ? 0 : -count;
      }
      if (!ok_ || count == 0) return held;
      for (; count > 0 && ok_; --count) {
        if (!map) {
          held.PushBack(Value(type.parts[0], depth + 1), *allocator_);
          continue;
        }
        const std::string_view name = Take(Length());
        if (!ok_ || !IsValidUtf8(name)) return Fail();
        JsonValue value = Value(type.parts[0], depth + 1);
        held.AddMember(Text(name), value, *allocator_);
      }
    }
  }

  const std::vector<Type>& types_;
  std::string_view bytes_;
  const int max_depth_;
  Allocator* const allocator_;
  std::size_t values_ = 0;
  bool ok_ = true;
};

class Schema final : public AvroSchema {
 public:
  Schema(std::vector<Type> types, std::size_t root) : types_(std::move(types)), root_(root) {}

  Result<std::unique_ptr<JsonDocument>> Read(std::string_view bytes, const DecodeLimits& limits) const override {
    auto document = std::make_unique<JsonDocument>();
    Reader reader(types_, bytes, limits.max_depth, &document->GetAllocator());
    static_cast<JsonValue&>(*document) = reader.Value(root_, 1);
    if (!reader.ok() || !reader.at_end()) return InvalidArgument("the bytes are no Avro record of their schema");
    return document;
  }

 private:
  const std::vector<Type> types_;
  const std::size_t root_;
};

}  // namespace

Result<std::unique_ptr<AvroSchema>> AvroSchema::Parse(const std::vector<std::pair<std::string, std::string>>& texts) {
  std::vector<Type> types;
  Compiler compiler(&types);
  std::optional<std::size_t> root;
  for (const auto& [name, text] : texts) {
    const auto parsed = ParseJson(text, 2 * kMaxSchemaDepth);
    if (!parsed.ok()) return InvalidArgument(StrCat("the Avro schema ", name, " is no JSON"));
    FRESHET_ASSIGN(root, compiler.Compile(**parsed, "", 0));
  }
  if (!root) return InvalidArgument("there is no Avro schema");
  return std::unique_ptr<AvroSchema>(std::make_unique<Schema>(std::move(types), *root));
}

}  // namespace freshet
