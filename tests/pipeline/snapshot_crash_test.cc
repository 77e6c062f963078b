// The engine killed with -9 at every step of storing, publishing, snapshots, restores, of opening a store again after a
// failed write and of reading a partition again, each in turn and then at random: after each kill it comes back by
// itself, and in the end it, its sidecar and its snapshots are what the oracle says. The broker is the embedded one, in
// a process of its own.
#include <sys/resource.h>

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

// Every fault point of it that a kill can hit. Each must be.
const std::vector<std::string> kPoints = {
    "store.before_write",          "store.after_write",          "applier.between_index_and_catalog",
    "changelog.before_send",       "changelog.after_send",       "outbox.before_trim",
    "outbox.after_trim",           "snapshot.before_flush",      "snapshot.after_flush",
    "snapshot.before_checkpoint",  "snapshot.after_checkpoint",  "index_file.before_write",
    "index_file.before_sync",      "index_file.after_write",     "index_file.before_named",
    "index_file.after_named",      "index_file.before_log_sync", "index_file.before_remove",
    "snapshot.before_file",        "snapshot.before_file_sync",  "snapshot.before_manifest",
    "snapshot.before_folder_sync", "snapshot.before_publish",    "snapshot.before_publish_sync",
    "snapshot.after_publish",      "snapshot.before_remove",     "snapshot.before_remove_sync",
    "snapshot.after_remove",       "restore.before_file",        "copy.before_sync",
    "restore.before_note",         "restore.after_note",         "restore.before_ready",
    "restore.after_ready",         "restore.before_sync",        "restore.before_move",
    "restore.within_aside",        "restore.within_move",        "restore.before_current",
    "restore.after_current",       "store.before_reopen",        "applier.after_reread",
    "applier.within_sweep",        "applier.after_sweep"};
constexpr int kLivesForAPoint = 3;  // until one is ended by it

bool IsOf(const std::string& point, std::string_view kind) { return point.starts_with(kind); }
bool IsOfRestore(const std::string& point) { return IsOf(point, "restore.") || IsOf(point, "copy."); }
bool IsOfReread(const std::string& point) { return point.ends_with("_reread") || point.ends_with("_sweep"); }
// Passed again and again while it lives.
bool MayPassFirst(const std::string& point) {
  return !IsOfRestore(point) && !IsOfReread(point) && !IsOf(point, "store.before_reopen");
}

// Whoever is started meanwhile cannot make a file longer than that: its store fails as on a failing disk.
class ShortFiles {
 public:
  explicit ShortFiles(rlim_t bytes) : ignored_(std::signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit limit{bytes, before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~ShortFiles() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    std::signal(SIGXFSZ, ignored_);
  }
  ShortFiles(const ShortFiles&) = delete;
  ShortFiles& operator=(const ShortFiles&) = delete;

 private:
  rlimit before_{};
  void (*const ignored_)(int);
};

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
    for (int i = 0; i < records; ++i) {
      batch.push_back(stream_->Next(&oracle_));
      // What the stream said last of an item, if it is live; poison says nothing.
      const OutRecord& record = batch.back();
      if (const auto it = record.key ? oracle_.live().find(*record.key) : oracle_.live().end();
          it != oracle_.live().end() && record.value &&
          record.value->find(StrCat("\"", it->second.title, "\"")) != std::string::npos) {
        said_[*record.key] = record;
      }
    }
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

