// Engines that come, go and are killed while records and poison flow; a broker that is killed under load, or away for
// long; a dead-letter topic that is not there. In the end: state = oracle, dead letters = the poison.
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/oracle.h"
#include "freshet_test/process.h"
#include "freshet_test/registry_server.h"
#include "freshet_test/service.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

// A broker that is killed takes half a minute to be back on a busy machine.
constexpr auto kSendTimeout = std::chrono::seconds(150);
constexpr int kUpMs = 120'000;

// One place of the group: its store stays, its process comes and goes.
class Place {
 public:
  Place(std::string name, const std::string& directory, const std::string& broker, const std::string& yaml = "")
      : name_(std::move(name)),
        service_("run", directory,
                 EngineYaml(broker, directory + "/data", "group") + "changelog: {enabled: false}\n" + yaml) {}
  // Under a new name each time: the group is arranged anew at every start, and again when the old name's session ends.
  void Start(const std::string& faults = "") {
    service_.Start(faults, {"--set", "kafka.session_timeout_ms=6000", "--set",
                            StrCat("kafka.group_instance_id=", name_, "-", ++starts_)});
    up_ = true;
  }
  void Kill() {
    service_.Kill();
    up_ = false;
  }
  void Stop() {
    EXPECT_EQ(service_.StopGracefully(), 0);
    up_ = false;
  }
  [[nodiscard]] bool WaitUntilUp() { return service_.WaitUntilUp(); }
  [[nodiscard]] bool up() const { return up_; }
  [[nodiscard]] std::string data() const { return service_.data(); }
  [[nodiscard]] std::string EndOfLog() const { return service_.EndOfLog(); }
  [[nodiscard]] std::int64_t StatusOf(const char* key) const { return service_.StatusOf(key); }
  [[nodiscard]] std::int64_t MetricOf(const std::string& name) const { return service_.MetricOf(name); }
  // Whether it has applied all that was sent before `sent_ms`, as it says; `live` items come of that.
  [[nodiscard]] bool IsLevel(std::int64_t sent_ms, std::size_t live) const {
    return StatusOf("as_of_ms") >= sent_ms && StatusOf("items_live") == static_cast<std::int64_t>(live);
  }

 private:
  const std::string name_;
  Service service_;
  int starts_ = 0;
  bool up_ = false;
};

class FaultsTest : public ::testing::Test {
 protected:
  FaultsTest() : broker_(dir_ / "kafka") {
    kafka_.bootstrap_servers = broker_.bootstrap_servers();
    EXPECT_OK(CreateTopics(
        kafka_, {{"items", 4, true}, {"interactions", 4, false}, {"users", 4, true}, {"dead-letters", 1, false}},
        kSendTimeout));
    KafkaOptions patient = kafka_;
    patient.librdkafka_options["message.timeout.ms"] = "120000";
    auto producer = OpenKafkaProducer(patient);
    EXPECT_OK(producer);
    producer_ = std::move(*producer);
  }
  // Where the dead letters came from, each place with how often.
  std::map<std::string, int> Letters() {
    std::map<std::string, int> letters;
    std::string out;
    const std::string yaml = dir_ / "letters.yaml";
    EXPECT_OK(WriteFileAtomically(yaml, EngineYaml(broker_.bootstrap_servers(), dir_ / "none")));
    EXPECT_EQ(RunCommand({FreshetBinary(), "dead-letters", "list", "--records", "--config", yaml}, &out), 0);
    for (const std::string& line : Split(out, '\n')) {
      if (line.empty()) continue;
      const auto json = ParseJson(line);
      EXPECT_OK(json);
      if (!json.ok()) continue;
      ++letters[StrCat(JsonText(*JsonFind(**json, "partition")), "@", JsonText(*JsonFind(**json, "offset")))];
    }
    return letters;
  }

  TempDir dir_;
  KafkaBroker broker_;
  KafkaOptions kafka_;
  std::unique_ptr<KafkaProducer> producer_;
  Oracle oracle_;
};

