#include "store_rows.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "freshet/core/bytes.h"
#include "freshet/ingest/record_codec.h"

namespace freshet {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::uint8_t kVersion2 = 2;  // rows that got fields at their end; those of version 1 are still read
constexpr std::uint8_t kVersion3 = 3;  // once more: items

ByteWriter Begin(std::uint8_t version = kVersion) {
  ByteWriter out;
  out.Put(version);
  return out;
}

// The version, from the first to `newest`, into *version.
ByteReader OpenAny(std::string_view bytes, std::uint8_t* version, std::uint8_t newest = kVersion2) {
  ByteReader in(bytes);
  *version = in.Get<std::uint8_t>();
  if (*version < kVersion || *version > newest) in.Fail();
  return in;
}

// Reads the version byte; a row of a version that we do not know fails the reader.
ByteReader Open(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Get<std::uint8_t>() != kVersion) in.Fail();
  return in;
}

Status Check(const ByteReader& in, const char* what) {
  return in.finished() ? Status::Ok() : Corruption(std::string(what) + " row does not decode");
}

}  // namespace

std::string EncodeItemRow(const ItemRow& row) {
  ByteWriter out = Begin(kVersion3);
  out.Put(row.label).Put(row.epoch).Put(row.sequence).Put(row.position.partition).Put(row.position.offset);
  out.Put(row.record_timestamp_ms).Put(row.generation).Put(row.features_hash).Put(row.attributes_hash);
  out.Put(row.source_partition);
  return out.Take();
}

Result<ItemRow> DecodeItemRow(std::string_view bytes) {
  std::uint8_t version = 0;
  ByteReader in = OpenAny(bytes, &version, kVersion3);
  ItemRow row;
  row.label = in.Get<std::uint64_t>();
  row.epoch = in.Get<std::uint64_t>();
  row.sequence = in.Get<std::uint64_t>();
  row.position.partition = in.Get<std::int32_t>();
  row.position.offset = in.Get<std::int64_t>();
  row.record_timestamp_ms = in.Get<std::int64_t>();
  if (version >= kVersion2) {
    row.generation = in.Get<std::uint32_t>();
    row.features_hash = in.Get<std::uint64_t>();
    row.attributes_hash = in.Get<std::uint64_t>();
  }
  if (version >= kVersion3) row.source_partition = in.Get<std::int32_t>();
  FRESHET_TRY(Check(in, "item"));
  return row;
}

std::string EncodeFeatureRow(const Features& features) {
  ByteWriter out = Begin();
  PutFeatures(features, &out);
  return out.Take();
}

Result<Features> DecodeFeatureRow(std::string_view bytes) {
  ByteReader in = Open(bytes);
  Features features = GetFeatures(&in);
  FRESHET_TRY(Check(in, "feature"));
  return features;
}

std::string EncodeAttributeRow(const Attributes& attributes) {
  ByteWriter out = Begin();
  PutAttributes(attributes, &out);
  return out.Take();
}

Result<Attributes> DecodeAttributeRow(std::string_view bytes) {
  ByteReader in = Open(bytes);
  Attributes attributes = GetAttributes(&in);
  FRESHET_TRY(Check(in, "attribute"));
  return attributes;
}

std::string EncodeForgottenRow(const ForgottenRow& row) {
  ByteWriter out = Begin();
  return out.Put(row.at_ms).Put(row.noted_ms).Take();
}

Result<ForgottenRow> DecodeForgottenRow(std::string_view bytes) {
  ByteReader in = Open(bytes);
  ForgottenRow row;
  row.at_ms = in.Get<std::int64_t>();
  row.noted_ms = in.Get<std::int64_t>();
  FRESHET_TRY(Check(in, "forgotten"));
  return row;
}

void PutPartitions(const std::vector<std::int32_t>& partitions, ByteWriter* out) {
  out->Put(static_cast<std::uint32_t>(partitions.size()));
  for (const std::int32_t partition : partitions) out->Put(partition);
}

std::vector<std::int32_t> GetPartitions(ByteReader* in) {
  std::vector<std::int32_t> partitions;
  const auto count = in->Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in->ok(); ++i) partitions.push_back(in->Get<std::int32_t>());
  return partitions;
}

std::string EncodeOwnedRow(const OwnedItems& owned) {
  ByteWriter out = Begin();
  out.Put(static_cast<std::uint8_t>(owned.partitions ? 1 : 0));
  if (owned.partitions) PutPartitions(*owned.partitions, &out);
  return out.Take();
}

