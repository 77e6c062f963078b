#include "protobuf_schema.h"

#include <google/protobuf/compiler/parser.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/wrappers.pb.h>

#include "builtin_proto.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

namespace pb = google::protobuf;
using Allocator = JsonDocument::AllocatorType;

// What is wrong with a schema, as one text; without it libprotobuf writes to standard error.
class Errors final : public pb::io::ErrorCollector, public pb::DescriptorPool::ErrorCollector {
 public:
  void AddError(int line, pb::io::ColumnNumber, const std::string& message) override {
    Add(StrCat("line ", line + 1, ": ", message));
  }
  void AddError(const std::string& file, const std::string& element, const pb::Message*, ErrorLocation,
                const std::string& message) override {
    Add(StrCat(file, ": ", element, ": ", message));
  }
  [[nodiscard]] const std::string& first() const { return first_; }

 private:
  void Add(std::string text) {
    if (first_.empty()) first_ = std::move(text);
  }
  std::string first_;
};

// The texts of a library type are as the sender made them: checked here, since proto2 does not.
JsonValue TextOf(const std::string& text, Allocator* allocator, bool* valid) {
  if (!IsValidUtf8(text)) {
    *valid = false;
    return JsonValue();
  }
  return JsonValue(text.data(), static_cast<rapidjson::SizeType>(text.size()), *allocator);
}

class Converter {
 public:
  explicit Converter(Allocator* allocator) : allocator_(allocator) {}

  JsonValue Tree(const pb::Message& message) {
    const pb::Descriptor& type = *message.GetDescriptor();
    const pb::Reflection& reflection = *message.GetReflection();
    if (type.full_name() == "google.protobuf.Timestamp") return Time(message, type, reflection);
    if (IsTransparent(type)) {
      for (int i = 0; i < type.field_count(); ++i) {
        const pb::FieldDescriptor& field = *type.field(i);
        if (field.is_repeated()) return List(message, reflection, field);
        if (!field.has_presence() || reflection.HasField(message, &field)) return Value(message, reflection, field, -1);
      }
      return JsonValue();
    }
    JsonValue object(rapidjson::kObjectType);
    for (int i = 0; i < type.field_count(); ++i) {
      const pb::FieldDescriptor& field = *type.field(i);
      JsonValue value;
      if (field.is_map()) {
        if (reflection.FieldSize(message, &field) == 0) continue;
        value = Map(message, reflection, field);
      } else if (field.is_repeated()) {
        if (reflection.FieldSize(message, &field) == 0) continue;
        value = List(message, reflection, field);
      } else if (field.has_presence() ? reflection.HasField(message, &field) : IsThere(message, reflection, field)) {
        value = Value(message, reflection, field, -1);
      } else {
        continue;
      }
      object.AddMember(JsonValue(field.name().c_str(), *allocator_), value, *allocator_);
    }
    return object;
  }
  [[nodiscard]] bool valid() const { return valid_; }

