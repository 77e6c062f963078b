// Stores of released formats are opened by this freshet, those of a newer one are refused; see data/README.md for how
// they were made.
#include <cstdlib>

#include "fault_env.h"
#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/store/changelog.h"
#include "freshet/store/restore.h"
#include "store_fixture.h"
#include "store_rows.h"

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

// What a freshet to come may do to a store.
void MakeItNewer(const std::string& directory, std::uint32_t format, bool another_family) {
  StoreIdentity identity;
  identity.format = format;
  identity.dim = kStoreDim;
  identity.metric = MetricName(Metric::kCosine);
  identity.space_id = "s";
  ASSERT_TRUE(
      PutRaw(directory, "meta", "identity", EncodeIdentity(identity), another_family ? "of_a_newer_freshet" : ""));
}

// Refused by number, and not taken for damaged: that would set it aside, and put a snapshot or nothing in its place.
TEST(StoreFormats, ANewerOneIsRefusedByNumber) {
  for (const bool another_family : {false, true}) {
    SCOPED_TRACE(another_family);
    const TempDir dir;
    { OpenNode(dir / "data"); }
    ASSERT_NO_FATAL_FAILURE(MakeItNewer(dir / "data", StoreIdentity{}.format + 1, another_family));
    const std::string expected = StrCat("store format ", StoreIdentity{}.format + 1);
    for (const Status& status : {Store::Open(OptionsAt(dir / "data")).status(),
                                 Store::OpenExisting(dir / "data").status(), Store::OpenReadOnly(dir / "data").status(),
                                 OpenOrRestore(OptionsAt(dir / "data"), nullptr, false, false, {}, {}).status()}) {
      EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.ToString();
      EXPECT_NE(status.message().find(expected), std::string::npos) << status.ToString();
    }
    EXPECT_TRUE(FileExists(dir / "data/CURRENT"));
    EXPECT_FALSE(FileExists(dir / "data/damaged/CURRENT"));
  }
}

TEST(StoreFormats, AFamilyThatNoFormatHasIsDamage) {
  const TempDir dir;
  { OpenNode(dir / "data"); }
  ASSERT_NO_FATAL_FAILURE(MakeItNewer(dir / "data", StoreIdentity{}.format, /*another_family=*/true));
  EXPECT_EQ(Store::Open(OptionsAt(dir / "data")).status().code(), Code::kCorruption);
}

TEST(StoreFormats, ANewerChangelogRecordIsRefusedByNumber) {
  std::optional<std::string> value = EncodeProgressValue({4711, "space", {std::vector<std::int32_t>()}});
  value->resize(value->size() - sizeof(std::uint64_t));
  const int version = (*value)[0]++;
  const std::uint64_t checksum = Xxh3(*value);
  value->append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  RawRecord record;
  record.key = kProgressKey;
  record.value = *value;
  record.headers = {{kEpochHeader, "12"}, {kSequenceHeader, "34"}};
  const Status status = DecodeChangelogRecord(record, true).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition) << "it ends the sidecar; skipped, it would be unknown for ever";
  EXPECT_NE(status.message().find(StrCat("record version ", version + 1)), std::string::npos) << status.ToString();
}

// A look does not take the directory from its owner, nor does it need one that can be written.
TEST(StoreFormats, ALookWaitsForTheOwnerToBeGone) {
  const TempDir dir;
  {
    const auto owner = Store::Open(OptionsAt(dir / "data"));
    ASSERT_OK(owner);
    const Status look = Store::OpenReadOnly(dir / "data").status();
    EXPECT_EQ(look.code(), Code::kFailedPrecondition);
    EXPECT_NE(look.message().find(std::to_string(::getpid())), std::string::npos) << look.ToString();
  }
  const auto look = Store::OpenReadOnly(dir / "data");
  ASSERT_OK(look);
  EXPECT_EQ(Store::Open(OptionsAt(dir / "data")).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(Store::OpenReadOnly(dir / "elsewhere").status().code(), Code::kNotFound);
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
  const auto enough = [](double) { return Cancelled("enough"); };
  EXPECT_EQ((*store)->Check({"items", enough})->items, 1U);  // too short to be asked
}

// The offsets that cover items are those of their topic: another one that is further hides nothing.
TEST(StoreCheck, AnItemIsCoveredByItsOwnTopicAlone) {
  const TempDir dir;
  OpenNode node(dir / "data");
  ASSERT_OK(node.applier->Apply(Changes(0, "interactions").Buy("u", "a").Buy("u", "b").Buy("u", "c").Take()));
  EncodedBatch gap = Changes(0).Put("a").Put("b").Take();
  gap.progress[0].next_offset = 1;  // as a defect would leave it
  ASSERT_OK(node.applier->Apply(std::move(gap)));
  const auto check = node.store->Check({});
  ASSERT_OK(check);
  EXPECT_EQ(check->covered, 2U);
  ASSERT_EQ(check->differences, 1U);
  EXPECT_EQ(check->examples[0], "items `b` comes from an offset that is not covered");
  StoreCheck page;
  EXPECT_EQ(*node.store->CheckNumbers("items", "", 1, &page), "b");
  EXPECT_EQ(page.differences, 0U);
  EXPECT_EQ(*node.store->CheckNumbers("items", "b", 1, &page), std::nullopt);
  EXPECT_EQ(page.differences, 1U);
  EXPECT_EQ(page.items, 2U);
  EXPECT_EQ(node.store->Check({"of another name", {}})->covered, 0U);
}

}  // namespace
}  // namespace freshet::test
