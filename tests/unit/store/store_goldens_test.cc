// Stores of every format, committed: all that is in them is read as it was written down then. See data/README.md for
// what they are and how the next one is made.
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/metric.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "store_fixture.h"
#include "store_rows.h"

namespace freshet::test {
namespace {

std::string DataFile(const std::string& name) { return StrCat(SourceRoot(), "/tests/unit/store/data/", name); }

void WriteItems(const Store& store, std::string* out) {
  ASSERT_OK(store.ForEachItem([&](std::string_view id, const ItemRow& row) -> Status {
    FRESHET_ASSIGN(const auto vector, store.GetVector(row.label));
    FRESHET_ASSIGN(const auto features, store.GetFeatures(id));
    FRESHET_ASSIGN(const auto attributes, store.GetAttributes(id));
    if (!vector || !features || !attributes) return NotFound(StrCat("a part of ", id));
    JsonWriter json;
    json.BeginObject().Key("item_id").String(id).Key("label").Uint(row.label).Key("epoch").Uint(row.epoch);
    json.Key("sequence").Uint(row.sequence).Key("partition").Int(row.position.partition);
    json.Key("offset").Int(row.position.offset).Key("timestamp").Int(row.record_timestamp_ms);
    json.Key("generation").Uint(row.generation).Key("features_hash").Uint(row.features_hash);
    json.Key("attributes_hash").Uint(row.attributes_hash);
    if (row.source_partition >= 0) json.Key("source_partition").Int(row.source_partition);
    json.Key("features").Raw(FeaturesToJson(*features));
    json.Key("attributes").Raw(AttributesToJson(*attributes)).Key("vector").BeginArray();
    for (const float value : *vector) json.Double(static_cast<double>(value));
    json.EndArray().EndObject();
    *out += json.Take() + "\n";
    return Status::Ok();
  }));
}

void WriteUsers(const Store& store, std::string* out) {
  ASSERT_OK(store.ForEachUser([&](std::string_view id, const UserState& user) {
    JsonWriter json;
    json.BeginObject().Key("user_id").String(id).Key("epoch").Uint(user.epoch).Key("partition").Int(user.partition);
    json.Key("profile_partition").Int(user.profile_partition).Key("profile_generation").Uint(user.profile_generation);
    json.Key("features").Raw(FeaturesToJson(user.features)).Key("history").BeginArray();
    for (const HistoryEntry& entry : user.history) {
      json.BeginArray().String(entry.item_id).String(entry.event).Double(entry.value).Int(entry.timestamp_ms);
      json.EndArray();
    }
    json.EndArray().Key("seen").BeginArray();
    for (const std::string& seen : user.seen) json.String(seen);
    json.EndArray().EndObject();
    *out += json.Take() + "\n";
    return Status::Ok();
  }));
}

void WriteOffsetsAndOutbox(const Store& store, std::string* out) {
  const auto progress = store.Progress();
  ASSERT_OK(progress);
  for (const auto& [partition, row] : *progress) {
    JsonWriter json;
    json.BeginObject().Key("topic").String(partition.topic).Key("partition").Int(partition.partition);
    json.Key("next_offset").Int(row.next_offset).Key("last_timestamp").Int(row.last_timestamp_ms);
    json.Key("fingerprint").Uint(row.fingerprint).Key("epoch").Uint(row.epoch).Key("sequence").Uint(row.sequence);
    json.Key("complete_ms").Int(row.complete_ms).Key("generation").Uint(row.generation);
    json.Key("rereading").Bool(row.rereading).Key("seen_below").Int(row.seen_below).EndObject();
    *out += json.Take() + "\n";
  }
  const auto outbox = store.ReadOutbox(1'000, std::size_t{1} << 20);
  ASSERT_OK(outbox);
  ASSERT_EQ(outbox->size(), store.outbox_records());
  for (const OutboxEntry& entry : *outbox) {
    JsonWriter json;
    json.BeginObject().Key("outbox").Uint(entry.sequence).Key("user_event").Bool(entry.is_user_event);
    json.Key("key").String(entry.key).Key("value_xxh3");
    entry.value ? json.Uint(Xxh3(*entry.value)) : json.Null();
    *out += json.EndObject().Take() + "\n";
  }
}

// Everything that a store holds, but for its format.
std::string EverythingIn(const Store& store) {
  const StoreOptions& options = store.options();
  JsonWriter json;
  json.BeginObject().Key("epoch").Uint(store.epoch()).Key("sequence").Uint(store.sequence());
  json.Key("next_label").Uint(store.next_label()).Key("as_of_ms").Int(store.as_of_ms());
  json.Key("restored_epoch").Uint(store.restored_epoch()).Key("renumbered").Uint(store.renumbered());
  json.Key("space_id").String(options.space_id).Key("dim").Int(options.dim);
  json.Key("metric").String(MetricName(options.metric)).Key("fp16").Bool(options.vectors == VectorType::kFp16);
  const auto index_file = store.IndexFile();
  EXPECT_OK(index_file);
  json.Key("index_file").Bool(index_file.ok() && index_file->has_value());
  std::string out = json.EndObject().Take() + "\n";
  WriteItems(store, &out);
  WriteUsers(store, &out);
  WriteOffsetsAndOutbox(store, &out);
  return out;
}

void ExpectSameLines(const std::string& found, const std::string& expected) {
  std::istringstream left(found);
  std::istringstream right(expected);
  std::string a;
  std::string b;
  for (int line = 1; std::getline(right, b); ++line) {
    ASSERT_TRUE(std::getline(left, a)) << "line " << line << " is missing: " << b;
    ASSERT_EQ(a, b) << "line " << line;
  }
  EXPECT_FALSE(std::getline(left, a)) << "one more: " << a;
}

class GoldenStore : public ::testing::TestWithParam<const char*> {
 protected:
  void Unpack() {
    const std::string archive = DataFile(StrCat(GetParam(), ".tar.gz"));
    ASSERT_EQ(std::system(StrCat("tar -C '", dir_.path(), "' -xzf '", archive, "'").c_str()), 0);
  }
  [[nodiscard]] static std::string Expected() {
    const auto lines = ReadFile(DataFile(StrCat(GetParam(), ".jsonl")));
    EXPECT_OK(lines);
    return lines.ok() ? *lines : "";
  }
  // Of every file, what it is.
  [[nodiscard]] std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir_ / "store")) {
      if (entry.is_regular_file()) files[entry.path().string()] = *ReadFile(entry.path().string());
    }
    return files;
  }
  TempDir dir_;
};