 private:
  // Stands for what it holds: wrappers, and the values of our own schema.
  static bool IsTransparent(const pb::Descriptor& type) {
    const std::string& name = type.full_name();
    return name == "freshet.v1.Value" || name == "freshet.v1.Texts" ||
           (type.file()->name() == "google/protobuf/wrappers.proto" && type.field_count() == 1);
  }
  // Without presence a zero is a value, but an empty text says nothing.
  static bool IsThere(const pb::Message& message, const pb::Reflection& reflection, const pb::FieldDescriptor& field) {
    return field.cpp_type() != pb::FieldDescriptor::CPPTYPE_STRING || !reflection.GetString(message, &field).empty();
  }
  static JsonValue Time(const pb::Message& message, const pb::Descriptor& type, const pb::Reflection& reflection) {
    const std::int64_t seconds = reflection.GetInt64(message, type.FindFieldByNumber(1));
    const std::int64_t nanos = reflection.GetInt32(message, type.FindFieldByNumber(2));
    constexpr std::int64_t kMaxSeconds = 253'402'300'799;  // 9999, the last that the type allows
    if (seconds < -62'135'596'800 || seconds > kMaxSeconds || nanos < 0 || nanos > 999'999'999) return JsonValue(-1);
    return JsonValue(seconds * 1000 + nanos / 1'000'000);
  }
  JsonValue List(const pb::Message& message, const pb::Reflection& reflection, const pb::FieldDescriptor& field) {
    JsonValue list(rapidjson::kArrayType);
    const int size = reflection.FieldSize(message, &field);
    list.Reserve(static_cast<rapidjson::SizeType>(size), *allocator_);
    for (int i = 0; i < size; ++i) list.PushBack(Value(message, reflection, field, i), *allocator_);
    return list;
  }
  JsonValue Map(const pb::Message& message, const pb::Reflection& reflection, const pb::FieldDescriptor& field) {
    JsonValue object(rapidjson::kObjectType);
    const pb::FieldDescriptor& key_field = *field.message_type()->map_key();
    const pb::FieldDescriptor& value_field = *field.message_type()->map_value();
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      const pb::Message& entry = reflection.GetRepeatedMessage(message, &field, i);
      JsonValue key = Value(entry, *entry.GetReflection(), key_field, -1);
      if (!key.IsString()) {
        const std::string text = ToJson(key);
        key = JsonValue(text.c_str(), *allocator_);
      }
      object.AddMember(key, Value(entry, *entry.GetReflection(), value_field, -1), *allocator_);
    }
    return object;
  }
  // index < 0: the field is not repeated.
  JsonValue Value(const pb::Message& m, const pb::Reflection& r, const pb::FieldDescriptor& field, int index) {
    const pb::FieldDescriptor* f = &field;
    const bool one = index < 0;
    using F = pb::FieldDescriptor;
    switch (field.cpp_type()) {
      case F::CPPTYPE_INT32:
        return JsonValue(one ? r.GetInt32(m, f) : r.GetRepeatedInt32(m, f, index));
      case F::CPPTYPE_INT64:
        return JsonValue(static_cast<std::int64_t>(one ? r.GetInt64(m, f) : r.GetRepeatedInt64(m, f, index)));
      case F::CPPTYPE_UINT32:
        return JsonValue(one ? r.GetUInt32(m, f) : r.GetRepeatedUInt32(m, f, index));
      case F::CPPTYPE_UINT64:
        return JsonValue(static_cast<std::uint64_t>(one ? r.GetUInt64(m, f) : r.GetRepeatedUInt64(m, f, index)));
      case F::CPPTYPE_DOUBLE:
        return JsonValue(one ? r.GetDouble(m, f) : r.GetRepeatedDouble(m, f, index));
      case F::CPPTYPE_FLOAT:
        return JsonValue(static_cast<double>(one ? r.GetFloat(m, f) : r.GetRepeatedFloat(m, f, index)));
      case F::CPPTYPE_BOOL:
        return JsonValue(one ? r.GetBool(m, f) : r.GetRepeatedBool(m, f, index));
      case F::CPPTYPE_ENUM: {
        const int number = one ? r.GetEnumValue(m, f) : r.GetRepeatedEnumValue(m, f, index);
        const pb::EnumValueDescriptor* known = field.enum_type()->FindValueByNumber(number);
        return known == nullptr ? JsonValue(number) : JsonValue(known->name().c_str(), *allocator_);
      }
      case F::CPPTYPE_STRING: {
        bool utf8 = true;
        const std::string text = one ? r.GetString(m, f) : r.GetRepeatedString(m, f, index);
        JsonValue value = TextOf(text, allocator_, &utf8);
        if (field.type() == F::TYPE_STRING && !utf8) valid_ = false;
        return value;
      }
      case F::CPPTYPE_MESSAGE:
        return Tree(one ? r.GetMessage(m, f) : r.GetRepeatedMessage(m, f, index));
    }
    return JsonValue();
  }

  Allocator* const allocator_;
  bool valid_ = true;
};

class Schema final : public ProtobufSchema {
 public:
  Schema() : pool_(pb::DescriptorPool::generated_pool()), factory_(&pool_) {
    // So that the types of the library that are treated apart are linked, and may be imported.
    (void)pb::Timestamp::descriptor();
    (void)pb::StringValue::descriptor();
    factory_.SetDelegateToGeneratedFactory(true);
  }

