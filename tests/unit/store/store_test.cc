#include "freshet/store/store.h"

#include <fstream>

#include "freshet_test/test_support.h"
#include "store_rows.h"

namespace freshet {
namespace {

StoreOptions Options(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.space_id = "space-a";
  options.dim = 3;
  return options;
}

ItemUpdate Item(const std::string& id, float x) {
  ItemUpdate update;
  update.item_id = id;
  update.features = {{"price", 1.5}};
  update.attributes = {{"title", std::string("title of " + id)}};
  update.vector = {x, 0, 1};
  return update;
}

Commit CommitOf(const ItemUpdate& update, Label label, std::uint64_t sequence, std::int64_t next_offset) {
  Commit commit;
  Commit::Item item;
  item.item_id = update.item_id;
  item.update = &update;
  item.row.label = label;
  item.row.sequence = sequence;
  commit.items.push_back(item);
  PartitionProgress progress;
  progress.partition = {"items", 3};
  progress.next_offset = next_offset;
  progress.fingerprint = 77;
  commit.progress.push_back(progress);
  commit.outbox.push_back({sequence, false, update.item_id, "value"});
  commit.next_label = label + 1;
  commit.sequence = sequence;
  commit.as_of_ms = 1234;
  return commit;
}

TEST(Store, KeepsACommitAcrossReopening) {
  const test::TempDir dir;
  const ItemUpdate update = Item("a", 0.5F);
  std::uint64_t epoch = 0;
  {
    auto store = Store::Open(Options(dir / "data"));
    ASSERT_OK(store);
    epoch = (*store)->epoch();
    EXPECT_GT(epoch, 0U);
    Commit commit = CommitOf(update, 7, 9, 42);
    UserState user;
    user.history.push_back({"a", "view", 2.0, 99});
    user.seen = {"a"};
    user.features = {{"country", std::string("FR")}};
    commit.users.emplace_back("u1", user);
    ASSERT_OK((*store)->Write(commit));
  }
  auto store = Store::Open(Options(dir / "data"));
  ASSERT_OK(store);
  EXPECT_EQ((*store)->epoch(), epoch);
  EXPECT_EQ((*store)->next_label(), 8U);
  EXPECT_EQ((*store)->sequence(), 9U);
  EXPECT_EQ((*store)->as_of_ms(), 1234);
  const auto row = (*store)->GetItem("a");
  ASSERT_OK(row);
  ASSERT_TRUE(*row);
  EXPECT_EQ((*row)->label, 7U);
  EXPECT_EQ(**(*store)->GetVector(7), update.vector);
  EXPECT_EQ(**(*store)->GetFeatures("a"), update.features);
  EXPECT_EQ(**(*store)->GetAttributes("a"), update.attributes);
  const auto user = (*store)->GetUser("u1");
  ASSERT_OK(user);
  ASSERT_TRUE(*user);
  EXPECT_EQ((*user)->history.at(0).item_id, "a");
  EXPECT_EQ((*user)->seen, std::vector<std::string>{"a"});
  const auto progress = (*store)->Progress();
  ASSERT_OK(progress);
  ASSERT_EQ(progress->size(), 1U);
  EXPECT_EQ(progress->begin()->first, (TopicPartition{"items", 3}));
  EXPECT_EQ(progress->begin()->second.next_offset, 42);
  EXPECT_EQ(progress->begin()->second.fingerprint, 77U);
  EXPECT_EQ((*store)->outbox_records(), 1U);
}

TEST(Store, ReplacingAndDeletingLeavesNoRowsBehind) {
  const test::TempDir dir;
  auto store = Store::Open(Options(dir / "data"));
  ASSERT_OK(store);
  const ItemUpdate first = Item("a", 0.1F);
  const ItemUpdate second = Item("a", 0.2F);
  ASSERT_OK((*store)->Write(CommitOf(first, 1, 1, 1)));
  Commit replace = CommitOf(second, 2, 2, 2);
  replace.items[0].old_label = 1;
  ASSERT_OK((*store)->Write(replace));
  EXPECT_FALSE(*(*store)->GetVector(1));
  EXPECT_EQ(**(*store)->GetVector(2), second.vector);
  Commit remove = CommitOf(second, 2, 3, 3);
  remove.items[0].old_label = 2;
  remove.items[0].deleted = true;
  ASSERT_OK((*store)->Write(remove));
  EXPECT_FALSE(*(*store)->GetItem("a"));
  EXPECT_FALSE(*(*store)->GetVector(2));
  EXPECT_FALSE(*(*store)->GetFeatures("a"));
  EXPECT_FALSE(*(*store)->GetAttributes("a"));
}

TEST(Store, OutboxIsReadInOrderBoundedAndTrimmed) {
  const test::TempDir dir;
  {
    auto store = Store::Open(Options(dir / "data"));
    ASSERT_OK(store);
    for (std::uint64_t i = 1; i <= 300; ++i) {
      ASSERT_OK((*store)->Write(CommitOf(Item("i" + std::to_string(i), 1), i, i, static_cast<std::int64_t>(i))));
    }
    const auto some = (*store)->ReadOutbox(10, 1 << 20);
    ASSERT_OK(some);
    ASSERT_EQ(some->size(), 10U);
    EXPECT_EQ(some->front().sequence, 1U);
    EXPECT_EQ(some->back().sequence, 10U);
    const auto few = (*store)->ReadOutbox(1000, 1);
    ASSERT_OK(few);
    EXPECT_EQ(few->size(), 1U) << "the byte bound lets at least one through";
    ASSERT_OK((*store)->TrimOutbox(299));
    EXPECT_EQ((*store)->outbox_records(), 1U);
  }
  auto store = Store::Open(Options(dir / "data"));
  ASSERT_OK(store);
  EXPECT_EQ((*store)->outbox_records(), 1U);
  const auto rest = (*store)->ReadOutbox(10, 1 << 20);
  ASSERT_OK(rest);
  ASSERT_EQ(rest->size(), 1U);
  EXPECT_EQ(rest->front().sequence, 300U);
  ASSERT_OK((*store)->TrimOutbox(300));
  EXPECT_EQ((*store)->outbox_bytes(), 0U);
}

TEST(Store, ASecondOwnerIsRefusedByName) {
  const test::TempDir dir;
  auto store = Store::Open(Options(dir / "data"));
  ASSERT_OK(store);
  const auto second = Store::Open(Options(dir / "data"));
  EXPECT_EQ(second.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(second.status().message().find(std::to_string(::getpid())), std::string::npos);
}

TEST(Store, AnotherEmbeddingSpaceOrDimensionIsRefused) {
  const test::TempDir dir;
  { ASSERT_OK(Store::Open(Options(dir / "data"))); }
  StoreOptions other = Options(dir / "data");
  other.space_id = "space-b";
  EXPECT_EQ(Store::Open(other).status().code(), Code::kFailedPrecondition);
  other = Options(dir / "data");
  other.dim = 4;
  EXPECT_EQ(Store::Open(other).status().code(), Code::kFailedPrecondition);
  EXPECT_OK(Store::OpenExisting(dir / "data"));
  EXPECT_EQ(Store::OpenExisting(dir / "elsewhere").status().code(), Code::kNotFound);
}

TEST(StoreRows, EveryTruncationAndEveryForeignVersionIsRefused) {
  ItemRow item;
  item.label = 5;
  UserState user;
  user.history.push_back({"a", "view", 1, 2});
  user.seen = {"a", "b"};
  user.features = {{"age", 3.0}};
  PartitionProgress progress;
  progress.partition = {"items", 1};
  const std::string key = OffsetKey(progress.partition);
  const auto all_refused = [](const std::string& bytes, const auto& decode) {
    EXPECT_TRUE(decode(bytes).ok());
    for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode(bytes.substr(0, n)).ok()) << n;
    EXPECT_FALSE(decode(bytes + "x").ok());
    std::string foreign = bytes;
    foreign[0] = 99;
    EXPECT_FALSE(decode(foreign).ok());
  };
  all_refused(EncodeItemRow(item), [](const std::string& b) { return DecodeItemRow(b); });
  all_refused(EncodeUserRow(user), [](const std::string& b) { return DecodeUserRow(b); });
  all_refused(EncodeOffsetRow(progress), [&](const std::string& b) { return DecodeOffsetRow(key, b); });
  all_refused(EncodeOutboxRow({1, true, "k", "v"}), [](const std::string& b) { return DecodeOutboxRow(1, b); });
  all_refused(EncodeState({}), [](const std::string& b) { return DecodeState(b); });
  EXPECT_FALSE(DecodeOffsetKey("short").ok());
}

}  // namespace
}  // namespace freshet