TEST_P(GoldenStore, HoldsWhatItHeld) {
  ASSERT_NO_FATAL_FAILURE(Unpack());
  for (int round = 0; round < 2; ++round) {  // as it was, and once it is of today's format
    const auto store = Store::OpenExisting(dir_ / "store");
    ASSERT_OK(store);
    EXPECT_EQ((*store)->format(), StoreIdentity{}.format);
    ExpectSameLines(EverythingIn(**store), Expected());
    const auto check = (*store)->Check({});
    ASSERT_OK(check);
    EXPECT_EQ(check->differences, 0U) << check->examples.front();
    EXPECT_GT(check->covered, 0U);
  }
}

// A look at it changes no byte: an older format stays what it is.
TEST_P(GoldenStore, IsLookedAtWithoutBeingChanged) {
  ASSERT_NO_FATAL_FAILURE(Unpack());
  const auto before = Files();
  {
    const auto store = Store::OpenReadOnly(dir_ / "store");
    ASSERT_OK(store);
    EXPECT_EQ(StrCat((*store)->format()), std::string(GetParam()).substr(7, 1));
    ExpectSameLines(EverythingIn(**store), Expected());
    EXPECT_EQ((*store)->Check({})->differences, 0U);
    EXPECT_FALSE((*store)->writable());
    EXPECT_EQ((*store)->Write({}).code(), Code::kFailedPrecondition);
    EXPECT_EQ((*store)->TrimOutbox(1).code(), Code::kFailedPrecondition);
    EXPECT_EQ((*store)->PutIndexFile({}).code(), Code::kFailedPrecondition);
    EXPECT_EQ((*store)->BecomeRestored({}).code(), Code::kFailedPrecondition);
    EXPECT_EQ((*store)->Reopen().code(), Code::kFailedPrecondition);
    ASSERT_OK(Store::OpenReadOnly(dir_ / "store"));  // several may look
  }
  EXPECT_TRUE(Files() == before) << "a file was written, added or removed";
}

INSTANTIATE_TEST_SUITE_P(All, GoldenStore,
                         ::testing::Values("format-1", "format-2", "format-3", "format-3-fp16", "format-4",
                                           "format-4-fp16"),
                         [](const auto& name) {
                           std::string text = name.param;
                           std::replace(text.begin(), text.end(), '-', '_');
                           return text;
                         });

// One batch; every kind of value is in it.
class GoldenBatch {
 public:
  GoldenBatch(const std::string& topic, std::int32_t partition, std::int64_t offset) : offset_(offset) {
    batch_.space_id = "passthrough-8-cosine";
    batch_.as_of_ms = 1'700'000'000'000 + offset;
    PartitionProgress& progress = batch_.progress.emplace_back();
    progress.partition = {topic, partition};
    progress.complete_ms = 1'700'000'000'500;
  }
  GoldenBatch& Item(int i) {
    ItemChange& change = batch_.items.emplace_back();
    change.update.item_id = Id(i);
    change.update.vector.assign(8, 0);
    for (std::size_t d = 0; d < 8; ++d)
      change.update.vector[d] = static_cast<float>((i * 7 + static_cast<int>(d)) % 11);
    EXPECT_OK(PrepareVector(Metric::kCosine, 8, change.update.vector));
    change.update.features = {
        {"colour", std::string("blue")}, {"price", 0.5 + i}, {"words", std::vector<std::string>{"a", Id(i)}}};
    change.update.attributes = {{"genres", std::vector<std::string>{"x", "y"}},
                                {"in_stock", i % 2 == 0},
                                {"score", i / 7.0},
                                {"title", StrCat("title ", i)},
                                {"year", std::int64_t{1990 + i}}};
    return Place(&change);
  }
  GoldenBatch& Delete(int i) {
    ItemChange& change = batch_.items.emplace_back();
    change.update.item_id = Id(i);
    change.update.deleted = true;
    return Place(&change);
  }
  GoldenBatch& User(int i, std::variant<Interaction, UserUpdate> body) {
    std::visit([i](auto& event) { event.user_id = StrCat("user-", i); }, body);
    UserChange& change = batch_.users.emplace_back();
    change.body = std::move(body);
    return Place(&change);
  }
  [[nodiscard]] EncodedBatch Take() { return std::move(batch_); }
  static std::string Id(int i) { return StrCat("item-", i / 10, i % 10); }

