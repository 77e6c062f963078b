#include "soak_bench.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"
#include "sidecar_load.h"
#include "soak_parts.h"

namespace freshet::bench {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kTimeout{60};
constexpr int kTicksPerSecond = 50;
constexpr std::size_t kCategories = 20;
constexpr std::size_t kCount = 100;  // of each answer
constexpr std::size_t kSampled = 500;
constexpr double kFoundWithinSeconds = 10;

struct Answers {
  std::uint64_t answers = 0;
  std::uint64_t errors = 0;
  std::uint64_t short_ones = 0;
  std::uint64_t stale = 0;  // items that were gone
  std::vector<double> us;
};

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

class Soak {
 public:
  explicit Soak(const SoakOptions& options)
      : options_(options), directory_(options.directory), world_(options.items), random_(options.seed) {}

  Result<Report> Run() {
    FRESHET_TRY(Start());
    FRESHET_TRY(Preload());
    std::thread asker([this] { Ask(); });
    std::thread prober([this] { Probe(); });
    Status written = Write();
    stop_ = true;
    asker.join();
    prober.join();
    if (written.ok()) written = Level();
    if (!written.ok()) return Internal(StrCat(written.ToString(), engine_->End(), sidecar_->End()));
    return Tell();
  }

 private:
  Status Start() {
    if (options_.embedded) {
      embedded_ = std::make_unique<test::Process>(
          std::vector<std::string>{test::FreshetBinary(), "broker", "--address-file", directory_.path + "/broker",
                                   "--topic", "items:2", "interactions:1", "users:1", "vectors:2", "user-events:1",
                                   "dead-letters:1"},
          directory_.path + "/broker.log");
      if (!test::WaitFor([&] { return FileExists(directory_.path + "/broker"); }, kServerUpMs)) {
        return Unavailable("the embedded broker did not start");
      }
      FRESHET_ASSIGN(const std::string address, ReadFile(directory_.path + "/broker"));
      kafka_.bootstrap_servers = Trim(address);
    } else {
      broker_ = std::make_unique<test::KafkaBroker>(directory_.path + "/kafka");
      kafka_.bootstrap_servers = broker_->bootstrap_servers();
      FRESHET_TRY(CreateTopics(kafka_, {{"items", 2, true}}, kTimeout));
    }
    FRESHET_ASSIGN(producer_, OpenKafkaProducer(kafka_));
    const auto yaml = [&](const char* name, const std::string& more) {
      return StrCat("data_dir: ", directory_.path, "/", name, "/data\nkafka: {bootstrap_servers: \"",
                    kafka_.bootstrap_servers, "\"", more, "encoder: {kind: passthrough, dim: ", options_.dim,
                    ", metric: cosine}\nindex: {capacity: ", 4 * options_.items,
                    "}\nquery: {listen: \"127.0.0.1:0\"}\nsnapshots: {directory: ", directory_.path, "/snapshots");
    };
    engine_ =
        std::make_unique<Server>("run", directory_.path + "/engine",
                                 yaml("engine", ", assign: all}\ntopics: {create: true}\n") +
                                     StrCat(", interval_seconds: ", options_.quick ? 5 : 60, ", keep: {count: 3}}\n"));
    FRESHET_TRY(engine_->Await());
    sidecar_ = std::make_unique<Server>("sidecar", directory_.path + "/sidecar", yaml("sidecar", "}\n") + "}\n");
    return sidecar_->Await();
  }

  [[nodiscard]] static std::string IdOf(std::size_t item) { return StrCat("item-", item); }

  // `items`, one of each; live or gone as `live` says.
  Status Send(const std::vector<std::pair<std::size_t, bool>>& changes, std::mt19937_64* random) {
    std::vector<OutRecord> records;
    for (const auto& [item, live] : changes) {
      world_.Begin(item);
      records.push_back(live ? ItemRecord(IdOf(item), item, item % kCategories, RandomVector(options_.dim, random))
                             : GoneRecord(IdOf(item)));
    }
    FRESHET_TRY(producer_->Send(records, kTimeout));
    const std::int64_t now_ms = clock_.WallMs();
    for (const auto& [item, live] : changes) world_.End(item, live, now_ms);
    sent_ += changes.size();
    return Status::Ok();
  }

