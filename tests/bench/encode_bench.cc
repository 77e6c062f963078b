#include "encode_bench.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "bench_towers.h"
#include "freshet/core/clock.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/encode_stage.h"
#include "freshet/encoder/package.h"
#include "freshet/encoder/training.h"
#include "peer_torch.h"

namespace freshet::bench {
namespace {

const char* const kPoolings[] = {"mean", "attention", "gru", "self-attention"};
constexpr std::size_t kItemBatches[] = {16, 256};
constexpr int kTrainBatch = 1024;
constexpr std::size_t kQueueBatches = 8;  // as an engine has them
constexpr double kLingerMs = 5;           // likewise
constexpr std::size_t kLoadedBatch = 256;

struct Rates {
  double cpu = 0;   // items a processor second
  double wall = 0;  // items a second
};

struct Waits {
  double p50_ms = 0;
  double p99_ms = 0;
};

struct Towers {
  std::string pooling;
  std::unique_ptr<ModelPackage> package;
  std::unique_ptr<UserEncoder> users;
  std::unique_ptr<ItemEncoder> items;
  std::vector<double> p50_us;  // of each round
  std::vector<double> p99_us;
};

TowerShape ShapeOf(const EncodeBenchOptions& options) {
  return {options.items, options.dim, options.history, options.seed};
}

Result<Towers> MakeTowers(const EncodeBenchOptions& options, const std::string& directory, const std::string& pooling) {
  Towers towers;
  towers.pooling = pooling;
  FRESHET_ASSIGN(towers.package, TrainTowers(ShapeOf(options), directory, pooling));
  FRESHET_ASSIGN(towers.users, towers.package->LoadUserEncoder());
  FRESHET_ASSIGN(towers.items, towers.package->LoadItemEncoder());
  return towers;
}

Status QueryRound(const EncodeBenchOptions& options, std::mt19937_64* random, Towers* towers) {
  std::vector<double> took_us;
  std::vector<float> vector(static_cast<std::size_t>(options.dim));
  UserContext user;
  user.user_id = "u";
  for (int query = 0; query < options.queries; ++query) {
    user.history.clear();
    for (int i = 0; i < options.history; ++i) {
      user.history.push_back({StrCat("i", (*random)() % static_cast<std::uint64_t>(options.items)), "view", 1.0, i});
    }
    const double begin = Seconds();
    FRESHET_TRY(towers->users->Encode(user, vector));
    took_us.push_back((Seconds() - begin) * 1e6);
  }
  std::sort(took_us.begin(), took_us.end());
  towers->p50_us.push_back(took_us[took_us.size() / 2]);
  towers->p99_us.push_back(took_us[took_us.size() * 99 / 100]);
  return Status::Ok();
}

// Items a second of this thread, decoded events to vectors.
Result<double> ItemRate(const EncodeBenchOptions& options, std::size_t batch_size, ItemEncoder* encoder) {
  std::vector<ItemUpdate> items;
  for (int i = 0; i < options.items; ++i) items.push_back(ShopItem(i));
  std::vector<const ItemUpdate*> batch(batch_size);
  std::vector<float> out(batch_size * static_cast<std::size_t>(options.dim));
  std::size_t done = 0;
  const double begin = CpuSeconds();
  for (std::size_t at = 0; at + batch_size <= items.size(); at += batch_size) {
    for (std::size_t i = 0; i < batch_size; ++i) batch[i] = &items[at + i];
    FRESHET_TRY(encoder->Encode(batch, out));
    done += batch_size;
  }
  return static_cast<double>(done) / std::max(CpuSeconds() - begin, 1e-9);
}

class NoDeadLetters final : public DeadLetterQueue {
 public:
  Status Send(std::vector<DeadLetter> letters) override {
    return letters.empty() ? Status::Ok() : Internal("a dead letter in a benchmark");
  }
};

// The next `size` events of an endless stream.
EventBatch NextBatch(const EncodeBenchOptions& options, std::size_t size, std::int64_t* offset) {
  EventBatch batch;
  batch.arena = std::make_shared<ByteArena>();
  batch.progress.resize(1);
  batch.progress[0].partition = {"items", 0};
  for (std::size_t j = 0; j < size; ++j) {
    Event& event = batch.events.emplace_back();
    event.position = {0, *offset};
    event.record_timestamp_ms = 1000 + *offset;
    event.raw.topic = "items";
    ItemUpdate item = ShopItem(static_cast<int>((*offset)++ % options.items));
    event.raw.key = batch.arena->Keep(item.item_id);
    event.body = std::move(item);
  }
  batch.progress[0].next_offset = *offset;
  return batch;
}

// Items a processor second of the whole stage: decoded events in, encoded batches out, both queues and their hand-over
// included. Making the events is not, and neither is what the stage after it does, which here lets each batch go, as
// the applier does: else every vector would be written into memory that the process never had before. By the wall clock
// too: what the machine, busy as it is, lets through.
Result<Rates> StageRate(const EncodeBenchOptions& options, std::size_t batch_size, ItemEncoder* encoder) {
  const std::size_t batches = std::max<std::size_t>(4, static_cast<std::size_t>(options.items) * 4 / batch_size);
  BoundedQueue<EventBatch> in(batches, std::size_t{1} << 40);
  BoundedQueue<EncodedBatch> out(kQueueBatches, std::size_t{1} << 40);
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < batches; ++i) {
    if (!in.Push(NextBatch(options, batch_size, &offset), 1)) return Internal("the queue is closed");
  }
  in.Close();
  NoDeadLetters letters;
  const SystemClock clock;
  Metrics metrics;
  EncodeStage stage(encoder, &letters, &in, &out, &clock, &metrics);
  const double begin = ProcessCpuSeconds();
  const double begin_s = Seconds();
  double after_s = 0;
  std::thread after([&] {
    while (out.Pop()) continue;
    after_s = CpuSeconds();  // of this thread
  });
  stage.Start();
  stage.Join();
  after.join();
  const double took_s = Seconds() - begin_s;
  const double took = ProcessCpuSeconds() - begin - after_s;
  FRESHET_TRY(stage.status());
  const auto done = static_cast<double>(batches * batch_size);
  return Rates{done / std::max(took, 1e-9), done / std::max(took_s, 1e-9)};
}

// What a record waits for company, is queued and embedded, in milliseconds from its arrival, where records come by
// chance, `per_second` of them. Batches close as those of ingest do.
Result<Waits> StageWaits(const EncodeBenchOptions& options, double per_second, ItemEncoder* encoder,
                         std::mt19937_64* random) {
  struct Arriving {
    EventBatch batch;
    std::vector<double> at_s;  // of each record, from the beginning
    double closed_s = 0;
  };
  std::vector<Arriving> batches;
  std::exponential_distribution<double> gap(per_second);
  const double until_s = options.quick ? 0.1 : 1;
  std::int64_t offset = 0;
  for (double at = gap(*random); at < until_s;) {
    Arriving& one = batches.emplace_back();
    const double linger_s = at + kLingerMs * 1e-3;
    for (; at < linger_s && one.at_s.size() < kLoadedBatch; at += gap(*random)) one.at_s.push_back(at);
    one.closed_s = one.at_s.size() == kLoadedBatch ? one.at_s.back() : linger_s;
    one.batch = NextBatch(options, one.at_s.size(), &offset);
  }
  BoundedQueue<EventBatch> in(kQueueBatches, std::size_t{1} << 40);
  BoundedQueue<EncodedBatch> out(kQueueBatches, std::size_t{1} << 40);
  NoDeadLetters letters;
  const SystemClock clock;
  Metrics metrics;
  EncodeStage stage(encoder, &letters, &in, &out, &clock, &metrics);
  stage.Start();
  const double begin = Seconds();
  std::vector<double> waits_ms;
  std::thread after([&] {
    for (const Arriving& one : batches) {
      const std::optional<EncodedBatch> encoded = out.Pop();
      if (!encoded) return;
      const double now = Seconds() - begin;
      for (const double at : one.at_s) waits_ms.push_back((now - at) * 1e3);
    }
  });
  for (Arriving& one : batches) {
    Pause(std::max(0.0, begin + one.closed_s - Seconds()));
    if (!in.Push(std::move(one.batch), 1)) break;
  }
  in.Close();
  after.join();
  out.Close();
  stage.Join();
  FRESHET_TRY(stage.status());
  if (waits_ms.empty()) return Internal("nothing came through the stage");
  std::sort(waits_ms.begin(), waits_ms.end());
  return Waits{waits_ms[waits_ms.size() / 2], waits_ms[waits_ms.size() * 99 / 100]};
}

// The same items in ready tensors, the same tower, and nothing else.
double RawRate(const EncodeBenchOptions& options, std::size_t batch_size, const Towers& towers) {
  TowerInput input;
  for (std::size_t i = 0; i < batch_size; ++i) {
    AppendItem(towers.package->manifest().item, ShopItem(static_cast<int>(i) % options.items), &input);
  }
  const int repeats = std::max(20, options.items / static_cast<int>(batch_size));
  return PeerTorchRowRate(StrCat(options.directory, "/", towers.pooling, "/item_tower.pt"), input, repeats);
}

// Pairs a processor second of one epoch of our trainer, validation and set-up left out. One thread.
Result<double> TrainingRate(const EncodeBenchOptions& options, const std::string& directory, bool quick) {
  TowerShape shape = ShapeOf(options);
  shape.items = quick ? 10'000 : 100'000;
  WriteShopEvents(shape, directory);
  TrainOptions train;
  train.items_file = directory + "/items.jsonl";
  train.interactions_file = directory + "/interactions.jsonl";
  train.out_directory = directory + "/trained";
  train.batch_size = kTrainBatch;
  train.dim = options.dim;
  train.history = 20;
  train.history_dropout = 0;
  train.epochs = 1;
  train.report = false;
  train.checkpoint_seconds = 1e9;
  double first_cpu = -1;
  double first_pairs = 0;
  double last_cpu = 0;
  double last_pairs = 0;
  const auto progress = [&](const TrainProgress& state) {
    if (state.ended) return;  // validation is in the time by then
    last_cpu = ProcessCpuSeconds();
    last_pairs = state.fraction;
    if (first_cpu >= 0) return;
    first_cpu = last_cpu;
    first_pairs = last_pairs;
  };
  FRESHET_ASSIGN(const TrainReport report, Train(train, progress));
  const double pairs = (last_pairs - first_pairs) * static_cast<double>(report.train_pairs);
  return pairs / std::max(last_cpu - first_cpu, 1e-9);
}

}  // namespace

