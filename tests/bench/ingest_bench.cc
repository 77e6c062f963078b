#include "ingest_bench.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include "freshet/core/strings.h"
#include "freshet/ingest/ingest_stage.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::bench {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kTimeout{60};
constexpr char kTopic[] = "items";

double ResidentMb() {
  std::ifstream status("/proc/self/statm");
  double size = 0;
  double resident = 0;
  status >> size >> resident;
  return resident * 4096 / 1e6;
}

// About 300 bytes, as an item record is.
std::string ValueOf(std::int64_t i) {
  return StrCat(R"({"category":"film","tags":["action","number )", i % 97, R"("],"features":{"price":)", i % 1000,
                R"(.25,"year":)", 1950 + i % 70, R"(,"rating":4.5,"brand":"brand )", i % 313,
                R"("},"attributes":{"title":"The title of item number )", i, R"(","in_stock":true,"seller":"seller )",
                i % 1009, R"(","description":"some words"}})");
}

Result<std::size_t> Produce(const KafkaOptions& kafka, const IngestBenchOptions& options) {
  FRESHET_TRY(CreateTopics(kafka, {{kTopic, options.partitions, false}}, kTimeout));
  FRESHET_ASSIGN(const std::unique_ptr<KafkaProducer> producer, OpenKafkaProducer(kafka));
  std::size_t bytes = 0;
  OutRecord record;
  record.topic = kTopic;
  for (std::int64_t i = 0; i < options.records; ++i) {
    record.partition = static_cast<std::int32_t>(i % options.partitions);
    record.key = StrCat("item-", i);
    record.value = ValueOf(i);
    bytes += record.value->size();
    FRESHET_TRY(producer->Produce(record));
  }
  FRESHET_TRY(producer->Flush(kTimeout));
  return bytes / static_cast<std::size_t>(options.records);
}

// Seconds to read it all.
Result<double> RunKcat(const std::string& servers) {
  const double begin = Seconds();
  test::Process kcat({"kcat", "-C", "-b", servers, "-t", kTopic, "-o", "beginning", "-e", "-q"}, "/dev/null");
  if (const int status = kcat.Wait(600'000); status != 0) return Internal(StrCat("kcat exited with ", status));
  return Seconds() - begin;
}

Result<double> RunBareLoop(const std::string& servers, const IngestBenchOptions& options) {
  char error[256] = "";
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"bootstrap.servers", servers},
                                                                                   {"group.id", "bare"},
                                                                                   {"enable.partition.eof", "true"},
                                                                                   {"enable.auto.commit", "false"},
                                                                                   {"check.crcs", "true"}}) {
    rd_kafka_conf_set(conf, key.c_str(), value.c_str(), error, sizeof(error));
  }
  rd_kafka_t* rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof(error));
  if (rk == nullptr) return Internal(error);
  rd_kafka_poll_set_consumer(rk);
  rd_kafka_topic_partition_list_t* list = rd_kafka_topic_partition_list_new(options.partitions);
  for (std::int32_t p = 0; p < options.partitions; ++p) {
    rd_kafka_topic_partition_list_add(list, kTopic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
  }
  const double begin = Seconds();
  rd_kafka_assign(rk, list);
  std::int64_t records = 0;
  while (records < options.records && Seconds() - begin < 600) {
    rd_kafka_message_t* message = rd_kafka_consumer_poll(rk, 1000);
    if (message == nullptr) continue;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) ++records;
    rd_kafka_message_destroy(message);
  }
  const double seconds = Seconds() - begin;
  rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_consumer_close(rk);
  rd_kafka_destroy(rk);
  if (records < options.records) return Internal("the bare loop did not read all");
  return seconds;
}

class NoLetters final : public DeadLetterQueue {
 public:
  Status Send(std::vector<DeadLetter> letters) override {
    return Internal(StrCat(letters.size(), " records of the benchmark are poison: ", letters[0].reason));
  }
};

struct OurRun {
  double seconds = 0;
  double allocations_per_record = 0;
  double peak_mb = 0;  // above the idle process
};

