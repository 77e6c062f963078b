#include "freshet/store/changelog.h"

#include <limits>
#include <random>

#include "freshet/core/checksum.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

RawRecord RecordOf(const std::string& key, const std::optional<std::string>& value) {
  RawRecord record;
  record.topic = "vectors";
  record.offset = 3;
  record.timestamp_ms = 555;
  record.key = key;
  if (value) record.value = *value;
  record.headers = {{kEpochHeader, "12"}, {kSequenceHeader, "34"}};
  return record;
}

ItemChange SomeItem() {
  ItemChange change;
  change.update.item_id = "a";
  change.update.vector = {0.25F, -1, 2};
  change.update.attributes = {{"in_stock", true}, {"title", std::string("Toy")}};
  change.record_timestamp_ms = 77;
  return change;
}

TEST(Changelog, ItemsRoundTrip) {
  const std::string key = "a";
  const std::optional<std::string> value = EncodeItemValue(SomeItem(), "space");
  const auto decoded = DecodeChangelogRecord(RecordOf(key, value), true);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->epoch, 12U);
  EXPECT_EQ(decoded->sequence, 34U);
  EXPECT_EQ(decoded->space_id, "space");
  ASSERT_TRUE(decoded->item);
  EXPECT_EQ(decoded->item->update.item_id, "a");
  EXPECT_EQ(decoded->item->update.vector, SomeItem().update.vector);
  EXPECT_EQ(decoded->item->update.attributes, SomeItem().update.attributes);
  EXPECT_EQ(decoded->item->record_timestamp_ms, 77);
  EXPECT_FALSE(decoded->item->update.deleted);
}

TEST(Changelog, HalfPrecisionTakesHalfTheBytesOfTheVector) {
  const std::optional<std::string> value = EncodeItemValue(SomeItem(), "space", VectorType::kFp16);
  EXPECT_EQ(value->size() + SomeItem().update.vector.size() * 2, EncodeItemValue(SomeItem(), "space").size());
  const std::string key = "a";
  const auto decoded = DecodeChangelogRecord(RecordOf(key, value), true);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->item->update.vector, SomeItem().update.vector);
}

// Records of version 1 are in topics that were written before: the same without these fields.
std::optional<std::string> AsVersion1(std::string value, std::size_t at, std::size_t bytes) {
  value.erase(at, bytes);
  value.resize(value.size() - sizeof(std::uint64_t));
  value[0] = 1;
  const std::uint64_t checksum = Xxh3(value);
  return value.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
}

TEST(Changelog, Version1IsReadToo) {
  // version, type, space, timestamp, source partition and offset, dimension | vector type
  constexpr std::size_t kVectorType = 2 + (4 + 5) + 8 + 4 + 8 + 4;
  const std::string item_key = "a";
  const auto item_value = AsVersion1(EncodeItemValue(SomeItem(), "space"), kVectorType, 1);
  const auto item = DecodeChangelogRecord(RecordOf(item_key, item_value), true);
  ASSERT_OK(item);
  EXPECT_EQ(item->item->update.vector, SomeItem().update.vector);
  EXPECT_EQ(item->item->update.attributes, SomeItem().update.attributes);
  // version, type, kind, timestamp | source: topic, partition, offset
  UserChange change;
  change.body = Interaction{"u", "a", "view", 1, 5};
  const std::string user_key = "u";
  const auto user_value = AsVersion1(EncodeUserValue(change), 11, 4 + 4 + 8);
  const auto user = DecodeChangelogRecord(RecordOf(user_key, user_value), false);
  ASSERT_OK(user);
  EXPECT_EQ(user->user->source_topic, "");
  EXPECT_EQ(std::get<Interaction>(user->user->body).item_id, "a");
}

TEST(Changelog, ANullValueIsADeleteOrderedByItsHeaders) {
  const std::string key = "a";
  const auto decoded = DecodeChangelogRecord(RecordOf(key, std::nullopt), true);
  ASSERT_OK(decoded);
  ASSERT_TRUE(decoded->item);
  EXPECT_TRUE(decoded->item->update.deleted);
  EXPECT_EQ(decoded->item->sequence, 34U);
  EXPECT_FALSE(DecodeChangelogRecord(RecordOf(key, std::nullopt), false).ok()) << "user events have no null";
}

