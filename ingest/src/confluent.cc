#include "confluent.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "avro_schema.h"
#include "freshet/core/strings.h"
#include "protobuf_schema.h"

namespace freshet {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kHeaderBytes = 5;
constexpr int kMaxMessageIndexes = 32;
// An id that the registry does not know may be registered yet; asking for each of its records would be a flood.
constexpr auto kAskAgain = std::chrono::seconds(10);

// A zigzag varint of at most five bytes; nothing when there is none. `bytes` moves on.
std::optional<std::int32_t> Varint(std::string_view* bytes) {
  std::uint32_t value = 0;
  for (int shift = 0; shift < 35 && !bytes->empty(); shift += 7) {
    const auto byte = static_cast<std::uint32_t>(static_cast<unsigned char>(bytes->front()));
    bytes->remove_prefix(1);
    value |= (byte & 0x7F) << shift;
    if (byte < 0x80) return static_cast<std::int32_t>(value >> 1) ^ -static_cast<std::int32_t>(value & 1);
  }
  return std::nullopt;
}

// Which message of its file a Protobuf record is; a single 00 is the first one.
Result<std::vector<int>> MessageIndexes(std::string_view* bytes) {
  const auto count = Varint(bytes);
  if (!count || *count < 0 || *count > kMaxMessageIndexes) return InvalidArgument("the frame has no message index");
  if (*count == 0) return std::vector<int>{0};
  std::vector<int> indexes;
  for (int i = 0; i < *count; ++i) {
    const auto index = Varint(bytes);
    if (!index) return InvalidArgument("the frame's message index is cut off");
    indexes.push_back(*index);
  }
  return indexes;
}

}  // namespace

struct ConfluentReader::Compiled {
  RegisteredSchema::Type type = RegisteredSchema::Type::kJson;
  std::unique_ptr<AvroSchema> avro;
  std::unique_ptr<ProtobufSchema> protobuf;
  Status unusable;  // why records of this schema are poison
};

ConfluentReader::ConfluentReader(SchemaRegistry* registry, std::size_t max_schemas)
    : registry_(registry), max_schemas_(max_schemas) {}
ConfluentReader::~ConfluentReader() = default;

Result<std::unique_ptr<JsonDocument>> ConfluentReader::Read(std::string_view frame, const DecodeLimits& limits) {
  if (!IsFrame(frame)) return InvalidArgument("there is no Confluent frame: the first byte is not zero");
  if (frame.size() < kHeaderBytes) return InvalidArgument("the Confluent frame is cut off");
  std::uint32_t id = 0;
  for (std::size_t i = 1; i < kHeaderBytes; ++i) id = (id << 8) | static_cast<unsigned char>(frame[i]);
  FRESHET_ASSIGN(const std::shared_ptr<const Compiled> schema, SchemaOf(id));
  if (!schema->unusable.ok()) return schema->unusable;
  std::string_view bytes = frame.substr(kHeaderBytes);
  switch (schema->type) {
    case RegisteredSchema::Type::kJson:
      return ParseJson(bytes, limits.max_depth);
    case RegisteredSchema::Type::kAvro:
      return schema->avro->Read(bytes, limits);
    case RegisteredSchema::Type::kProtobuf: {
      FRESHET_ASSIGN(const std::vector<int> indexes, MessageIndexes(&bytes));
      FRESHET_ASSIGN(const std::string message, schema->protobuf->NameOf(indexes));
      return schema->protobuf->Parse(message, bytes, limits);
    }
  }
  return InvalidArgument("the schema is of an unknown type");
}

Result<std::shared_ptr<const ConfluentReader::Compiled>> ConfluentReader::SchemaOf(std::uint32_t id) {
  const std::lock_guard lock(mu_);
  if (const auto known = schemas_.find(id); known != schemas_.end() && steady_clock::now() < known->second.expires) {
    known->second.used = ++uses_;
    return known->second.schema;
  }
  auto compiled = std::make_shared<Compiled>();
  auto expires = steady_clock::time_point::max();
  const Result<RegisteredSchema> fetched = registry_->Fetch(id);
  if (fetched.ok()) {
    compiled->type = fetched->type;
    if (fetched->type == RegisteredSchema::Type::kAvro) {
      auto avro = AvroSchema::Parse(fetched->texts);
      if (avro.ok()) {
        compiled->avro = std::move(*avro);
      } else {
        compiled->unusable = avro.status();
      }
    } else if (fetched->type == RegisteredSchema::Type::kProtobuf) {
      auto protobuf = ProtobufSchema::FromSources(fetched->texts);
      if (protobuf.ok()) {
        compiled->protobuf = std::move(*protobuf);
      } else {
        compiled->unusable = protobuf.status();
      }
    }
  } else if (fetched.status().category() == Category::kInput) {
    compiled->unusable = InvalidArgument(fetched.status().message());
    expires = steady_clock::now() + kAskAgain;
  } else {
    return fetched.status();
  }
  if (!compiled->unusable.ok()) compiled->unusable = compiled->unusable.Prefixed(StrCat("schema id ", id));
  if (schemas_.size() >= max_schemas_ && schemas_.count(id) == 0) {
    schemas_.erase(std::min_element(schemas_.begin(), schemas_.end(),
                                    [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
  }
  schemas_[id] = Entry{compiled, ++uses_, expires};
  return std::shared_ptr<const Compiled>(compiled);
}

}  // namespace freshet