// Our consumer, decoder and batches, into a sink that drops; or, held up, into one that takes nothing for a while.
Result<OurRun> RunOurs(const KafkaOptions& kafka, const IngestBenchOptions& options, milliseconds held_up) {
  SystemClock clock;
  Metrics metrics;
  NoLetters letters;
  BoundedQueue<EventBatch> queue(8, std::size_t{64} << 20);
  OurRun run;
  const double idle_mb = ResidentMb();
  const double begin = Seconds();
  ConsumerOptions consumer;
  consumer.kafka = kafka;
  consumer.topics = {kTopic};
  consumer.assign_all = true;
  FRESHET_ASSIGN(const std::unique_ptr<RecordSource> source,
                 OpenKafkaConsumer(
                     consumer, [](const auto&) { return StoredPositions(); }, &clock, kTimeout));
  IngestStage::Decoders decoders;
  FRESHET_ASSIGN(decoders[kTopic], MakeJsonDecoder(TopicRole::kItems, DefaultSchema(TopicRole::kItems), {}));
  IngestStage stage(IngestOptions{}, source.get(), std::move(decoders), &letters, &queue, &clock, &metrics);
  stage.Start();
  const double until = Seconds() + static_cast<double>(held_up.count()) / 1e3;
  (void)test::WaitFor([&] {
    run.peak_mb = std::max(run.peak_mb, ResidentMb() - idle_mb);
    return Seconds() >= until;
  });
  std::int64_t records = 0;
  std::int64_t warm_records = 0;
  std::uint64_t warm_allocations = 0;
  std::size_t batches = 0;
  while (records < options.records) {
    const auto batch = queue.PopFor(milliseconds(10'000));
    if (!batch) break;
    records += static_cast<std::int64_t>(batch->events.size());
    if (warm_records == 0 && records > options.records / 10) {
      warm_records = records;
      warm_allocations = Allocations();
    }
    if (++batches % 64 == 0) run.peak_mb = std::max(run.peak_mb, ResidentMb() - idle_mb);
  }
  run.seconds = Seconds() - begin;
  run.allocations_per_record = static_cast<double>(Allocations() - warm_allocations) /
                               static_cast<double>(std::max<std::int64_t>(1, records - warm_records));
  queue.Close();
  stage.Stop();
  if (records < options.records)
    return Internal(StrCat("ours read ", records, " records: ", stage.status().ToString()));
  return run;
}

}  // namespace

Result<Report> RunIngestBench(const IngestBenchOptions& asked) {
  IngestBenchOptions options = asked;
  if (options.quick) {
    options.records = 20'000;
    options.rounds = 1;
  }
  const test::TempDir dir;
  const test::KafkaBroker broker(dir / "kafka");
  KafkaOptions kafka;
  kafka.bootstrap_servers = broker.bootstrap_servers();
  FRESHET_ASSIGN(const std::size_t bytes, Produce(kafka, options));
  const bool with_kcat = test::RunCommand({"kcat", "-V"}, nullptr) == 0;
  if (!with_kcat) std::fprintf(stderr, "freshet_bench: there is no kcat (Debian: kafkacat); its row is left out\n");

  const auto per_second = [&](double seconds) { return static_cast<double>(options.records) / seconds; };
  std::vector<double> kcat;
  std::vector<double> bare;
  std::vector<double> ours;
  std::vector<double> allocations;
  std::vector<double> peaks;
  for (std::size_t round = 0; round < options.rounds; ++round) {
    if (with_kcat) {
      FRESHET_ASSIGN(const double seconds, RunKcat(kafka.bootstrap_servers));
      kcat.push_back(per_second(seconds));
    }
    FRESHET_ASSIGN(const double seconds, RunBareLoop(kafka.bootstrap_servers, options));
    bare.push_back(per_second(seconds));
    FRESHET_ASSIGN(const OurRun run, RunOurs(kafka, options, milliseconds(0)));
    ours.push_back(per_second(run.seconds));
    allocations.push_back(run.allocations_per_record);
    peaks.push_back(run.peak_mb);
  }
  // A backlog and a sink that takes nothing: what is held in memory then, as set and with fetches as large as they go.
  FRESHET_ASSIGN(const OurRun held, RunOurs(kafka, options, milliseconds(options.quick ? 500 : 5'000)));
  KafkaOptions large = kafka;
  large.librdkafka_options = {
      {"fetch.message.max.bytes", "4194304"}, {"fetch.max.bytes", "4194304"}, {"queued.min.messages", "10000000"}};
  FRESHET_ASSIGN(const OurRun held_large, RunOurs(large, options, milliseconds(options.quick ? 500 : 5'000)));

  Report report;
  report.benchmark = "ingest";
  const std::vector<std::pair<std::string, std::string>> params = {{"records", StrCat(options.records)},
                                                                   {"partitions", StrCat(options.partitions)},
                                                                   {"value_bytes", StrCat(bytes)},
                                                                   {"rounds", StrCat(options.rounds)}};
  const auto rates = [](std::vector<double> values) {
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    return std::vector<std::pair<std::string, double>>{
        {"records_per_second", Median(values)}, {"least", *least}, {"most", *most}};
  };
  if (with_kcat) report.rows.push_back({"kcat to /dev/null", true, params, rates(kcat)});
  report.rows.push_back({"librdkafka poll loop", true, params, rates(bare)});
  report.rows.push_back({"freshet, JSON to a sink that drops", false, params, rates(ours)});
  auto& metrics = report.rows.back().metrics;
  metrics.emplace_back("cpp_allocations_per_record", Median(allocations));
  metrics.emplace_back("peak_mb_above_idle", *std::max_element(peaks.begin(), peaks.end()));
  report.rows.push_back({"freshet, held up", false, params, {{"peak_mb_above_idle", held.peak_mb}}});
  report.rows.push_back(
      {"freshet, held up, largest fetches", false, params, {{"peak_mb_above_idle", held_large.peak_mb}}});
  report.goals.push_back({"JSON, ratio to the poll loop", 0.6, Median(ours) / Median(bare)});
  report.goals.push_back({"JSON, records per second", 250'000, Median(ours)});
  report.goals.push_back({"C++ allocations per record after warm-up", 0, Median(allocations), /*at_most=*/true});
  report.goals.push_back({"memory above the idle process, MB", 150,
                          std::max({held.peak_mb, held_large.peak_mb, *std::max_element(peaks.begin(), peaks.end())}),
                          /*at_most=*/true});
  return report;
}

}  // namespace freshet::bench