Result<OwnedItems> DecodeOwnedRow(std::string_view bytes) {
  ByteReader in = Open(bytes);
  OwnedItems owned;
  if (in.Get<std::uint8_t>() != 0) owned.partitions = GetPartitions(&in);
  FRESHET_TRY(Check(in, "owned"));
  return owned;
}

std::string EncodeUserRow(const UserState& user) {
  ByteWriter out = Begin(kVersion2);
  out.Put(user.epoch).Put(user.partition);
  PutFeatures(user.features, &out);
  out.Put(static_cast<std::uint32_t>(user.history.size()));
  for (const HistoryEntry& entry : user.history) {
    out.PutString(entry.item_id).PutString(entry.event).Put(entry.value).Put(entry.timestamp_ms);
  }
  out.Put(static_cast<std::uint32_t>(user.seen.size()));
  for (const std::string& id : user.seen) out.PutString(id);
  out.Put(user.profile_partition).Put(user.profile_generation);
  return out.Take();
}

Result<UserState> DecodeUserRow(std::string_view bytes) {
  std::uint8_t version = 0;
  ByteReader in = OpenAny(bytes, &version);
  UserState user;
  user.epoch = in.Get<std::uint64_t>();
  user.partition = in.Get<std::int32_t>();
  user.features = GetFeatures(&in);
  const auto history = in.Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < history && in.ok(); ++i) {
    HistoryEntry& entry = user.history.emplace_back();
    entry.item_id = in.GetString();
    entry.event = in.GetString();
    entry.value = in.Get<double>();
    entry.timestamp_ms = in.Get<std::int64_t>();
  }
  const auto seen = in.Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < seen && in.ok(); ++i) user.seen.emplace_back(in.GetString());
  if (version == kVersion2) {
    user.profile_partition = in.Get<std::int32_t>();
    user.profile_generation = in.Get<std::uint32_t>();
  }
  FRESHET_TRY(Check(in, "user"));
  return user;
}

std::string OffsetKey(const TopicPartition& partition) {
  // Topic names hold no zero byte (Kafka allows [a-zA-Z0-9._-] only).
  return partition.topic + '\0' + OrderedKey(static_cast<std::uint64_t>(partition.partition));
}

Result<TopicPartition> DecodeOffsetKey(std::string_view key) {
  if (key.size() < 10 || key[key.size() - 9] != '\0') return Corruption("offset key does not decode");
  const std::uint64_t partition = FromOrderedKey(key.substr(key.size() - 8));
  if (partition > 0x7fffffff) return Corruption("offset key does not decode");
  return TopicPartition{std::string(key.substr(0, key.size() - 9)), static_cast<std::int32_t>(partition)};
}

std::string EncodeOffsetRow(const PartitionProgress& progress) {
  ByteWriter out = Begin(kVersion2);
  out.Put(progress.next_offset).Put(progress.last_timestamp_ms).Put(progress.fingerprint);
  out.Put(progress.epoch).Put(progress.sequence);
  out.Put(progress.complete_ms).Put(progress.generation).Put(static_cast<std::uint8_t>(progress.rereading ? 1 : 0));
  out.Put(progress.seen_below);
  return out.Take();
}

Result<PartitionProgress> DecodeOffsetRow(std::string_view key, std::string_view bytes) {
  PartitionProgress progress;
  FRESHET_ASSIGN(progress.partition, DecodeOffsetKey(key));
  std::uint8_t version = 0;
  ByteReader in = OpenAny(bytes, &version);
  progress.next_offset = in.Get<std::int64_t>();
  progress.last_timestamp_ms = in.Get<std::int64_t>();
  progress.fingerprint = in.Get<std::uint64_t>();
  progress.epoch = in.Get<std::uint64_t>();
  progress.sequence = in.Get<std::uint64_t>();
  if (version == kVersion2) {
    progress.complete_ms = in.Get<std::int64_t>();
    progress.generation = in.Get<std::uint32_t>();
    progress.rereading = in.Get<std::uint8_t>() != 0;
    progress.seen_below = in.Get<std::int64_t>();
  }
  FRESHET_TRY(Check(in, "offset"));
  return progress;
}

std::string EncodeOutboxRow(const OutboxEntry& entry) {
  ByteWriter out = Begin();
  out.Put(static_cast<std::uint8_t>(entry.is_user_event)).PutString(entry.key);
  out.Put(static_cast<std::uint8_t>(entry.value.has_value()));
  if (entry.value) out.PutString(*entry.value);
  return out.Take();
}

