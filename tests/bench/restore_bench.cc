#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "freshet/core/strings.h"
#include "freshet/store/applier.h"
#include "freshet/store/index_files.h"
#include "freshet/store/restore.h"
#include "freshet/store/snapshotter.h"
#include "freshet_test/vectors.h"
#include "peer_hnswlib.h"
#include "store_bench.h"

namespace freshet::bench {
namespace {

EncodedBatch BatchOf(const test::VectorSet& vectors, std::size_t begin, std::size_t end, std::size_t ids) {
  EncodedBatch batch;
  batch.space_id = "bench";
  batch.progress.push_back(PartitionProgress{{"items", 0}, static_cast<std::int64_t>(end), 0, 0, 0, 0});
  for (std::size_t i = begin; i < end; ++i) {
    ItemChange& change = batch.items.emplace_back();
    change.update.item_id = StrCat("item-", 100'000'000 + i % ids);
    change.update.attributes = {{"category", std::string("film")}, {"in_stock", true}, {"year", std::int64_t{1995}}};
    const float* row = vectors.Row(i % vectors.size);
    change.update.vector.assign(row, row + vectors.dim);
    change.position = {0, static_cast<std::int64_t>(i)};
  }
  return batch;
}

// Opened as an engine opens it.
struct Engine {
  Metrics metrics;
  SystemClock clock;
  std::unique_ptr<Store> store;
  std::unique_ptr<Applier> applier;
  bool from_file = false;

  Status Open(const StoreOptions& options, const HnswOptions& index, SnapshotRepository* repository) {
    FRESHET_ASSIGN(OpenedStore opened, OpenOrRestore(options, repository, false, false, {}, {}));
    store = std::move(opened.store);
    ApplierOptions apply;
    apply.outbox = false;
    applier = std::make_unique<Applier>(apply, options, store.get(), &clock, &metrics);
    from_file = true;
    return applier->Rebuild([&] {
      return IndexFiles(store.get())
          .Open([&](const std::string& path) { return OpenHnswIndex(path, index); },
                [&] {
                  from_file = false;
                  return MakeHnswIndex(index);
                });
    });
  }
};

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(p * static_cast<double>(values.size())))];
}

bool DropCaches() {
  ::sync();
  const int fd = ::open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool dropped = ::write(fd, "3", 1) == 1;
  ::close(fd);
  return dropped;
}

double ReadAllSeconds(const std::string& directory) {
  const double from = Seconds();
  std::vector<char> piece(1 << 20);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && ::read(fd, piece.data(), piece.size()) > 0) {
    }
    if (fd >= 0) ::close(fd);
  }
  return Seconds() - from;
}

// Searches one after the other until told to stop; their times.
class Searcher {
 public:
  Searcher(const Index& index, const test::VectorSet& queries) : index_(index), queries_(queries) {
    thread_ = std::thread([this] { Run(); });
  }
  std::vector<double> Stop() {
    stop_ = true;
    thread_.join();
    return std::move(seconds_);
  }

 private:
  void Run() {
    SearchOptions options;
    options.k = 100;
    for (std::size_t i = 0; !stop_; ++i) {
      const float* query = queries_.Row(i % queries_.size);
      const double from = Seconds();
      const auto hits = index_.Search({query, static_cast<std::size_t>(queries_.dim)}, options);
      seconds_.push_back(Seconds() - from);
      if (!hits.ok()) return;
    }
  }
  const Index& index_;
  const test::VectorSet& queries_;
  std::atomic<bool> stop_{false};
  std::vector<double> seconds_;
  std::thread thread_;
};

}  // namespace

