// The engine killed with -9 at every step of storing, publishing, snapshots and restores, each in turn and then at
// random: after each kill it comes back by itself, and in the end it, its sidecar and its snapshots are what the oracle
// says. The broker is the embedded one, in a process of its own.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>

#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/oracle.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

constexpr int kItems = 60;
constexpr int kUsers = 10;

// Every fault point that a kill can hit, with how often it may be passed first.
const std::vector<std::string> kPoints = {
    "store.before_write",      "store.after_write",          "applier.between_index_and_catalog",
    "changelog.before_send",   "changelog.after_send",       "outbox.before_trim",
    "outbox.after_trim",       "snapshot.before_checkpoint", "snapshot.after_checkpoint",
    "index_file.before_write", "index_file.after_write",     "index_file.before_named",
    "index_file.after_named",  "snapshot.before_file",       "snapshot.before_manifest",
    "snapshot.before_publish", "snapshot.after_publish",     "snapshot.before_remove",
    "snapshot.after_remove",   "restore.before_file",        "restore.before_move",
    "restore.before_current",  "restore.after_current"};

struct Tries {
  int tries = 0;
  int hit = 0;  // killed by the point itself
};

class SnapshotCrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    broker_ = std::make_unique<Process>(
        std::vector<std::string>{FreshetBinary(), "broker", "--address-file", dir_ / "broker", "--topic", "items:2",
                                 "interactions:2", "users:2", "vectors:2", "user-events:2", "dead-letters:1"},
        dir_ / "broker.log");
    ASSERT_TRUE(WaitFor([this] { return FileExists(dir_ / "broker"); }));
    KafkaOptions kafka;
    kafka.bootstrap_servers = std::string(Trim(*ReadFile(dir_ / "broker")));
    auto producer = OpenKafkaProducer(kafka);
    ASSERT_OK(producer);
    producer_ = std::move(*producer);
    const std::string store = StrCat("store: {history: 10000, seen: 100000, write_buffer_bytes: 1048576}\n",
                                     "snapshots: {directory: ", dir_ / "snapshots");
    engine_ =
        std::make_unique<Service>("run", dir_ / "engine",
                                  EngineYaml(kafka.bootstrap_servers, dir_ / "engine/data") + store +
                                      ", records: 20, interval_seconds: 0, bytes_per_second: 0, keep: {count: 2}}\n");
    sidecar_ = std::make_unique<Service>("sidecar", dir_ / "sidecar",
                                         SidecarYaml(kafka.bootstrap_servers, dir_ / "sidecar/data") + store + "}\n");
  }

  void Send(int records) {
    std::vector<OutRecord> batch;
    for (int i = 0; i < records; ++i) batch.push_back(stream_->Next(&oracle_));
    for (int i = 0; i < records / 3; ++i, ++bought_) {
      OutRecord record;
      record.topic = "interactions";
      record.key = StrCat("u", bought_ % kUsers);
      record.value = StrCat(R"({"item_id":"bought-)", bought_, R"(","timestamp":)", bought_ + 1, "}");
      histories_[*record.key].push_back(StrCat("bought-", bought_));
      batch.push_back(record);
    }
    ASSERT_OK(producer_->Send(batch, std::chrono::seconds(60)));
  }

  // One life of the engine: ends at the point, or by a kill at a random moment.
  void Live(const std::string& point, int passes) {
    Tries& tries = table_[point.empty() ? "a random moment" : point];
    ++tries.tries;
    if (point.starts_with("restore.") || (point.empty() && random_() % 4 == 0)) {
      std::filesystem::remove_all(dir_ / "engine/data");
    }
    engine_->Start(point.empty() ? "" : StrCat(point, "=kill@", passes));
    Send(12 + static_cast<int>(random_() % 20));
    if (point.empty()) {
      const auto until = sent_batches_ + static_cast<int>(random_() % 3);
      while (sent_batches_ < until && engine_->process().running()) {
        Send(10);
        ++sent_batches_;
      }
      (void)WaitFor([&] { return !engine_->process().running(); }, static_cast<int>(random_() % 700));
    } else {
      // What keeps the engine busy until it gets there.
      for (int i = 0; i < 40 && !WaitFor([&] { return !engine_->process().running(); }, 250); ++i) {
        if (i < 8) Send(6);
      }
    }
    if (engine_->process().running()) {
      engine_->Kill();
    } else {
      ASSERT_EQ(engine_->process().Wait(kServiceUpMs), 128 + SIGKILL) << "after " << point << ", see " << dir_.path();
      ++tries.hit;
    }
    ++kills_;
  }

  // Everything is read, published, followed; then both are compared with the oracle.
  void Compare() {
    engine_->Start();
    ASSERT_TRUE(engine_->WaitUntilUp()) << "see the log in " << dir_.path();
    ASSERT_TRUE(sidecar_->WaitUntilUp()) << "see the log in " << dir_.path();
    Send(6);
    int calm = 0;
    ASSERT_TRUE(WaitFor(
        [&] {
          const bool level = engine_->StatusOf("lag_records") == 0 && engine_->StatusOf("outbox_records") == 0 &&
                             engine_->StatusOf("items_live") == static_cast<std::int64_t>(oracle_.live().size()) &&
                             sidecar_->StatusOf("items_live") == engine_->StatusOf("items_live") &&
                             sidecar_->StatusOf("lag_records") == 0;
          calm = level ? calm + 1 : 0;
          return calm > 20;
        },
        60'000))
        << "engine " << engine_->StatusOf("items_live") << " live, sidecar " << sidecar_->StatusOf("items_live")
        << ", oracle " << oracle_.live().size() << ", lag " << engine_->StatusOf("lag_records") << ", outbox "
        << engine_->StatusOf("outbox_records");
    ASSERT_EQ(engine_->StopGracefully(), 0);
    ASSERT_EQ(sidecar_->StopGracefully(), 0);
    const Dump at_engine = DumpOf(engine_->data());
    const Dump at_sidecar = DumpOf(sidecar_->data());
    std::map<std::string, std::string> expected;
    for (const auto& [id, item] : oracle_.live()) expected[id] = item.title;
    ASSERT_EQ(at_engine.titles, expected);
    ASSERT_EQ(at_sidecar.items, at_engine.items);
    ASSERT_EQ(at_engine.histories, histories_);
    ASSERT_EQ(at_sidecar.histories, histories_);
    ASSERT_EQ(RunCommand({FreshetBinary(), "store", "verify", engine_->data()}, nullptr), 0);
    ASSERT_EQ(RunCommand({FreshetBinary(), "store", "verify", sidecar_->data()}, nullptr), 0);
    ASSERT_EQ(RunCommand({FreshetBinary(), "snapshot", "verify", "--directory", dir_ / "snapshots"}, nullptr), 0);
    sidecar_->Start();
  }

  const std::uint64_t seed_ = TestSeed();
  std::mt19937_64 random_{seed_};
  TempDir dir_;
  std::unique_ptr<Process> broker_;
  std::unique_ptr<KafkaProducer> producer_;
  std::unique_ptr<Service> engine_;
  std::unique_ptr<Service> sidecar_;
  Oracle oracle_;
  std::unique_ptr<ItemStream> stream_ = std::make_unique<ItemStream>(seed_, "items", kItems, kTestDim, false);
  std::map<std::string, std::vector<std::string>> histories_;
  std::map<std::string, Tries> table_;
  int bought_ = 0;
  int sent_batches_ = 0;
  int kills_ = 0;
};

// FRESHET_CRASH_ROUNDS: each round kills at every point once and at as many random moments.
TEST_F(SnapshotCrashTest, NothingIsLostDuplicatedOrResurrectedWhereverItIsKilled) {
  const char* rounds = std::getenv("FRESHET_CRASH_ROUNDS");
  const int wanted = rounds == nullptr ? 1 : std::atoi(rounds);
  Send(30);
  sidecar_->Start();
  for (int round = 0; round < wanted; ++round) {
    for (const std::string& point : kPoints) {
      ASSERT_NO_FATAL_FAILURE(Live(point, round == 0 ? 1 : 1 + static_cast<int>(random_() % 3)));
    }
    ASSERT_NO_FATAL_FAILURE(Compare());
    const int at_random = rounds == nullptr ? 8 : static_cast<int>(kPoints.size());
    for (int i = 0; i < at_random; ++i) {
      ASSERT_NO_FATAL_FAILURE(Live("", 0));
      if (i % 6 == 5) {
        sidecar_->Kill();
        if (i % 12 == 11) std::filesystem::remove_all(dir_ / "sidecar/data");
        sidecar_->Start();
      }
    }
    ASSERT_NO_FATAL_FAILURE(Compare());
  }
  int hit = 0;
  std::cout << "point, kills, of them at the point itself\n";
  for (const auto& [point, tries] : table_) {
    std::cout << "  " << point << ", " << tries.tries << ", " << tries.hit << "\n";
    if (point.find('.') != std::string::npos && tries.hit > 0) ++hit;
  }
  std::cout << kills_ << " kills, " << oracle_.live().size() << " items live, " << bought_ << " interactions\n";
  EXPECT_GE(hit, static_cast<int>(kPoints.size()) - 4);
}

}  // namespace
}  // namespace freshet::test