Result<Report> RunEncodeBench(const EncodeBenchOptions& given) {
  EncodeBenchOptions options = given;
  if (options.quick) {
    options.items = 600;
    options.queries = 100;
    options.rounds = 1;
  }
  const Directory directory(options.directory);
  options.directory = directory.path;
  WriteShopEvents(ShapeOf(options), directory.path);
  std::vector<Towers> all;
  for (const char* pooling : kPoolings) {
    FRESHET_ASSIGN(Towers towers, MakeTowers(options, directory.path, pooling));
    all.push_back(std::move(towers));
  }
  std::mt19937_64 random(options.seed);
  std::vector<double> rates[std::size(kItemBatches)];
  std::vector<double> stages[std::size(kItemBatches)];
  std::vector<double> raws[std::size(kItemBatches)];
  std::vector<double> loads;  // items a second
  std::vector<double> p50_ms;
  std::vector<double> p99_ms;
  for (std::size_t round = 0; round < options.rounds; ++round) {
    for (Towers& towers : all) FRESHET_TRY(QueryRound(options, &random, &towers));
    for (std::size_t i = 0; i < std::size(kItemBatches); ++i) {
      FRESHET_ASSIGN(const double rate, ItemRate(options, kItemBatches[i], all[0].items.get()));
      rates[i].push_back(rate);
      FRESHET_ASSIGN(const Rates stage, StageRate(options, kItemBatches[i], all[0].items.get()));
      stages[i].push_back(stage.cpu);
      raws[i].push_back(RawRate(options, kItemBatches[i], all[0]));
      if (kItemBatches[i] != kLoadedBatch) continue;
      FRESHET_ASSIGN(const Waits waits, StageWaits(options, stage.wall / 2, all[0].items.get(), &random));
      loads.push_back(stage.wall / 2);
      p50_ms.push_back(waits.p50_ms);
      p99_ms.push_back(waits.p99_ms);
    }
  }
  FRESHET_ASSIGN(const double trained, TrainingRate(options, directory.path, options.quick));
  PeerTrainingShape peer;
  peer.dim = options.dim;
  peer.batch = kTrainBatch;
  if (options.quick) peer.items = 10'000;
  const double dense = PeerTorchPairRate(peer, options.quick ? 3 : 10);
  Report report;
  report.benchmark = "encode";
  for (const Towers& towers : all) {
    Row& row = report.rows.emplace_back();
    row.name = "user tower, one query";
    row.params = {{"pooling", towers.pooling}, {"history", StrCat(options.history)}, {"dim", StrCat(options.dim)}};
    row.metrics = {{"p50_us", Median(towers.p50_us)}, {"p99_us", Median(towers.p99_us)}};
    if (towers.pooling == "mean") report.goals.push_back({"mean: p99_us", 300, Median(towers.p99_us), true});
    if (towers.pooling == "self-attention") {
      report.goals.push_back({"self-attention: p99_us", 1000, Median(towers.p99_us), true});
    }
  }
  for (std::size_t i = 0; i < std::size(kItemBatches); ++i) {
    Row& row = report.rows.emplace_back();
    row.name = "item tower, one thread";
    row.params = {{"batch", StrCat(kItemBatches[i])}, {"dim", StrCat(options.dim)}};
    row.metrics = {{"items_per_cpu_second", Median(rates[i])}};
    Row& stage = report.rows.emplace_back();
    stage.name = "encode stage, events to vectors";
    stage.params = report.rows[report.rows.size() - 2].params;
    stage.metrics = {{"items_per_cpu_second", Median(stages[i])}};
    Row& raw = report.rows.emplace_back();
    raw.name = "LibTorch, ready tensors";
    raw.is_peer = true;
    raw.params = stage.params;
    raw.metrics = {{"items_per_cpu_second", Median(raws[i])}};
    if (kItemBatches[i] != kLoadedBatch) continue;
    const double batch_ms = 1e3 * kLoadedBatch / (2 * Median(loads));
    report.rows.push_back(
        {"encode stage at half load, arrival to vector",
         false,
         {{"batch", StrCat("at most ", kLoadedBatch)}, {"linger_ms", StrCat(kLingerMs)}},
         {{"items_per_second", Median(loads)}, {"p50_ms", Median(p50_ms)}, {"p99_ms", Median(p99_ms)}}});
    report.goals.push_back(
        {"half load: p99_ms, within linger and one batch", kLingerMs + batch_ms, Median(p99_ms), true});
    report.goals.push_back({"items_per_cpu_second at 256", 150'000, Median(rates[i])});
    report.goals.push_back({"stage / raw loop at 256", 0.9, Median(stages[i]) / Median(raws[i])});
  }
  const std::string items = StrCat(peer.items);
  report.rows.push_back({"training, id and content, Adam on touched rows",
                         false,
                         {{"batch", StrCat(kTrainBatch)}, {"items", items}},
                         {{"pairs_per_cpu_second", trained}}});
  report.rows.push_back({"LibTorch, dense Adam",
                         true,
                         {{"batch", StrCat(kTrainBatch)}, {"items", items}},
                         {{"pairs_per_cpu_second", dense}}});
  report.goals.push_back({"training pairs_per_cpu_second, twice (two cores)", 60'000, 2 * trained});
  return report;
}

}  // namespace freshet::bench
