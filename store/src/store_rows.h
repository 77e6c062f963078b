// The bytes of the store's rows; store/README.md writes them down. Each value starts with a version byte. Readers
// validate every byte; an unreadable row is kCorruption, with its key named by the caller.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/bytes.h"
#include "freshet/core/status.h"
#include "freshet/store/store.h"

namespace freshet {

[[nodiscard]] std::string EncodeItemRow(const ItemRow& row);
[[nodiscard]] Result<ItemRow> DecodeItemRow(std::string_view bytes);

[[nodiscard]] std::string EncodeFeatureRow(const Features& features);
[[nodiscard]] Result<Features> DecodeFeatureRow(std::string_view bytes);
[[nodiscard]] std::string EncodeAttributeRow(const Attributes& attributes);
[[nodiscard]] Result<Attributes> DecodeAttributeRow(std::string_view bytes);

[[nodiscard]] std::string EncodeForgottenRow(const ForgottenRow& row);
[[nodiscard]] Result<ForgottenRow> DecodeForgottenRow(std::string_view bytes);
// u32 n, n × i32: in the row below and in progress records. What is short fails the reader.
void PutPartitions(const std::vector<std::int32_t>& partitions, ByteWriter* out);
[[nodiscard]] std::vector<std::int32_t> GetPartitions(ByteReader* in);
[[nodiscard]] std::string EncodeOwnedRow(const OwnedItems& owned);
[[nodiscard]] Result<OwnedItems> DecodeOwnedRow(std::string_view bytes);
[[nodiscard]] std::string EncodeUserRow(const UserState& user);
[[nodiscard]] Result<UserState> DecodeUserRow(std::string_view bytes);

[[nodiscard]] std::string OffsetKey(const TopicPartition& partition);
[[nodiscard]] Result<TopicPartition> DecodeOffsetKey(std::string_view key);
[[nodiscard]] std::string EncodeOffsetRow(const PartitionProgress& progress);
[[nodiscard]] Result<PartitionProgress> DecodeOffsetRow(std::string_view key, std::string_view bytes);

// The sequence is the key (OrderedKey).
[[nodiscard]] std::string EncodeOutboxRow(const OutboxEntry& entry);
[[nodiscard]] Result<OutboxEntry> DecodeOutboxRow(std::uint64_t sequence, std::string_view bytes);

// What the store is, written once; and how far it has come, written at each commit.
// Format 2 adds how vectors are kept (format 1: fp32), format 3 the chain of commits (store_chain.h), format 4 the
// source partition of items, and attributes that are lists of anything but texts. A store of an older format becomes
// one of today's when it is opened.
struct StoreIdentity {
  std::uint32_t format = 4;
  std::uint64_t epoch = 0;
  std::uint32_t dim = 0;
  std::string metric;
  std::string space_id;
  VectorType vectors = VectorType::kFp32;
};
[[nodiscard]] std::string EncodeIdentity(const StoreIdentity& identity);
[[nodiscard]] Result<StoreIdentity> DecodeIdentity(std::string_view bytes);

struct StoreState {
  std::uint64_t next_label = 1;
  std::uint64_t sequence = 0;
  std::int64_t as_of_ms = 0;
  std::vector<std::uint64_t> links;  // commits that wrote to each family (store_chain.h); none before format 3
};
[[nodiscard]] std::string EncodeState(const StoreState& state);
[[nodiscard]] Result<StoreState> DecodeState(std::string_view bytes);

[[nodiscard]] std::string EncodeIndexFileRow(const IndexFileRow& row);
[[nodiscard]] Result<IndexFileRow> DecodeIndexFileRow(std::string_view bytes);

// IEEE 754 half precision, rounded to nearest even; beyond its range the largest finite value.
[[nodiscard]] std::uint16_t ToHalf(float value);
[[nodiscard]] float FromHalf(std::uint16_t half);
[[nodiscard]] std::string EncodeVector(std::span<const float> vector, VectorType type);
[[nodiscard]] Result<std::vector<float>> DecodeVector(std::string_view bytes, std::size_t dim, VectorType type);

}  // namespace freshet
