// Memory on Apache Kafka: what poison and a stall made grow is back, and does not grow again.
#include <algorithm>
#include <iostream>

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/registry_server.h"
#include "freshet_test/service.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(60);
constexpr int kWaitMs = 180'000;
constexpr std::int64_t kMb = std::int64_t{1} << 20;
constexpr int kIds = 400;
constexpr int kStalled = 80'000;  // records, of 1.1 KB: more than every queue together takes

class MemoryTest : public ::testing::Test {
 protected:
  MemoryTest()
      : broker_(dir_ / "kafka"),
        service_("run", dir_ / "engine",
                 StrCat(EngineYaml(broker_.bootstrap_servers(), dir_ / "engine/data"), "changelog: {enabled: false}\n",
                        "schema_registry: {url: \"", registry_.url(), "\", timeout_ms: 1000}\n")) {
    KafkaOptions kafka;
    kafka.bootstrap_servers = broker_.bootstrap_servers();
    auto producer = OpenKafkaProducer(kafka);
    EXPECT_OK(producer);
    producer_ = std::move(*producer);
  }
  void Know(int schema_id) {
    registry_.Set(StrCat("/schemas/ids/", schema_id),
                  {200, R"({"schemaType": "JSON", "schema": "{\"type\": \"object\"}"})"});
  }
  // Items that come again and again as they are stored, so that what grows is of reading; each hundredth is poison.
  void Send(int schema_id, int records) {
    const std::string frame = std::string("\0\0\0\0", 4) + static_cast<char>(schema_id);
    for (int done = 0; done < records;) {
      std::vector<OutRecord> batch;
      for (; done < records && batch.size() < 500; ++done, ++sent_) {
        OutRecord& record = batch.emplace_back();
        const bool broken = sent_ % 100 == 99;
        poison_ += broken ? 1 : 0;
        record.topic = "items";
        record.key = StrCat("item-", sent_ % kIds);
        record.value = StrCat(frame, R"({"vector": [1, 0, 0, 0, 0, 0, 0, )", sent_ % kIds,
                              R"(], "attributes": {"title": ")", std::string(1000, 'x'), broken ? "" : "\"}}");
      }
      ASSERT_OK(producer_->Send(batch, kSendTimeout));
    }
  }
  std::int64_t Resident() {
    const std::int64_t bytes = service_.StatusOf("resident_bytes");
    most_ = std::max(most_, bytes);
    return bytes;
  }
  bool AllIsRead() {
    (void)Resident();
    return service_.StatusOf("dead_letters") == poison_ && service_.MetricOf("freshet_ingest_records_total") == sent_;
  }
  // Everything waits for a schema that nobody has fetched yet, and that the registry does not give away.
  void Stall(int schema_id) {
    registry_.Set(StrCat("/schemas/ids/", schema_id), {503, ""});
    const std::int64_t retries = service_.MetricOf("freshet_ingest_retries_total");
    Send(schema_id, kStalled);
    ASSERT_TRUE(WaitFor(
        [&] {
          (void)Resident();
          return service_.MetricOf("freshet_ingest_retries_total") >= retries + 4;
        },
        kWaitMs));
    EXPECT_LE(service_.MetricOf("freshet_ingest_records_total"), sent_ - kStalled);
    Know(schema_id);
    ASSERT_TRUE(WaitFor([&] { return AllIsRead(); }, kWaitMs));
  }

  TempDir dir_;
  RegistryServer registry_;
  KafkaBroker broker_;
  Service service_;
  std::unique_ptr<KafkaProducer> producer_;
  std::int64_t sent_ = 0;
  std::int64_t poison_ = 0;
  std::int64_t most_ = 0;
};

// What the buffers took the first time the allocator may keep, within the bound; the same a second time adds nothing.
TEST_F(MemoryTest, IsBackAfterPoisonAndAStall) {
  Know(7);
  service_.Start();
  ASSERT_TRUE(service_.WaitUntilUp());
  Send(7, 20'000);
  ASSERT_TRUE(WaitFor([&] { return AllIsRead(); }, kWaitMs));
  const std::int64_t idle = Resident();
  Stall(8);
  const std::int64_t first = Resident();
  Stall(9);
  EXPECT_TRUE(WaitFor([&] { return Resident() < first + 32 * kMb; })) << "a stall left something behind";
  std::cout << "resident MB: " << idle / kMb << " idle, " << first / kMb << " after a stall, " << Resident() / kMb
            << " after the next, " << most_ / kMb << " at most; " << sent_ << " records, " << poison_ << " poison\n";
  EXPECT_LT(most_, idle + 150 * kMb);
  EXPECT_EQ(service_.StopGracefully(), 0);
}

}  // namespace
}  // namespace freshet::test
