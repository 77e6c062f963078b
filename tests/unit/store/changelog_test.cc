#include "freshet/store/changelog.h"

#include <limits>
#include <random>

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