TEST(Changelog, UserEventsAndProgressRoundTrip) {
  const std::string key = "u";
  UserChange change;
  change.body = Interaction{"u", "a", "view", 2.5, 99};
  std::optional<std::string> value = EncodeUserValue(change);
  auto decoded = DecodeChangelogRecord(RecordOf(key, value), false);
  ASSERT_OK(decoded);
  EXPECT_EQ(std::get<Interaction>(decoded->user->body).value, 2.5);
  change.body = UserUpdate{"u", true, {}};
  value = EncodeUserValue(change);
  decoded = DecodeChangelogRecord(RecordOf(key, value), false);
  ASSERT_OK(decoded);
  EXPECT_TRUE(std::get<UserUpdate>(decoded->user->body).forgotten);
  const std::string progress_key(kProgressKey);
  value = EncodeProgressValue({4711, "space"});
  decoded = DecodeChangelogRecord(RecordOf(progress_key, value), true);
  ASSERT_OK(decoded);
  ASSERT_TRUE(decoded->progress);
  EXPECT_EQ(decoded->progress->as_of_ms, 4711);
  EXPECT_FALSE(decoded->progress->owned.partitions);
  EXPECT_EQ((*value)[0], 2) << "so that an older sidecar reads it";
  for (const std::vector<std::int32_t>& owned : {std::vector<std::int32_t>(), {0, 7}}) {
    value = EncodeProgressValue({4711, "space", {owned}});
    decoded = DecodeChangelogRecord(RecordOf(progress_key, value), true);
    ASSERT_OK(decoded);
    EXPECT_EQ(decoded->progress->owned.partitions, owned);
  }
}

TEST(Changelog, AnItemSaysWhichPartitionItIsOf) {
  ItemChange item = SomeItem();
  item.position = {5, 8};
  const std::string key = "a";
  const std::string value = EncodeItemValue(item, "space");
  const auto decoded = DecodeChangelogRecord(RecordOf(key, value), true);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->item->source_partition, 5);
}

TEST(Changelog, EveryFlippedBitAndEveryTruncationIsRefused) {
  const std::string key = "a";
  const std::string good = EncodeItemValue(SomeItem(), "space");
  for (std::size_t n = 0; n < good.size(); ++n) {
    const std::optional<std::string> cut = good.substr(0, n);
    EXPECT_EQ(DecodeChangelogRecord(RecordOf(key, cut), true).status().code(), Code::kInvalidArgument) << n;
    for (int bit = 0; bit < 8; ++bit) {
      std::optional<std::string> flipped = good;
      (*flipped)[n] = static_cast<char>((*flipped)[n] ^ (1 << bit));
      EXPECT_FALSE(DecodeChangelogRecord(RecordOf(key, flipped), true).ok()) << n << "." << bit;
    }
  }
}

TEST(Changelog, RefusesMissingHeadersForeignTypesAndNaN) {
  const std::string key = "a";
  ItemChange change = SomeItem();
  const std::optional<std::string> value = EncodeItemValue(change, "space");
  RawRecord record = RecordOf(key, value);
  record.headers.clear();
  EXPECT_FALSE(DecodeChangelogRecord(record, true).ok());
  EXPECT_FALSE(DecodeChangelogRecord(RecordOf(key, value), false).ok()) << "an item among user events";
  change.update.vector[1] = std::numeric_limits<float>::quiet_NaN();
  const std::optional<std::string> nan = EncodeItemValue(change, "space");
  EXPECT_FALSE(DecodeChangelogRecord(RecordOf(key, nan), true).ok());
  const std::string bad_key = "\xff";
  EXPECT_FALSE(DecodeChangelogRecord(RecordOf(bad_key, value), true).ok());
}

}  // namespace
}  // namespace freshet