// FRESHET_REBALANCES: how many comings and goings; each arranges the group anew at least once.
TEST_F(FaultsTest, EnginesComeGoAndAreKilledWhileRecordsAndPoisonFlow) {
  const char* wanted = std::getenv("FRESHET_REBALANCES");
  const int changes = wanted != nullptr ? std::atoi(wanted) : 8;
  const std::uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  std::vector<std::unique_ptr<Place>> places;
  for (int i = 0; i < 3; ++i) {
    places.push_back(
        std::make_unique<Place>(StrCat("place-", i), dir_ / StrCat("place-", i), broker_.bootstrap_servers()));
  }
  places[0]->Start();
  ASSERT_TRUE(places[0]->WaitUntilUp());

  ItemStream stream(seed, "items", 400, kTestDim, /*null_keys=*/false);
  std::atomic<bool> done{false};
  std::atomic<std::int64_t> sent{0};
  std::thread producing([&] {
    while (!done) {
      std::vector<OutRecord> records;
      for (int i = 0; i < 40; ++i) records.push_back(stream.Next(&oracle_));
      EXPECT_OK(producer_->Send(records, kSendTimeout));
      sent += static_cast<std::int64_t>(records.size());
    }
  });
  int kills = 0;
  for (int change = 0; change < changes; ++change) {
    Place& place = *places[random() % places.size()];
    if (!place.up()) {
      place.Start();
      EXPECT_TRUE(place.WaitUntilUp());
    } else if (random() % 2 == 0) {
      place.Kill();
      ++kills;
    } else {
      place.Stop();
    }
    const std::int64_t until = sent + static_cast<std::int64_t>(random() % 4000);
    EXPECT_TRUE(WaitFor([&] { return sent >= until; }, kUpMs));
  }
  done = true;
  producing.join();
  // One is left, whichever; it gets all partitions once the others' sessions are over.
  for (std::size_t i = 1; i < places.size(); ++i) {
    if (places[i]->up()) places[i]->Stop();
  }
  if (!places[0]->up()) places[0]->Start();
  ASSERT_TRUE(places[0]->WaitUntilUp());
  const std::size_t live = oracle_.live().size();
  const std::int64_t sent_ms = SystemClock().WallMs();
  int calm = 0;
  EXPECT_TRUE(WaitFor(
      [&] {
        calm = places[0]->IsLevel(sent_ms, live) ? calm + 1 : 0;
        return calm > 20;
      },
      120'000))
      << places[0]->StatusOf("items_live") << " live, " << live << " expected, lag "
      << places[0]->StatusOf("lag_records");
  places[0]->Stop();
  std::map<std::string, std::string> expected;
  for (const auto& [id, item] : oracle_.live()) expected[id] = item.title;
  EXPECT_EQ(DumpOf(places[0]->data()).titles, expected);
  // Every place reads every partition at some time, so each poison record may come as often as there are places, and
  // once more for each kill between its dead letter and its offset.
  const std::map<std::string, int> letters = Letters();
  EXPECT_EQ(letters.size(), oracle_.poison());
  int copies = 0;
  for (const auto& [where, times] : letters) copies += times - 1;
  std::cout << changes << " changes of the group, " << kills << " kills, " << sent << " records, " << oracle_.poison()
            << " poison, " << copies << " more copies of their dead letters in " << places.size() << " engines\n";
}

// Longer than every timeout of ours and of librdkafka's session: first it hangs, then it is dead.
TEST_F(FaultsTest, ABrokerThatIsAwayForLong) {
  Place place("place", dir_ / "place", broker_.bootstrap_servers());
  place.Start();
  ASSERT_TRUE(place.WaitUntilUp());
  ItemStream stream(TestSeed(), "items", 100, kTestDim, /*null_keys=*/false);
  std::int64_t sent_ms = 0;
  const auto send = [&](int records) {
    std::vector<OutRecord> batch;
    for (int i = 0; i < records; ++i) batch.push_back(stream.Next(&oracle_));
    ASSERT_OK(producer_->Send(batch, kSendTimeout));
    sent_ms = SystemClock().WallMs();
  };
  const auto level = [&] {
    return place.IsLevel(sent_ms, oracle_.live().size()) &&
           place.StatusOf("dead_letters") == static_cast<std::int64_t>(oracle_.poison());
  };
  send(500);
  ASSERT_TRUE(WaitFor(level, kUpMs));
  // What it has it goes on answering, while the broker is away and while it joins its group again.
  const auto answers_for = [&](int seconds) {
    const std::int64_t before = place.StatusOf("items_live");
    std::int64_t fewest = before;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    EXPECT_TRUE(WaitFor([&] {
      fewest = std::min(fewest, place.StatusOf("items_live"));
      return std::chrono::steady_clock::now() >= until;
    }));
    EXPECT_EQ(fewest, before) << "its log ends with:\n" << place.EndOfLog();
  };
  for (const bool dead : {false, true}) {
    SCOPED_TRACE(dead ? "dead" : "hangs");
    if (dead) {
      broker_.Kill();
    } else {
      broker_.Signal(SIGSTOP);
    }
    answers_for(12);
    if (dead) {
      broker_.Start();
    } else {
      broker_.Signal(SIGCONT);
    }
    answers_for(4);
    send(500);
    EXPECT_TRUE(WaitFor(level, 120'000)) << place.StatusOf("items_live") << " live, " << oracle_.live().size();
  }
  place.Stop();
  std::map<std::string, std::string> expected;
  for (const auto& [id, item] : oracle_.live()) expected[id] = item.title;
  EXPECT_EQ(DumpOf(place.data()).titles, expected);
  EXPECT_EQ(Letters().size(), oracle_.poison());
}

// Killed and started again while records and poison flow, the engine staying: nothing is lost, nothing is applied
// twice.
TEST_F(FaultsTest, ABrokerThatIsKilledUnderLoad) {
  Place place("place", dir_ / "place", broker_.bootstrap_servers());
  place.Start();
  ASSERT_TRUE(place.WaitUntilUp());
  const std::uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  ItemStream stream(seed, "items", 400, kTestDim, /*null_keys=*/false);
  std::atomic<bool> done{false};
  std::atomic<std::int64_t> sent{0};
  std::thread producing([&] {
    while (!done) {
      std::vector<OutRecord> records;
      for (int i = 0; i < 40; ++i) records.push_back(stream.Next(&oracle_));
      EXPECT_OK(producer_->Send(records, kSendTimeout));
      sent += static_cast<std::int64_t>(records.size());
    }
  });
  constexpr int kKills = 5;
  for (int kill = 0; kill < kKills; ++kill) {
    const std::int64_t until = sent + 500 + static_cast<std::int64_t>(random() % 3000);
    EXPECT_TRUE(WaitFor([&] { return sent >= until; }, kUpMs));
    broker_.Kill();
    broker_.Start();
  }
  const std::int64_t until = sent + 1000;
  EXPECT_TRUE(WaitFor([&] { return sent >= until; }, kUpMs));
  done = true;
  producing.join();
  const std::size_t live = oracle_.live().size();
  const auto poison = static_cast<std::int64_t>(oracle_.poison());
  const std::int64_t sent_ms = SystemClock().WallMs();
  EXPECT_TRUE(
      WaitFor([&] { return place.IsLevel(sent_ms, live) && place.StatusOf("dead_letters") >= poison; }, 120'000))
      << place.StatusOf("items_live") << " live, " << live << " expected, lag " << place.StatusOf("lag_records");
  // What was under way when the group forgot the engine is read, and counted, once more.
  EXPECT_LE(place.StatusOf("dead_letters"), poison + kKills * 64);
  place.Stop();
  std::map<std::string, std::string> expected;
  for (const auto& [id, item] : oracle_.live()) expected[id] = item.title;
  EXPECT_EQ(DumpOf(place.data()).titles, expected);
  const std::map<std::string, int> letters = Letters();
  EXPECT_EQ(letters.size(), oracle_.poison());
  int copies = 0;
  for (const auto& [where, times] : letters) copies += times - 1;
  // Of one batch (64 records) for each kill between the broker's taking it and saying so.
  EXPECT_LE(copies, kKills * 64);
  std::cout << kKills << " kills of the broker, " << sent << " records, " << poison << " poison, " << copies
            << " more copies of their dead letters\n";
}

// The broker goes when a dead letter is about to be written, and stays away for many attempts to write it.
TEST_F(FaultsTest, CopiesOfADeadLetterDoNotGrowWithTheOutage) {
  Place place("place", dir_ / "place", broker_.bootstrap_servers());
  place.Start("ingest.before_dead_letters=sleep:8000");
  ASSERT_TRUE(place.WaitUntilUp());
  OutRecord poison;
  poison.topic = "items";
  poison.key = "poison";
  poison.value = "{not json";
  ASSERT_OK(producer_->Send({poison}, kSendTimeout));
  ASSERT_TRUE(WaitFor([&] { return place.MetricOf("freshet_ingest_poison_total") == 1; }, kUpMs));
  broker_.Kill();
  ASSERT_TRUE(WaitFor([&] { return place.MetricOf("freshet_dead_letter_retries_total") >= 4; }, 120'000));
  broker_.Start();
  EXPECT_TRUE(WaitFor([&] { return place.StatusOf("dead_letters") == 1; }, kUpMs));
  place.Stop();
  const std::map<std::string, int> letters = Letters();
  ASSERT_EQ(letters.size(), 1U);
  EXPECT_EQ(letters.begin()->second, 1);
}

// Nowhere to put the poison: the engine stops before its offset and says so; once there is a place it goes on.
TEST_F(FaultsTest, ADeadLetterTopicThatIsMissingOrTooSmall) {
  Place place("place", dir_ / "place", broker_.bootstrap_servers());
  const std::string yaml = dir_ / "place/config.yaml";
  const auto run = [&](const std::string& topic) {
    return RunCommand({FreshetBinary(), "run", "--config", yaml, "--set", "kafka.assign=all", "--set",
                       "topics.create=false", "--set", "errors.deadletterqueue.topic.name=" + topic},
                      nullptr);
  };
  broker_.Tool({"kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", "dead-letters",
                "--add-config", "max.message.bytes=1000"});
  OutRecord poison;
  poison.topic = "items";
  poison.key = "poison";
  poison.value = "{not json";
  std::mt19937_64 random(TestSeed());
  while (poison.value->size() < 8'000) *poison.value += StrCat(random());  // which no compression makes small enough
  ASSERT_OK(producer_->Send({poison}, kSendTimeout));
  EXPECT_EQ(run("no-such-topic"), 1);
  EXPECT_EQ(run("dead-letters"), 1);
  broker_.Tool({"kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", "dead-letters",
                "--delete-config", "max.message.bytes"});
  place.Start();
  ASSERT_TRUE(place.WaitUntilUp());
  EXPECT_TRUE(
      WaitFor([&] { return place.StatusOf("dead_letters") == 1 && place.StatusOf("lag_records") == 0; }, kUpMs));
  place.Stop();
  EXPECT_EQ(Letters().size(), 1U);
}

}  // namespace
}  // namespace freshet::test
