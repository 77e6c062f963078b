// `freshet train --topics`: from what an engine reads to a package, without files in between that anybody made.
#include <fstream>
#include <random>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet_test/embedded_broker.h"
#include "freshet_test/process.h"

namespace freshet::test {
namespace {

constexpr int kTimeoutMs = 300'000;
constexpr int kItems = 40;
constexpr int kUsers = 30;
constexpr int kInteractions = 600;  // one a second
constexpr std::int64_t kBegin = 1'700'000'000'000;

class TrainTopicsTest : public EmbeddedBrokerTest {
 protected:
  TrainTopicsTest() {
    std::mt19937_64 random(TestSeed());
    std::ofstream(dir_ / "engine.yaml") << EngineYaml(broker_->bootstrap_servers(), dir_ / "engine");
    std::vector<OutRecord> records;
    const auto add = [&](const char* topic, std::string key, std::string value, int second) {
      OutRecord& record = records.emplace_back();
      record.topic = topic;
      record.key = std::move(key);
      record.value = std::move(value);
      record.timestamp_ms = kBegin + second * 1000;
    };
    for (int i = 0; i < kItems; ++i) {
      add("items", StrCat("i", i), StrCat(R"({"features": {"title": "kind)", i % 4, R"("}})"), 0);
    }
    for (int i = 0; i < kUsers; ++i) add("users", StrCat("u", i), StrCat(R"({"features": {"age": )", 20 + i, "}}"), 0);
    for (int second = 1; second <= kInteractions; ++second) {
      const std::string user = StrCat("u", random() % kUsers);
      add("interactions", user, StrCat(R"({"item_id": "i)", random() % kItems, R"("})"), second);
    }
    EXPECT_OK(producer_->Send(std::move(records), std::chrono::seconds(60)));
  }

  [[nodiscard]] std::vector<std::string> Command(const std::vector<std::string>& more) const {
    std::vector<std::string> command = {FreshetBinary(), "train", "--topics",        dir_ / "engine.yaml",
                                        "--epochs",      "1",     "--dim",           "8",
                                        "--hidden",      "8",     "--embedding-dim", "8",
                                        "--batch-size",  "64",    "--no-report",     "--json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
};

TEST_F(TrainTopicsTest, ReadsUpToTheEndsAndTrains) {
  std::string out;
  ASSERT_EQ(RunCommand(Command({"--out", dir_ / "model"}), &out, kTimeoutMs), 0) << out;
  const auto report = ParseJson(out);
  ASSERT_OK(report);
  EXPECT_EQ(JsonFind(**report, "items")->GetInt(), kItems);
  EXPECT_EQ(JsonFind(**report, "users")->GetInt(), kUsers);
  EXPECT_EQ(JsonFind(**report, "train_pairs")->GetInt(), kInteractions * 9 / 10);
  EXPECT_EQ(RunCommand({FreshetBinary(), "model", "verify", dir_ / "model"}, nullptr), 0);

  const Result<std::string> offsets = ReadFile(dir_ / "model.events/offsets.json");
  ASSERT_OK(offsets);
  int lines = 0;
  ASSERT_OK(ForEachLine(dir_ / "model.events/interactions.jsonl", [&](std::string_view, double) {
    ++lines;
    return Status::Ok();
  }));
  EXPECT_EQ(lines, kInteractions);

  // What is read is fixed beforehand, and --until leaves out the newest of it.
  out.clear();
  ASSERT_EQ(RunCommand(Command({"--out", dir_ / "older", "--until", StrCat(kBegin + 301 * 1000)}), &out, kTimeoutMs), 0)
      << out;
  const auto older = ParseJson(out);
  ASSERT_OK(older);
  EXPECT_EQ(JsonFind(**older, "train_pairs")->GetInt(), 270);
  EXPECT_EQ(*ReadFile(dir_ / "older.events/offsets.json"), *offsets);
}

}  // namespace
}  // namespace freshet::test