  Status Preload() {
    std::vector<std::pair<std::size_t, bool>> changes;
    for (std::size_t item = 0; item < options_.items; ++item) {
      changes.emplace_back(item, true);
      if (changes.size() < 1'000 && item + 1 < options_.items) continue;
      FRESHET_TRY(Send(changes, &random_));
      changes.clear();
    }
    sent_ = 0;
    return Level();
  }

  // Both know what the producer knows.
  Status Level() {
    const auto live = static_cast<double>(world_.live());
    const auto sent_ms = static_cast<double>(clock_.WallMs());
    for (Server* server : {engine_.get(), sidecar_.get()}) {
      const bool level = test::WaitFor(
          [&] {
            const auto as_of = server->StatusOf("as_of_ms");
            const auto items = server->StatusOf("items_live");
            return as_of.ok() && *as_of > sent_ms && items.ok() && *items == live;
          },
          kServerUpMs);
      if (!level) {
        const auto items = server->StatusOf("items_live");
        return Internal(StrCat("a server has ", items.ok() ? StrCat(*items) : items.status().ToString(), " items, ",
                               live, " were sent"));
      }
    }
    return Status::Ok();
  }

  // Of those that live three in ten go; of those that are gone all come back: about 77% live.
  Status Write() {
    const double from = Seconds();
    const double until = from + options_.minutes * 60;
    double sampled = 0;
    const auto per_tick = std::max<std::size_t>(1, options_.updates_per_second / kTicksPerSecond);
    for (std::size_t tick = 0; Seconds() < until; ++tick) {
      std::vector<std::pair<std::size_t, bool>> changes;
      std::vector<std::size_t> items;
      for (std::size_t i = 0; i < per_tick; ++i) items.push_back(random_() % options_.items);
      std::sort(items.begin(), items.end());
      items.erase(std::unique(items.begin(), items.end()), items.end());
      for (const std::size_t item : items) changes.emplace_back(item, !world_.IsLive(item) || random_() % 10 >= 3);
      FRESHET_TRY(Send(changes, &random_));
      if (Seconds() - sampled > (options_.quick ? 1 : 10)) {
        sampled = Seconds();
        FRESHET_ASSIGN(const double engine, engine_->StatusOf("resident_bytes"));
        FRESHET_ASSIGN(const double sidecar, sidecar_->StatusOf("resident_bytes"));
        engine_mb_.push_back(engine / 1e6);
        sidecar_mb_.push_back(sidecar / 1e6);
      }
      WaitUntil(from + static_cast<double>(tick + 1) / kTicksPerSecond);
    }
    seconds_ = Seconds() - from;
    return Status::Ok();
  }

  // Queries at a steady rate, each answer compared with what the producer knows.
  void Ask() {
    std::mt19937_64 random(options_.seed + 1);
    auto connection = LoadConnection::Open(sidecar_->address());
    const double from = Seconds();
    for (std::size_t i = 0; !stop_ && connection.ok(); ++i) {
      std::string body = StrCat(R"({"k":)", kCount, R"(,"vector":)", RandomVector(options_.dim, &random));
      const bool filtered = i % 4 == 3;
      const std::size_t category = random() % kCategories;
      if (filtered) body += StrCat(R"(,"filter":{"must":[{"key":"category","match":)", category, "}]}");
      const double asked = Seconds();
      const auto answer = (*connection)->Call(PostRequest("/v1/recall", "application/json", body + "}"));
      answers_.us.push_back((Seconds() - asked) * 1e6);
      ++answers_.answers;
      if (!answer.ok()) {
        ++answers_.errors;
        connection = LoadConnection::Open(sidecar_->address());
        continue;
      }
      Judge(*answer, filtered ? std::optional(category) : std::nullopt);
      WaitUntil(from + static_cast<double>(i + 1) / static_cast<double>(options_.queries_per_second));
    }
    if (!connection.ok()) ++answers_.errors;
  }

  void Judge(std::string_view answer, std::optional<std::size_t> category) {
    const auto json = ParseJson(answer);
    const JsonValue* results = json.ok() ? JsonFind(**json, "results") : nullptr;
    const JsonValue* as_of = json.ok() ? JsonFind(**json, "as_of_ms") : nullptr;
    if (results == nullptr || as_of == nullptr || !as_of->IsInt64()) {
      ++answers_.errors;
      return;
    }
    // A probe may be among them. Of one category there may be fewer than that many.
    if (!category && results->Size() < kCount) ++answers_.short_ones;
    for (const JsonValue& result : results->GetArray()) {
      const std::string_view id = JsonText(*JsonFind(result, "id"));
      if (!id.starts_with("item-")) continue;
      const auto item = static_cast<std::size_t>(ParseInt(id.substr(5)).value_or(0));
      if (world_.WasGone(item, as_of->GetInt64())) ++answers_.stale;
      if (category && item % kCategories != *category) ++answers_.errors;
    }
  }

  // New items, five a second: how long after its record's time does a search find one?
  void Probe() {
    std::mt19937_64 random(options_.seed + 2);
    auto producer = OpenKafkaProducer(kafka_);
    auto engine = LoadConnection::Open(engine_->address());
    auto sidecar = LoadConnection::Open(sidecar_->address());
    if (!producer.ok() || !engine.ok() || !sidecar.ok()) {
      ++probe_errors_;
      return;
    }
    for (std::size_t number = 0; !stop_; ++number) {
      const std::string id = StrCat("probe-", number);
      const std::string vector = RandomVector(options_.dim, &random);
      OutRecord record = ItemRecord(id, number, number % kCategories, vector);
      record.timestamp_ms = clock_.WallMs();
      const double from = Seconds();
      if (!(*producer)->Send({record}, kTimeout).ok()) ++probe_errors_;
      acknowledged_ms_.push_back((Seconds() - from) * 1e3);
      // Exact: it is not the graph's recall that is asked for.
      const std::string request = PostRequest("/v1/recall", "application/json",
                                              StrCat(R"({"k":1,"params":{"exact":true},"vector":)", vector, "}"));
      const std::string found = StrCat(R"("id":")", id, "\"");
      bool at_engine = false;
      bool at_sidecar = false;
      while (!(at_engine && at_sidecar) && Seconds() - from < kFoundWithinSeconds) {
        const auto look = [&](auto& connection, bool* there, std::vector<double>* ms) {
          if (*there) return;
          const auto answer = connection->Call(request);
          if (!answer.ok() || answer->find(found) == std::string_view::npos) return;
          *there = true;
          ms->push_back((Seconds() - from) * 1e3);
        };
        look(*engine, &at_engine, &engine_ms_);
        look(*sidecar, &at_sidecar, &sidecar_ms_);
        WaitUntil(Seconds() + 0.0005);
      }
      if (!at_engine || !at_sidecar) ++probe_errors_;
      if (!(*producer)->Send({GoneRecord(id)}, kTimeout).ok()) ++probe_errors_;
      WaitUntil(Seconds() + 0.2);
    }
  }