  // Files must come after those that they import.
  Status Add(const pb::FileDescriptorProto& file) {
    if (pb::DescriptorPool::generated_pool()->FindFileByName(file.name()) != nullptr) return Status::Ok();
    Errors errors;
    const pb::FileDescriptor* built = pool_.BuildFileCollectingErrors(file, &errors);
    if (built == nullptr) return InvalidArgument(StrCat("the Protobuf schema: ", errors.first()));
    last_ = built;
    return Status::Ok();
  }

  Result<std::string> NameOf(const std::vector<int>& indexes) const override {
    const pb::Descriptor* found = nullptr;
    for (const int index : indexes) {
      const int count = found != nullptr   ? found->nested_type_count()
                        : last_ != nullptr ? last_->message_type_count()
                                           : 0;
      if (index < 0 || index >= count) return InvalidArgument("the message index names no message of its schema");
      found = found != nullptr ? found->nested_type(index) : last_->message_type(index);
    }
    if (found == nullptr) return InvalidArgument("the message index is empty");
    return found->full_name();
  }

  bool Has(const std::string& message) const override { return pool_.FindMessageTypeByName(message) != nullptr; }

  Result<std::unique_ptr<JsonDocument>> Parse(const std::string& message, std::string_view bytes,
                                              const DecodeLimits& limits) const override {
    const pb::Descriptor* type = pool_.FindMessageTypeByName(message);
    if (type == nullptr) return InvalidArgument(StrCat("the schema has no message ", message));
    const std::unique_ptr<pb::Message> parsed(factory_.GetPrototype(type)->New());
    pb::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
    in.SetRecursionLimit(limits.max_depth);
    if (!parsed->ParseFromCodedStream(&in) || !in.ConsumedEntireMessage()) {
      return InvalidArgument(StrCat("the value is no ", message));
    }
    auto document = std::make_unique<JsonDocument>();
    Converter converter(&document->GetAllocator());
    static_cast<JsonValue&>(*document) = converter.Tree(*parsed);
    if (!converter.valid()) return InvalidArgument(StrCat("a text of the ", message, " is not UTF-8"));
    return document;
  }

 private:
  pb::DescriptorPool pool_;
  mutable pb::DynamicMessageFactory factory_;  // GetPrototype is thread-safe
  const pb::FileDescriptor* last_ = nullptr;
};

// Bytes that do not parse are the sender's affair and end in a dead letter, not on our standard error.
void QuietLibrary() {
  static const bool quiet = [] {
    pb::SetLogHandler(nullptr);
    return true;
  }();
  (void)quiet;
}

}  // namespace

Result<std::unique_ptr<ProtobufSchema>> ProtobufSchema::FromDescriptorSet(std::string_view bytes) {
  QuietLibrary();
  pb::FileDescriptorSet set;
  if (!set.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || set.file_size() == 0) {
    return InvalidArgument("it is no FileDescriptorSet, as protoc --include_imports --descriptor_set_out writes it");
  }
  auto schema = std::make_unique<Schema>();
  for (const pb::FileDescriptorProto& file : set.file()) FRESHET_TRY(schema->Add(file));
  return std::unique_ptr<ProtobufSchema>(std::move(schema));
}

Result<std::unique_ptr<ProtobufSchema>> ProtobufSchema::FromSources(
    const std::vector<std::pair<std::string, std::string>>& files) {
  QuietLibrary();
  auto schema = std::make_unique<Schema>();
  for (const auto& [name, source] : files) {
    pb::io::ArrayInputStream in(source.data(), static_cast<int>(source.size()));
    Errors errors;
    pb::io::Tokenizer tokens(&in, &errors);
    pb::compiler::Parser parser;
    parser.RecordErrorsTo(&errors);
    pb::FileDescriptorProto file;
    if (!parser.Parse(&tokens, &file))
      return InvalidArgument(StrCat("the Protobuf schema ", name, ": ", errors.first()));
    file.set_name(name);
    FRESHET_TRY(schema->Add(file));
  }
  return std::unique_ptr<ProtobufSchema>(std::move(schema));
}

Result<std::unique_ptr<ProtobufSchema>> ProtobufSchema::BuiltIn() {
  return FromSources({{"freshet/v1/events.proto", kBuiltinProto}});
}

}  // namespace freshet