 private:
  template <typename Change>
  GoldenBatch& Place(Change* change) {
    PartitionProgress& progress = batch_.progress[0];
    change->position = {progress.partition.partition, offset_};
    change->record_timestamp_ms = progress.last_timestamp_ms = 1'700'000'000'000 + offset_;
    progress.fingerprint = Xxh3(StrCat(offset_));
    progress.next_offset = ++offset_;
    return *this;
  }
  EncodedBatch batch_;
  std::int64_t offset_;
};

// Items, users, a partition that is being read again, an outbox of which a part is published; a part of it in tables,
// a part in the log; with its index file.
void MakeGolden(const std::string& directory, VectorType vectors) {
  StoreOptions options = OptionsAt(directory);
  options.space_id = "passthrough-8-cosine";
  options.dim = 8;
  options.vectors = vectors;
  ApplierOptions apply;
  apply.users_topic = "users";
  OpenNode node(options, apply);
  const auto apply_one = [&](EncodedBatch batch) { ASSERT_OK(node.applier->Apply(std::move(batch))); };
  for (int partition = 0; partition < 2; ++partition) {
    GoldenBatch batch("items", partition, 0);
    for (int i = partition; i < 40; i += 2) batch.Item(i);
    apply_one(batch.Take());
  }
  node.clock.AdvanceMs(1'700'000'001'000);
  apply_one(GoldenBatch("users", 0, 0).User(0, UserUpdate{"", false, {{"age", 33.0}}}).Take());
  GoldenBatch events("interactions", 0, 0);
  for (int i = 0; i < 30; ++i)
    events.User(i % 7, Interaction{"", GoldenBatch::Id(i), "view", 1.5, 1'700'000'000'000 + i});
  apply_one(events.Take());
  ASSERT_OK(node.store->TrimOutbox(40));
  node.SaveIndex();
  ASSERT_OK(node.store->Flush());
  apply_one(GoldenBatch("items", 0, 20).Delete(2).Item(41).Item(4).Take());
  apply_one(GoldenBatch("users", 0, 1).User(1, UserUpdate{"", true, {}}).Take());
  EncodedBatch reread;
  reread.space_id = options.space_id;
  reread.marks.push_back({PartitionMark::Kind::kReread, {"items", 1}, /*same_log=*/true});
  apply_one(std::move(reread));
  apply_one(GoldenBatch("items", 1, 0).Item(1).Item(3).Take());
}

// Not a test: with FRESHET_WRITE_GOLDENS=1 it makes what data/ does not hold yet, and never changes what it does.
TEST(GoldenStores, WriteWhatIsMissing) {
  if (std::getenv("FRESHET_WRITE_GOLDENS") == nullptr) GTEST_SKIP() << "set FRESHET_WRITE_GOLDENS=1";
  const std::string format = StrCat("format-", StoreIdentity{}.format);
  for (const std::string& name : {format, format + "-fp16"}) {
    const std::string archive = DataFile(name + ".tar.gz");
    if (FileExists(archive)) continue;
    const TempDir dir;
    ASSERT_NO_FATAL_FAILURE(MakeGolden(dir / "store", name == format ? VectorType::kFp32 : VectorType::kFp16));
    std::vector<std::filesystem::path> unneeded;
    for (const auto& entry : std::filesystem::directory_iterator(dir / "store")) {
      const std::string file = entry.path().filename();
      if (file == "LOCK" || file == "freshet.lock" || file.starts_with("OPTIONS-")) unneeded.push_back(entry.path());
    }
    for (const auto& path : unneeded) std::filesystem::remove(path);
    const std::string pack = StrCat("tar -C '", dir.path(), "' --owner=0 --group=0 -czf '", archive, "' store");
    ASSERT_EQ(std::system(pack.c_str()), 0);
  }
  for (const auto& entry : std::filesystem::directory_iterator(DataFile(""))) {
    const std::string archive = entry.path().string();
    if (!archive.ends_with(".tar.gz")) continue;
    const std::string expected = archive.substr(0, archive.size() - 7) + ".jsonl";
    if (FileExists(expected)) continue;
    const TempDir dir;
    ASSERT_EQ(std::system(StrCat("tar -C '", dir.path(), "' -xzf '", archive, "'").c_str()), 0);
    const auto store = Store::OpenReadOnly(dir / "store");
    ASSERT_OK(store);
    ASSERT_OK(WriteFileAtomically(expected, EverythingIn(**store)));
  }
}

}  // namespace
}  // namespace freshet::test
