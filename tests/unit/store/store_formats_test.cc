// Stores of released formats are opened by this freshet; see data/README.md for how they were made.
#include <cstdlib>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/store/restore.h"
#include "store_fixture.h"

namespace freshet::test {
namespace {

void Unpack(const TempDir& dir, int format) {
  const std::string unpack =
      StrCat("tar -C '", dir.path(), "' -xzf '", SourceRoot(), "/tests/unit/store/data/format-", format, ".tar.gz'");
  ASSERT_EQ(std::system(unpack.c_str()), 0);
}

class StoreOfFormat : public ::testing::TestWithParam<int> {};

TEST_P(StoreOfFormat, IsOpenedReadAndMigrated) {
  const TempDir dir;
  ASSERT_NO_FATAL_FAILURE(Unpack(dir, GetParam()));
  for (int round = 0; round < 2; ++round) {  // as it was, and once it is of today's
    auto store = Store::OpenExisting(dir / "store");
    ASSERT_OK(store);
    EXPECT_EQ((*store)->options().space_id, "passthrough-8-cosine");
    EXPECT_EQ((*store)->options().vectors, VectorType::kFp32);
    EXPECT_EQ((*store)->Check({})->differences, 0U);
    std::size_t items = 0;
    std::size_t users = 0;
    ASSERT_OK(ForEachLine(dir / "dump.jsonl", [&](std::string_view line, double) -> Status {
      FRESHET_ASSIGN(const auto json, ParseJson(line));
      if (const JsonValue* id = JsonFind(*json, "item_id")) {
        ++items;
        FRESHET_ASSIGN(const auto row, (*store)->GetItem(JsonText(*id)));
        if (!row) return NotFound("item");
        EXPECT_EQ(row->sequence, JsonFind(*json, "sequence")->GetUint64());
        EXPECT_EQ(row->position.offset, JsonFind(*json, "offset")->GetInt64());
        FRESHET_ASSIGN(const auto vector, (*store)->GetVector(row->label));
        EXPECT_EQ(Xxh3({reinterpret_cast<const char*>(vector->data()), vector->size() * sizeof(float)}),
                  JsonFind(*json, "vector_xxh3")->GetUint64());
        FRESHET_ASSIGN(const auto attributes, (*store)->GetAttributes(JsonText(*id)));
        EXPECT_EQ(AttributesToJson(*attributes), ToJson(*JsonFind(*json, "attributes")));
      } else if (const JsonValue* user = JsonFind(*json, "user_id")) {
        ++users;
        FRESHET_ASSIGN(const auto state, (*store)->GetUser(JsonText(*user)));
        EXPECT_EQ(state->history.size(), JsonFind(*json, "history")->Size());
      }
      return Status::Ok();
    }));
    EXPECT_EQ(items, 40U);
    EXPECT_EQ(users, 7U);
  }
}

INSTANTIATE_TEST_SUITE_P(Released, StoreOfFormat, ::testing::Values(1, 2));

// Its snapshot and its index file, too: manifest and index file are of version 1.
TEST(StoreFormats, ASnapshotOfFormat2IsRestoredWithoutBuildingAnything) {
  const TempDir dir;
  ASSERT_NO_FATAL_FAILURE(Unpack(dir, 2));
  const auto repository = OpenLocalRepository(dir / "snapshots");
  const auto entries = repository->List();
  ASSERT_OK(entries);
  ASSERT_EQ(entries->size(), 1U);
  ASSERT_OK((*entries)[0].status);
  ASSERT_OK(repository->Verify((*entries)[0].manifest, {}));
  RestoreOptions restore;
  restore.data_dir = dir / "restored";
  ASSERT_OK(RestoreSnapshot(*repository, restore));
  for (const char* directory : {"store", "restored"}) {
    SCOPED_TRACE(directory);
    StoreOptions options = OptionsAt(dir / directory);
    options.space_id = "passthrough-8-cosine";
    options.dim = 8;
    auto store = Store::Open(options);
    ASSERT_OK(store);
    HnswOptions index;
    index.dim = 8;
    SystemClock clock;
    Metrics metrics;
    Applier applier({}, options, store->get(), &clock, &metrics);
    ASSERT_OK(applier.Rebuild([&] {
      return IndexFiles(store->get())
          .Open([&](const std::string& path) { return OpenHnswIndex(path, index); },
                [&] { return MakeHnswIndex(index); });
    }));
    EXPECT_EQ(applier.rebuilt_items(), 0U) << "the file brought everything";
    EXPECT_OK(applier.Audit());
    EXPECT_EQ(applier.catalog().live(), 40U);
  }
}

TEST(StoreFormats, Fp16KeepsWhatIsIndexedAndPublished) {
  const TempDir dir;
  StoreOptions options = OptionsAt(dir / "data");
  options.vectors = VectorType::kFp16;
  float stored = 0;
  {
    OpenNode node(options);
    ASSERT_OK(node.applier->Apply(Changes().Put("a", 0.123456F).Take()));
    stored = (**node.applier->GetVector("a"))[0];
    EXPECT_NE(stored, 0.123456F);
    EXPECT_NEAR(stored, 0.123456F, 1e-4);
    SearchOptions nearest;
    nearest.k = 1;
    const auto hits = node.applier->index().Search(std::vector<float>{1, 0, 0}, nearest);
    EXPECT_EQ((*hits)[0].score, stored);
    EXPECT_EQ(node.store->Check({})->differences, 0U);
  }
  // What a store was made with counts.
  options.vectors = VectorType::kFp32;
  OpenNode node(options);
  EXPECT_EQ(node.store->options().vectors, VectorType::kFp16);
  EXPECT_EQ((**node.applier->GetVector("a"))[0], stored);
}

// What Check() is for: each kind of difference is named.
TEST(StoreCheck, NamesWhatDiffers) {
  const TempDir dir;
  auto store = Store::Open(OptionsAt(dir / "data"));
  ASSERT_OK(store);
  ItemUpdate update;
  update.item_id = "a";
  update.vector = {1, 0, 0};
  Commit commit;
  Commit::Item item;
  item.item_id = "a";
  item.update = &update;
  item.row.label = 5;
  item.row.sequence = 9;
  item.row.epoch = (*store)->epoch();
  item.row.position = {0, 7};
  commit.items.push_back(item);
  commit.progress.push_back(PartitionProgress{{"items", 0}, 3, 0, 0, 0, 0});
  commit.outbox.push_back({9, false, "a", std::nullopt});
  commit.next_label = 4;
  commit.sequence = 8;
  ASSERT_OK((*store)->Write(commit));
  const auto check = (*store)->Check({});
  ASSERT_OK(check);
  EXPECT_EQ(check->differences, 4U) << check->examples.size();
  // The item again, under another label, without letting go of the first.
  commit.items[0].row.label = 6;
  commit.next_label = 10;
  commit.sequence = 20;
  commit.progress[0].next_offset = 8;
  ASSERT_OK((*store)->Write(commit));
  const auto again = (*store)->Check({});
  ASSERT_OK(again);
  EXPECT_EQ(again->differences, 1U);
  EXPECT_EQ((*store)->Check([](double) { return Cancelled("enough"); })->items, 1U);  // too short to be asked
}

}  // namespace
}  // namespace freshet::test