  // A sample of items, live and gone, as the sidecar holds them.
  Result<std::size_t> Differences() {
    FRESHET_ASSIGN(const auto connection, LoadConnection::Open(sidecar_->address()));
    std::size_t differences = 0;
    for (std::size_t i = 0; i < std::min(kSampled, options_.items); ++i) {
      const std::size_t item = random_() % options_.items;
      const auto answer = connection->Call(StrCat("GET /v1/items/", IdOf(item), " HTTP/1.1\r\nHost: a\r\n\r\n"));
      const bool live = answer.ok() && answer->find(R"("live":true)") != std::string_view::npos;
      differences += live == world_.IsLive(item) ? 0 : 1;
    }
    return differences;
  }

  Result<Report> Tell() {
    FRESHET_ASSIGN(const std::size_t differences, Differences());
    FRESHET_ASSIGN(const double snapshots, engine_->StatusOf("created", "snapshots"));
    FRESHET_ASSIGN(const double failed, engine_->StatusOf("failed", "snapshots"));
    engine_->process().Signal(SIGTERM);
    sidecar_->process().Signal(SIGTERM);
    const int engine_exit = engine_->process().Wait(kServerUpMs);
    const int sidecar_exit = sidecar_->process().Wait(kServerUpMs);
    Report report;
    report.benchmark = "soak";
    const std::vector<std::pair<std::string, std::string>> params = {
        {"items", StrCat(options_.items)},
        {"dim", StrCat(options_.dim)},
        {"broker", options_.embedded ? "embedded" : "Kafka"}};
    report.rows.push_back({"updates",
                           false,
                           params,
                           {{"minutes", seconds_ / 60},
                            {"records", static_cast<double>(sent_)},
                            {"per_second", static_cast<double>(sent_) / seconds_},
                            {"snapshots", snapshots},
                            {"snapshots_failed", failed}}});
    report.rows.push_back({"answers of the sidecar",
                           false,
                           params,
                           {{"answers", static_cast<double>(answers_.answers)},
                            {"errors", static_cast<double>(answers_.errors)},
                            {"short", static_cast<double>(answers_.short_ones)},
                            {"stale_items", static_cast<double>(answers_.stale)},
                            {"p50_us", Quantile(answers_.us, 0.5)},
                            {"p99_us", Quantile(answers_.us, 0.99)},
                            {"p999_us", Quantile(answers_.us, 0.999)}}});
    const auto freshness = [&](const char* name, const std::vector<double>& ms) {
      report.rows.push_back({name,
                             false,
                             params,
                             {{"probes", static_cast<double>(ms.size())},
                              {"p50_ms", Quantile(ms, 0.5)},
                              {"p90_ms", Quantile(ms, 0.9)},
                              {"p99_ms", Quantile(ms, 0.99)},
                              {"slowest_ms", Quantile(ms, 1)}}});
    };
    freshness("record time to acknowledged by the broker", acknowledged_ms_);
    freshness("record time to found, engine", engine_ms_);
    freshness("record time to found, sidecar", sidecar_ms_);
    const auto memory = [&](const char* name, const std::vector<double>& mb) {
      // From a quarter on: by then every buffer and cache has been filled once.
      const double early = mb.empty() ? 0 : mb[mb.size() / 4];
      const double late = mb.empty() ? 0 : mb.back();
      report.rows.push_back({StrCat("resident, ", name),
                             false,
                             params,
                             {{"at_a_quarter_mb", early}, {"at_the_end_mb", late}, {"most_mb", Quantile(mb, 1)}}});
      report.goals.push_back(
          {StrCat("resident ", name, ", end to a quarter, ratio"), 1.1, late / std::max(early, 1.0), true});
    };
    memory("engine", engine_mb_);
    memory("sidecar", sidecar_mb_);
    const auto none = [&](const char* name, double value) { report.goals.push_back({name, 0, value, true}); };
    none("errors", static_cast<double>(answers_.errors + probe_errors_) + failed);
    none("answers with fewer than k items", static_cast<double>(answers_.short_ones));
    none("items in answers that were gone", static_cast<double>(answers_.stale));
    none("items that the sidecar holds otherwise than they were sent, of a sample", static_cast<double>(differences));
    none("exit statuses", engine_exit + sidecar_exit);
    report.goals.push_back({"record time to found in the sidecar, p99, ms", 50, Quantile(sidecar_ms_, 0.99), true});
    return report;
  }

  const SoakOptions options_;
  const Directory directory_;
  const SystemClock clock_;
  World world_;
  std::mt19937_64 random_;
  KafkaOptions kafka_;
  std::unique_ptr<test::Process> embedded_;
  std::unique_ptr<test::KafkaBroker> broker_;
  std::unique_ptr<KafkaProducer> producer_;
  std::unique_ptr<Server> engine_;
  std::unique_ptr<Server> sidecar_;
  std::atomic<bool> stop_{false};
  Answers answers_;  // the asking thread's, until it is joined
  std::vector<double> acknowledged_ms_;
  std::vector<double> engine_ms_;
  std::vector<double> sidecar_ms_;
  std::uint64_t probe_errors_ = 0;
  std::vector<double> engine_mb_;
  std::vector<double> sidecar_mb_;
  std::uint64_t sent_ = 0;
  double seconds_ = 0;
};

}  // namespace

Result<Report> RunSoakBench(const SoakOptions& asked) {
  SoakOptions options = asked;
  if (options.quick) {
    options.minutes = 0.2;
    options.items = 2'000;
    options.embedded = true;
  }
  return Soak(options).Run();
}

}  // namespace freshet::bench