Result<Report> RunRestoreBench(const StoreBenchOptions& asked) {
  StoreBenchOptions options = asked;
  if (options.quick) {
    options.vectors = 5'000;
    options.rounds = 2;
  }
  const Directory directory(options.directory);
  const test::VectorSet vectors = test::ClusteredVectors(options.seed, 0, options.vectors, options.dim, 256);
  const test::VectorSet queries = test::ClusteredVectors(options.seed, 1, 1'000, options.dim, 256);
  StoreOptions store;
  store.directory = directory.path + "/data";
  store.space_id = "bench";
  store.dim = options.dim;
  HnswOptions index;
  index.dim = options.dim;
  index.link_threads = 2;
  index.ef_construction = options.ef_construction;
  Report report;
  report.benchmark = "restore";
  const auto params = std::vector<std::pair<std::string, std::string>>{{"vectors", StrCat(options.vectors)},
                                                                       {"dim", StrCat(options.dim)}};
  const auto repository = OpenLocalRepository(directory.path + "/snapshots");
  SnapshotOptions snapshot_options;
  snapshot_options.directory = repository->name();
  std::string id;
  double stall = 0;
  double steady_p99 = 0;
  double during_p99 = 0;
  {
    Engine engine;
    FRESHET_TRY(engine.Open(store, index, nullptr));
    const double build_from = Seconds();
    const double build_cpu_from = ProcessCpuSeconds();
    for (std::size_t at = 0; at < options.vectors; at += options.batch) {
      FRESHET_TRY(
          engine.applier->Apply(BatchOf(vectors, at, std::min(options.vectors, at + options.batch), options.vectors)));
    }
    FRESHET_TRY(const_cast<Index&>(engine.applier->index()).Settle());
    report.rows.push_back(
        {"streamed in and linked",
         false,
         params,
         {{"seconds", Seconds() - build_from},
          {"cpu_us_per_vector", (ProcessCpuSeconds() - build_cpu_from) * 1e6 / static_cast<double>(options.vectors)}}});

    // One search thread, a writer at a few thousand updates a second, and the snapshot beside them.
    Snapshotter snapshotter(snapshot_options, {}, repository.get(), engine.store.get(), engine.applier.get(),
                            &engine.clock, &engine.metrics);
    BoundedQueue<EncodedBatch> queue(4, std::size_t{64} << 20);
    engine.applier->Start(&queue, {});
    std::atomic<bool> done{false};
    std::thread writer([&] {
      std::size_t at = options.vectors;
      while (!done) {
        if (!queue.Push(BatchOf(vectors, at, at + 32, options.vectors), 1)) return;
        at += 32;
        Pause(0.02);
      }
    });
    {
      Searcher searcher(engine.applier->index(), queries);
      Pause(options.quick ? 1 : 10);
      steady_p99 = Percentile(searcher.Stop(), 0.99);
    }
    Searcher searcher(engine.applier->index(), queries);
    const double from = Seconds();
    const auto manifest = snapshotter.Create();
    const double seconds = Seconds() - from;
    const auto times = searcher.Stop();
    done = true;
    writer.join();
    queue.Close();
    engine.applier->Join();
    if (!manifest.ok()) return manifest.status();
    id = manifest->id;
    stall = snapshotter.report().stall_seconds;
    during_p99 = Percentile(times, 0.99);
    report.rows.push_back(
        {"snapshot, engine busy",
         false,
         params,
         {{"seconds", seconds},
          {"ingest_stall_ms", stall * 1e3},
          {"search_p99_us", during_p99 * 1e6},
          {"steady_search_p99_us", steady_p99 * 1e6},
          {"bytes", static_cast<double>(manifest->bytes())},
          {"bytes_per_vector", static_cast<double>(manifest->bytes()) / static_cast<double>(options.vectors)}}});
  }
  std::vector<double> warm;
  std::vector<double> warm_cpu;
  bool from_file = false;
  std::uint64_t inserted = 0;
  for (std::size_t round = 0; round < options.rounds; ++round) {
    store.directory = StrCat(directory.path, "/restored-", round);
    const double from = Seconds();
    const double cpu_from = ProcessCpuSeconds();
    Engine engine;
    FRESHET_TRY(engine.Open(store, index, repository.get()));
    warm.push_back(Seconds() - from);
    warm_cpu.push_back(ProcessCpuSeconds() - cpu_from);
    from_file = engine.from_file;
    inserted = engine.applier->rebuilt_items();
    FRESHET_TRY(engine.applier->Audit());
    engine.applier.reset();
    engine.store.reset();
    std::filesystem::remove_all(store.directory);
  }
  report.rows.push_back({"restore to ready, from page cache",
                         false,
                         params,
                         {{"seconds", Median(warm)},
                          {"slowest", *std::max_element(warm.begin(), warm.end())},
                          {"cpu_us_per_vector", Median(warm_cpu) * 1e6 / static_cast<double>(options.vectors)},
                          {"index_from_file", from_file ? 1.0 : 0.0},
                          {"inserted", static_cast<double>(inserted)}}});
  if (DropCaches()) {
    const double cat = ReadAllSeconds(StrCat(repository->name(), "/", id));
    (void)DropCaches();
    store.directory = directory.path + "/cold";
    const double from = Seconds();
    Engine engine;
    FRESHET_TRY(engine.Open(store, index, repository.get()));
    const double cold = Seconds() - from;
    report.rows.push_back({"restore to ready, from disk", false, params, {{"seconds", cold}}});
    report.rows.push_back({"reading the same files", true, params, {{"seconds", cat}}});
    report.goals.push_back({"restore from disk to reading the files, ratio", 1.5, cold / cat, true});
  }
  report.goals.push_back({"ingest stall at the cut, ms", 50, stall * 1e3, true});
  report.goals.push_back({"search p99 during a snapshot to steady, ratio", 1.5, during_p99 / steady_p99, true});
  report.goals.push_back({"restore to ready, seconds", 2, Median(warm), true});
  if (options.peer) {
    PeerHnswlib peer(false, options.dim, options.vectors, index.m, index.ef_construction);
    std::atomic<std::size_t> next{0};
    const double from = Seconds();
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        for (std::size_t i = next++; i < vectors.size; i = next++) peer.Add(i, vectors.Row(i));
      });
    }
    for (std::thread& thread : threads) thread.join();
    const double seconds = Seconds() - from;
    report.rows.push_back({"hnswlib builds the graph, 2 threads", true, params, {{"seconds", seconds}}});
    report.goals.push_back({"restore to hnswlib's build, times faster", 100, seconds / Median(warm), false});
  }
  return report;
}

}  // namespace freshet::bench