  // Items which together are too large for files that must be short, each of its own, since a batch keeps the last
  // record of an item; or their deletes.
  void SendLarge(bool deletes) {
    std::vector<OutRecord> batch(60);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      batch[i].topic = "items";
      batch[i].key = StrCat("large-", i);
      if (deletes) continue;
      batch[i].value = StrCat(R"({"vector":[1,)", i, R"(,0,0,0,0,0,0],"attributes":{"title":")",
                              std::string(std::size_t{10'000}, 'x'), R"("}})");
    }
    ASSERT_OK(producer_->Send(batch, std::chrono::seconds(60)));
  }

  // While the engine is down, partition 0 of the items loses what it held, and gets back what is live: but for one
  // item, which only the engine still knows of.
  void Evict() {
    engine_->Start();
    ASSERT_TRUE(engine_->WaitUntilUp()) << "see the log in " << dir_.path();
    OutRecord gone;
    gone.topic = "items";
    gone.partition = 0;
    gone.key = StrCat("gone-", kills_);
    gone.value = R"({"vector":[1,0,0,0,0,0,0,0],"attributes":{"title":"gone"}})";
    ASSERT_OK(producer_->Send({gone}, std::chrono::seconds(60)));
    ASSERT_TRUE(WaitFor(
        [&] {
          return engine_->StatusOf("lag_records") == 0 &&
                 engine_->StatusOf("items_live") == static_cast<std::int64_t>(oracle_.live().size()) + 1;
        },
        kServiceUpMs))
        << "see the log in " << dir_.path();
    engine_->Kill();
    ++kills_;
    // Poison that does not compress: the embedded broker keeps 5 MiB of a partition.
    for (int i = 0; i < 12; ++i) {
      std::vector<OutRecord> fillers(10);
      for (OutRecord& filler : fillers) {
        filler.topic = "items";
        filler.partition = 0;
        filler.key = "filler";
        filler.value = "\xff";
        while (filler.value->size() < 60'000) {
          for (std::uint64_t bits = random_(), at = 0; at < 8; ++at) *filler.value += static_cast<char>(bits >> 8 * at);
        }
      }
      ASSERT_OK(producer_->Send(fillers, std::chrono::seconds(60)));
    }
    std::vector<OutRecord> live;
    for (const auto& [id, item] : oracle_.live()) live.push_back(said_.at(id));
    ASSERT_OK(producer_->Send(live, std::chrono::seconds(60)));
  }

  // Before the engine starts: what makes it come by the point.
  void Prepare(const std::string& point) {
    const std::string data = dir_ / "engine/data";
    if (point == "restore.within_aside") {
      // A store that was whole and is not: it is set aside.
      for (const auto& entry : std::filesystem::directory_iterator(data)) {
        if (entry.path().filename().string().starts_with("MANIFEST")) std::filesystem::remove(entry);
      }
    } else if (IsOfRestore(point) || (point.empty() && random_() % 4 == 0)) {
      std::filesystem::remove_all(data);
    }
    if (IsOfReread(point)) Evict();
  }

  // One life of the engine: ends at the point, or by a kill at a random moment.
  void Live(const std::string& point, int passes) {
    Tries& tries = table_[point.empty() ? "a random moment" : point];
    ++tries.tries;
    ASSERT_NO_FATAL_FAILURE(Prepare(point));
    const bool reopens = point == "store.before_reopen";
    {
      const auto short_files = reopens ? std::make_unique<ShortFiles>(256 << 10) : nullptr;
      engine_->Start(point.empty() ? "" : StrCat(point, "=kill@", passes));
    }
    if (reopens) {
      ASSERT_NO_FATAL_FAILURE(SendLarge(/*deletes=*/false));
    } else {
      Send(12 + static_cast<int>(random_() % 20));
    }
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
        if (i < 8 && !reopens) Send(6);
      }
    }
    if (engine_->process().running()) {
      engine_->Kill();
    } else {
      ASSERT_EQ(engine_->process().Wait(kServiceUpMs), 128 + SIGKILL) << "after " << point << ", see " << dir_.path();
      ++tries.hit;
    }
    if (reopens) {
      ASSERT_NO_FATAL_FAILURE(SendLarge(/*deletes=*/true));
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
  std::map<std::string, OutRecord> said_;  // of what is live
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
      const bool any_pass = round > 0 && MayPassFirst(point);
      ASSERT_NO_FATAL_FAILURE(Live(point, any_pass ? 1 + static_cast<int>(random_() % 3) : 1));
      for (int life = 1; life < kLivesForAPoint && table_[point].hit == 0; ++life) {
        ASSERT_NO_FATAL_FAILURE(Live(point, 1));
      }
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
  std::cout << "point, kills, of them at the point itself\n";
  for (const auto& [point, tries] : table_)
    std::cout << "  " << point << ", " << tries.tries << ", " << tries.hit << "\n";
  std::cout << kills_ << " kills, " << oracle_.live().size() << " items live, " << bought_ << " interactions\n";
  for (const std::string& point : kPoints) EXPECT_GT(table_[point].hit, 0) << point << " was never hit";
}

}  // namespace
}  // namespace freshet::test