Result<OutboxEntry> DecodeOutboxRow(std::uint64_t sequence, std::string_view bytes) {
  ByteReader in = Open(bytes);
  OutboxEntry entry;
  entry.sequence = sequence;
  entry.is_user_event = in.Get<std::uint8_t>() != 0;
  entry.key = in.GetString();
  if (in.Get<std::uint8_t>() != 0) entry.value = in.GetString();
  FRESHET_TRY(Check(in, "outbox"));
  return entry;
}

std::string EncodeIdentity(const StoreIdentity& identity) {
  ByteWriter out;
  out.Put(identity.format).Put(identity.epoch).Put(identity.dim).PutString(identity.metric);
  out.PutString(identity.space_id).Put(static_cast<std::uint8_t>(identity.vectors));
  return out.Take();
}

Result<StoreIdentity> DecodeIdentity(std::string_view bytes) {
  ByteReader in(bytes);
  StoreIdentity identity;
  identity.format = in.Get<std::uint32_t>();
  // The caller refuses what it does not know by number.
  if (in.ok() && (identity.format < 1 || identity.format > StoreIdentity{}.format)) return identity;
  identity.epoch = in.Get<std::uint64_t>();
  identity.dim = in.Get<std::uint32_t>();
  identity.metric = in.GetString();
  identity.space_id = in.GetString();
  if (identity.format >= 2) {
    const auto vectors = in.Get<std::uint8_t>();
    if (vectors > static_cast<std::uint8_t>(VectorType::kFp16)) in.Fail();
    identity.vectors = static_cast<VectorType>(vectors);
  }
  FRESHET_TRY(Check(in, "identity"));
  return identity;
}

std::string EncodeState(const StoreState& state) {
  ByteWriter out = Begin(kVersion2);
  out.Put(state.next_label).Put(state.sequence).Put(state.as_of_ms);
  out.Put(static_cast<std::uint8_t>(state.links.size()));
  for (const std::uint64_t last : state.links) out.Put(last);
  return out.Take();
}

Result<StoreState> DecodeState(std::string_view bytes) {
  std::uint8_t version = 0;
  ByteReader in = OpenAny(bytes, &version);
  StoreState state;
  state.next_label = in.Get<std::uint64_t>();
  state.sequence = in.Get<std::uint64_t>();
  state.as_of_ms = in.Get<std::int64_t>();
  if (version == kVersion2) {
    state.links.resize(in.Get<std::uint8_t>());
    for (std::uint64_t& last : state.links) last = in.Get<std::uint64_t>();
  }
  FRESHET_TRY(Check(in, "state"));
  return state;
}

std::string EncodeIndexFileRow(const IndexFileRow& row) {
  ByteWriter out = Begin();
  out.Put(row.tag).Put(row.sequence);
  return out.Take();
}

Result<IndexFileRow> DecodeIndexFileRow(std::string_view bytes) {
  ByteReader in = Open(bytes);
  IndexFileRow row;
  row.tag = in.Get<std::uint64_t>();
  row.sequence = in.Get<std::uint64_t>();
  FRESHET_TRY(Check(in, "index file"));
  return row;
}

std::uint16_t ToHalf(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477fefff)
    return static_cast<std::uint16_t>(sign | 0x7bff);  // 65504 and whatever would round above it
  if (magnitude < 0x38800000) {  // subnormal: adding 0.5 lets the float unit round to multiples of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000));
  }
  const std::uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

float FromHalf(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t magnitude = half & 0x7fff;
  if (magnitude < 0x400) {
    const float value = static_cast<float>(magnitude) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000));
}

void RoundTo(VectorType type, std::span<float> vector) {
  if (type != VectorType::kFp16) return;
  for (float& value : vector) value = FromHalf(ToHalf(value));
}

std::string EncodeVector(std::span<const float> vector, VectorType type) {
  if (type == VectorType::kFp32) return {reinterpret_cast<const char*>(vector.data()), vector.size_bytes()};
  std::string out(vector.size() * 2, '\0');
  for (std::size_t i = 0; i < vector.size(); ++i) {
    const std::uint16_t half = ToHalf(vector[i]);
    std::memcpy(out.data() + 2 * i, &half, 2);
  }
  return out;
}

Result<std::vector<float>> DecodeVector(std::string_view bytes, std::size_t dim, VectorType type) {
  std::vector<float> vector(dim);
  if (bytes.size() != dim * (type == VectorType::kFp32 ? sizeof(float) : 2)) {
    return Corruption("vector row does not decode");
  }
  if (type == VectorType::kFp32) {
    std::memcpy(vector.data(), bytes.data(), bytes.size());
    return vector;
  }
  for (std::size_t i = 0; i < dim; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    vector[i] = FromHalf(half);
  }
  return vector;
}

}  // namespace freshet
