#include "freshet/store/changelog.h"

#include <cmath>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "store_rows.h"

namespace freshet {
namespace {

constexpr std::uint8_t kVersion = 2;         // 1 had neither vector types nor the source of user events
constexpr std::uint8_t kVersionOfOwned = 3;  // progress that says which partitions are owned, where it is not all
enum RecordType : std::uint8_t { kItem = 1, kUser = 2, kProgress = 3 };
enum UserKind : std::uint8_t { kInteraction = 1, kProfile = 2, kForgotten = 3 };
constexpr std::uint32_t kMaxDim = 4096;

ByteWriter Begin(RecordType type) {
  ByteWriter out;
  out.Put(kVersion).Put(static_cast<std::uint8_t>(type));
  return out;
}

std::string Seal(ByteWriter out) {
  const std::uint64_t checksum = Xxh3(out.bytes());
  return out.Put(checksum).Take();
}

Result<std::uint64_t> HeaderNumber(const RawRecord& record, std::string_view name) {
  for (const auto& [key, value] : record.headers) {
    if (key != name) continue;
    const auto number = ParseInt(value);
    if (!number || *number < 0) return InvalidArgument(StrCat("header ", name, " is no number"));
    return static_cast<std::uint64_t>(*number);
  }
  return InvalidArgument(StrCat("header ", name, " is missing"));
}

Status ReadItem(ByteReader* in, std::uint8_t version, ChangelogRecord* out, ItemChange* item) {
  out->space_id = in->GetString();
  item->record_timestamp_ms = in->Get<std::int64_t>();
  item->source_partition = in->Get<std::int32_t>();
  in->Get<std::int64_t>();  // its offset: for people who look at the topic
  const auto dim = in->Get<std::uint32_t>();
  if (dim == 0 || dim > kMaxDim) return InvalidArgument("item record: dimension out of range");
  const std::uint8_t type = version == 1 ? std::uint8_t{0} : in->Get<std::uint8_t>();
  if (type > static_cast<std::uint8_t>(VectorType::kFp16)) return InvalidArgument("item record: unknown vector type");
  const auto vectors = static_cast<VectorType>(type);
  auto vector = DecodeVector(in->GetBytes(dim * (vectors == VectorType::kFp32 ? sizeof(float) : 2)), dim, vectors);
  if (!vector.ok()) return InvalidArgument("item record: vector is short");
  item->update.vector = std::move(*vector);
  for (const float x : item->update.vector) {
    if (!std::isfinite(x)) return InvalidArgument("item record: vector is not finite");
  }
  item->update.attributes = GetAttributes(in);
  return Status::Ok();
}

Status ReadUser(ByteReader* in, std::uint8_t version, std::string_view key, UserChange* user) {
  const auto kind = in->Get<std::uint8_t>();
  user->record_timestamp_ms = in->Get<std::int64_t>();
  if (version >= 2) {
    user->source_topic = in->GetString();
    user->source.partition = in->Get<std::int32_t>();
    user->source.offset = in->Get<std::int64_t>();
  }
  if (kind == kInteraction) {
    Interaction interaction;
    interaction.user_id = key;
    interaction.item_id = in->GetString();
    interaction.event = in->GetString();
    interaction.value = in->Get<double>();
    interaction.timestamp_ms = in->Get<std::int64_t>();
    if (in->ok() && !IsValidId(interaction.item_id)) return InvalidArgument("user record: item id is not valid");
    user->body = std::move(interaction);
  } else if (kind == kProfile || kind == kForgotten) {
    UserUpdate update;
    update.user_id = key;
    update.forgotten = kind == kForgotten;
    update.features = GetFeatures(in);
    user->body = std::move(update);
  } else {
    return InvalidArgument("user record: unknown kind");
  }
  return Status::Ok();
}

}  // namespace

std::string EncodeItemValue(const ItemChange& change, std::string_view space_id, VectorType vectors) {
  ByteWriter out = Begin(kItem);
  out.PutString(space_id).Put(change.record_timestamp_ms);
  out.Put(change.position.partition).Put(change.position.offset);
  out.Put(static_cast<std::uint32_t>(change.update.vector.size())).Put(static_cast<std::uint8_t>(vectors));
  out.PutBytes(EncodeVector(change.update.vector, vectors));
  PutAttributes(change.update.attributes, &out);
  return Seal(std::move(out));
}

std::string EncodeUserValue(const UserChange& change, std::string_view source_topic) {
  ByteWriter out = Begin(kUser);
  const auto source = [&] { out.PutString(source_topic).Put(change.position.partition).Put(change.position.offset); };
  if (const auto* interaction = std::get_if<Interaction>(&change.body)) {
    out.Put(static_cast<std::uint8_t>(kInteraction)).Put(change.record_timestamp_ms);
    source();
    out.PutString(interaction->item_id).PutString(interaction->event);
    out.Put(interaction->value).Put(interaction->timestamp_ms);
  } else {
    const auto& update = std::get<UserUpdate>(change.body);
    out.Put(static_cast<std::uint8_t>(update.forgotten ? kForgotten : kProfile)).Put(change.record_timestamp_ms);
    source();
    PutFeatures(update.features, &out);
  }
  return Seal(std::move(out));
}

std::string EncodeProgressValue(const ChangelogProgress& progress) {
  const auto& owned = progress.owned.partitions;
  ByteWriter out;
  out.Put(owned ? kVersionOfOwned : kVersion).Put(static_cast<std::uint8_t>(kProgress));
  out.PutString(progress.space_id).Put(progress.as_of_ms);
  if (owned) PutPartitions(*owned, &out);
  return Seal(std::move(out));
}

Result<ChangelogRecord> DecodeChangelogRecord(const RawRecord& record, bool is_vectors_topic) {
  ChangelogRecord out;
  FRESHET_ASSIGN(out.epoch, HeaderNumber(record, kEpochHeader));
  FRESHET_ASSIGN(out.sequence, HeaderNumber(record, kSequenceHeader));
  if (!record.key) return InvalidArgument("record without a key");
  const bool is_progress = *record.key == kProgressKey;
  if (!is_progress && !IsValidId(*record.key)) return InvalidArgument("key is no valid id");
  if (!record.value) {
    if (!is_vectors_topic || is_progress) return InvalidArgument("record without a value");
    out.item.emplace();
    out.item->update.item_id = *record.key;
    out.item->update.deleted = true;
    out.item->record_timestamp_ms = record.timestamp_ms;
    out.item->sequence = out.sequence;
    return out;
  }
  const std::string_view value = *record.value;
  if (value.size() < 2 + sizeof(std::uint64_t)) return InvalidArgument("record is too short");
  const std::string_view body = value.substr(0, value.size() - sizeof(std::uint64_t));
  ByteReader checksum(value.substr(body.size()));
  if (checksum.Get<std::uint64_t>() != Xxh3(body)) return InvalidArgument("checksum differs");
  ByteReader in(body);
  const auto version = in.Get<std::uint8_t>();
  if (version < 1 || version > kVersionOfOwned) {
    const std::string text =
        StrCat("record version ", int{version}, ", this freshet reads 1 to ", int{kVersionOfOwned});
    return version > kVersion ? FailedPrecondition(text + ": it is older than the engine") : InvalidArgument(text);
  }
  const auto type = in.Get<std::uint8_t>();
  if (version == kVersionOfOwned && type != kProgress) return InvalidArgument("only progress records have version 3");
  if (is_progress && type == kProgress) {
    out.progress.emplace();
    out.progress->space_id = in.GetString();
    out.space_id = out.progress->space_id;
    out.progress->as_of_ms = in.Get<std::int64_t>();
    if (version == kVersionOfOwned) out.progress->owned.partitions = GetPartitions(&in);
  } else if (is_vectors_topic && type == kItem && !is_progress) {
    out.item.emplace();
    FRESHET_TRY(ReadItem(&in, version, &out, &*out.item));
    out.item->update.item_id = *record.key;
    out.item->sequence = out.sequence;
  } else if (!is_vectors_topic && type == kUser && !is_progress) {
    out.user.emplace();
    FRESHET_TRY(ReadUser(&in, version, *record.key, &*out.user));
    out.user->sequence = out.sequence;
  } else {
    return InvalidArgument("record type does not belong here");
  }
  if (!in.finished()) return InvalidArgument("record does not decode");
  return out;
}

PartitionProgress SourceProgress(const TopicPartition& changelog, const TopicPartition& source,
                                 std::int64_t next_offset, std::int64_t timestamp_ms, std::uint64_t epoch) {
  PartitionProgress row;
  row.partition = {StrCat(changelog.topic, ":", changelog.partition, ":", source.topic), source.partition};
  row.next_offset = next_offset;
  row.last_timestamp_ms = timestamp_ms;
  row.epoch = epoch;
  return row;
}

}  // namespace freshet
