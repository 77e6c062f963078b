// An engine with a model of its own: the snapshot holds the package too, and both come back together.
#include <filesystem>

#include "freshet/encoder/training.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(60);
constexpr int kItems = 24;

std::string ItemFeatures(int item) { return StrCat(R"({"title":"kind)", item % 4, " number", item, R"("})"); }

void TrainSmall(const std::string& directory, const std::string& out) {
  std::string items;
  std::string interactions;
  for (int i = 0; i < kItems; ++i) {
    items += StrCat(R"({"item_id":"i)", i, R"(","features":)", ItemFeatures(i), "}\n");
  }
  for (int time = 1; time <= 400; ++time) {
    const int user = time % 20;
    interactions += StrCat(R"({"user_id":"u)", user, R"(","item_id":"i)", user % 4 + 4 * (time * 7 / 20 % 6),
                           R"(","timestamp":)", time, "}\n");
  }
  ASSERT_OK(WriteFileAtomically(directory + "/items.jsonl", items));
  ASSERT_OK(WriteFileAtomically(directory + "/interactions.jsonl", interactions));
  TrainOptions options;
  options.items_file = directory + "/items.jsonl";
  options.interactions_file = directory + "/interactions.jsonl";
  options.out_directory = out;
  options.dim = 8;
  options.embedding_dim = 8;
  options.hidden = 8;
  options.epochs = 1;
  const auto report = Train(options, {});
  ASSERT_OK(report);
}

TEST(ModelSnapshot, HoldsThePackageThatMadeItsVectors) {
  const TempDir dir;
  ASSERT_NO_FATAL_FAILURE(TrainSmall(dir.path(), dir / "model"));
  auto broker = StartMockBroker();
  ASSERT_OK(broker);
  for (const char* topic : {"items", "interactions", "users", "vectors", "user-events", "dead-letters"}) {
    ASSERT_OK((*broker)->CreateTopic(topic, 2));
  }
  KafkaOptions kafka;
  kafka.bootstrap_servers = (*broker)->bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  const auto yaml = [&](const std::string& data, const std::string& package) {
    std::string text = EngineYaml(kafka.bootstrap_servers, data);
    const std::string passthrough = StrCat("encoder: {kind: passthrough, dim: ", kTestDim, ", metric: cosine}");
    text.replace(text.find(passthrough), passthrough.size(),
                 StrCat("encoder: {package: ", package, ", allowed_root: ", dir.path(), "}"));
    return text + StrCat("snapshots: {directory: ", dir / "snapshots", ", interval_seconds: 0}\n");
  };
  Service engine("run", dir / "engine", yaml(dir / "engine/data", dir / "model"));
  engine.Start();
  ASSERT_TRUE(engine.WaitUntilUp());
  std::vector<OutRecord> records;
  for (int i = 0; i < kItems; ++i) {
    OutRecord& record = records.emplace_back();
    record.topic = "items";
    record.key = StrCat("i", i);
    record.value = StrCat(R"({"features":)", ItemFeatures(i), R"(,"attributes":{"title":"t"}})");
  }
  ASSERT_OK((*producer)->Send(records, kSendTimeout));
  ASSERT_TRUE(WaitFor([&] { return engine.StatusOf("items_live") == kItems; }));
  std::string id;
  ASSERT_EQ(RunCommand({FreshetBinary(), "snapshot", "create", "--config", dir / "engine/config.yaml"}, &id), 0);
  ASSERT_EQ(engine.StopGracefully(), 0);
  const Dump before = DumpOf(engine.data());
  ASSERT_EQ(before.items.size(), static_cast<std::size_t>(kItems));

  // The package is gone with the machine: what the snapshot holds serves in its place.
  std::filesystem::remove_all(dir / "model");
  std::string model;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "snapshots")) model = entry.path() / "model";
  ASSERT_EQ(RunCommand({FreshetBinary(), "model", "verify", model}, nullptr), 0);
  std::filesystem::copy(model, dir / "model-of-the-snapshot");
  Service other("run", dir / "other", yaml(dir / "other/data", dir / "model-of-the-snapshot"));
  other.Start();
  ASSERT_TRUE(other.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return other.StatusOf("items_live") == kItems; }));
  ASSERT_EQ(other.StopGracefully(), 0);
  EXPECT_EQ(DumpOf(other.data()).items, before.items);
}

}  // namespace
}  // namespace freshet::test
