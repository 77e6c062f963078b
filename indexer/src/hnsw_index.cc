// HNSW (Malkov and Yashunin, arXiv 1603.09320) by hnswlib 0.8.0: the only file that names it.
//
// hnswlib may not be searched while it is changed, resized live or asked to reuse slots (measured: races, crashes,
// points that cannot be found or deleted). So a graph here only ever grows, in short slices during which searches wait;
// tombstones are our own bitmap, consulted through its filter functor, so that its deletion code never runs; and when a
// graph is full, or too much of it is dead, a new one is built from the live vectors while the old one answers, and
// then takes its place.
#include <hnswlib/hnswlib.h>
#include <atomic>
#include <exception>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "freshet/indexer/index.h"
#include "scoring.h"

namespace freshet {
namespace {

// hnswlib wants lower-is-better distances.
class Space final : public hnswlib::SpaceInterface<float> {
 public:
  Space(Metric metric, int dim)
      : bytes_(static_cast<std::size_t>(dim) * sizeof(float)),
        parameter_{static_cast<std::size_t>(dim), metric == Metric::kL2 ? SquaredL2Kernel() : DotKernel()},
        l2_(metric == Metric::kL2) {}
  std::size_t get_data_size() override { return bytes_; }
  hnswlib::DISTFUNC<float> get_dist_func() override { return l2_ ? &L2 : &InnerProduct; }
  void* get_dist_func_param() override { return &parameter_; }

 private:
  struct Parameter {
    std::size_t dim;
    DistanceKernel kernel;
  };
  static float L2(const void* a, const void* b, const void* parameter) {
    const auto* p = static_cast<const Parameter*>(parameter);
    return p->kernel(static_cast<const float*>(a), static_cast<const float*>(b), p->dim);
  }
  static float InnerProduct(const void* a, const void* b, const void* parameter) { return -L2(a, b, parameter); }

  const std::size_t bytes_;
  Parameter parameter_;
  const bool l2_;
};

// One graph with its slots. hnswlib's labels are our slot numbers, in order of insertion.
struct Graph {
  Graph(const HnswOptions& options, std::size_t wanted_capacity)
      : capacity(wanted_capacity),
        space(options.metric, options.dim),
        hnsw(&space, wanted_capacity, options.m, options.ef_construction, options.seed),
        labels(wanted_capacity),
        dead((wanted_capacity + 63) / 64) {}

  [[nodiscard]] bool IsDead(std::size_t slot) const {
    return (dead[slot / 64].load(std::memory_order_acquire) >> (slot % 64) & 1) != 0;
  }
  void MarkDead(std::size_t slot) {
    dead[slot / 64].fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
    dead_count.fetch_add(1);
  }
  [[nodiscard]] const float* Vector(std::size_t slot) const {
    return reinterpret_cast<const float*>(hnsw.getDataByInternalId(static_cast<hnswlib::tableint>(slot)));
  }

  const std::size_t capacity;
  Space space;
  hnswlib::HierarchicalNSW<float> hnsw;
  std::vector<Label> labels;                     // by slot; written before `used` covers it
  std::vector<std::atomic<std::uint64_t>> dead;  // bitmap by slot
  std::atomic<std::size_t> used{0};
  std::atomic<std::size_t> dead_count{0};
};

class SlotFilter final : public hnswlib::BaseFilterFunctor {
 public:
  SlotFilter(const Graph* graph, const LabelFilter* filter) : graph_(graph), filter_(filter) {}
  bool operator()(hnswlib::labeltype slot) override {
    return !graph_->IsDead(slot) && (filter_ == nullptr || filter_->Allows(graph_->labels[slot]));
  }

 private:
  const Graph* graph_;
  const LabelFilter* filter_;
};

class HnswIndex final : public Index {
 public:
  explicit HnswIndex(const HnswOptions& options)
      : options_(options),
        score_(options.metric, options.dim),
        graph_(std::make_shared<Graph>(options, options.initial_capacity)) {}

  [[nodiscard]] int dim() const override { return options_.dim; }
  [[nodiscard]] Metric metric() const override { return options_.metric; }

  Status Insert(std::span<const Label> labels, std::span<const float> vectors) override {
    try {
      if (graph_->used + labels.size() > graph_->capacity) {
        const std::size_t live = graph_->used - graph_->dead_count;
        FRESHET_TRY(Rebuild(std::max(options_.initial_capacity, 2 * (live + labels.size()))));
      }
      Add(graph_.get(), labels, vectors, /*searched=*/true);
      for (std::size_t i = 0; i < labels.size(); ++i) slots_[labels[i]] = graph_->used - labels.size() + i;
      return Status::Ok();
    } catch (const std::bad_alloc&) {
      return ResourceExhausted("no memory for the index to grow");
    } catch (const std::exception& e) {
      return Internal(StrCat("hnswlib: ", e.what()));
    }
  }

  void Tombstone(std::span<const Label> labels) override {
    for (const Label label : labels) {
      const auto it = slots_.find(label);
      if (it == slots_.end()) continue;
      graph_->MarkDead(it->second);
      slots_.erase(it);
    }
  }

  Status Maintain() override {
    const std::size_t used = graph_->used;
    const std::size_t live = used - graph_->dead_count;
    if (used < options_.initial_capacity / 4 ||
        static_cast<double>(live) >= options_.min_live_fraction * static_cast<double>(used)) {
      return Status::Ok();
    }
    try {
      return Rebuild(std::max(options_.initial_capacity, 2 * live));
    } catch (const std::bad_alloc&) {
      return ResourceExhausted("no memory to rebuild the index; the old graph keeps serving");
    } catch (const std::exception& e) {
      return Internal(StrCat("hnswlib: ", e.what()));
    }
  }

  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    FRESHET_TRY(CheckQuery(query, options_.dim));
    if (options.k == 0) return std::vector<Hit>{};
    try {
      const std::shared_ptr<Graph> graph = Current();
      const auto lock = ReadLock();
      const std::size_t used = graph->used;
      const std::size_t dead = graph->dead_count;
      const std::size_t wanted = std::max({options.ef, options.k + options.k / 2, std::size_t{64}});
      // A scan is exact, and cheaper than a graph search that would visit most of the graph anyway.
      if (options.exact || used - dead <= wanted * 4) return Scan(*graph, used, query, options);
      SlotFilter filter(graph.get(), options.filter);
      const bool filtered = dead > 0 || options.filter != nullptr;
      auto found = graph->hnsw.searchKnn(query.data(), wanted, filtered ? &filter : nullptr);
      if (found.size() < options.k) return Scan(*graph, used, query, options);
      TopK top(options);
      for (; !found.empty(); found.pop()) {
        const std::size_t slot = found.top().second;
        top.Offer(graph->labels[slot], score_(query.data(), graph->Vector(slot)));
      }
      return top.Take();
    } catch (const std::bad_alloc&) {
      return ResourceExhausted("no memory for the search");
    } catch (const std::exception& e) {
      return Internal(StrCat("hnswlib: ", e.what()));
    }
  }

  [[nodiscard]] IndexStats Stats() const override {
    const std::shared_ptr<Graph> graph = Current();
    IndexStats stats;
    const std::size_t used = graph->used;
    stats.tombstones = graph->dead_count;
    stats.live = used - stats.tombstones;
    stats.capacity = graph->capacity;
    stats.memory_bytes = used * (static_cast<std::size_t>(options_.dim) * sizeof(float) +
                                 (2 * options_.m + 1) * sizeof(hnswlib::tableint) + 2 * sizeof(Label));
    stats.rebuilds = rebuilds_;
    return stats;
  }

  [[nodiscard]] std::vector<Label> LiveLabels() const override {
    const std::shared_ptr<Graph> graph = Current();
    const auto lock = ReadLock();
    std::vector<Label> labels;
    for (std::size_t slot = 0; slot < graph->used; ++slot) {
      if (!graph->IsDead(slot)) labels.push_back(graph->labels[slot]);
    }
    std::sort(labels.begin(), labels.end());
    return labels;
  }

 private:
  [[nodiscard]] std::shared_ptr<Graph> Current() const {
    const std::lock_guard lock(current_mu_);
    return graph_;
  }

  // The gate lets a waiting writer in before readers that come later: pthread's rwlock alone would starve it.
  [[nodiscard]] std::shared_lock<std::shared_mutex> ReadLock() const {
    const std::lock_guard gate(gate_);
    return std::shared_lock(graph_mu_);
  }

  void Add(Graph* graph, std::span<const Label> labels, std::span<const float> vectors, bool searched) {
    const auto width = static_cast<std::size_t>(options_.dim);
    for (std::size_t begin = 0; begin < labels.size(); begin += options_.write_slice) {
      const std::size_t end = std::min(labels.size(), begin + options_.write_slice);
      std::unique_lock<std::mutex> gate;
      std::unique_lock<std::shared_mutex> lock;
      if (searched) {
        gate = std::unique_lock(gate_);
        lock = std::unique_lock(graph_mu_);
      }
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t slot = graph->used;
        graph->labels[slot] = labels[i];
        graph->hnsw.addPoint(vectors.data() + i * width, slot);
        graph->used = slot + 1;
      }
    }
  }

  // Writer thread. The old graph is only read meanwhile, as searches do; nothing else changes it.
  Status Rebuild(std::size_t capacity) {
    auto fresh = std::make_shared<Graph>(options_, capacity);
    std::unordered_map<Label, std::size_t> slots;
    for (std::size_t slot = 0; slot < graph_->used; ++slot) {
      if (graph_->IsDead(slot)) continue;
      const Label label = graph_->labels[slot];
      slots[label] = fresh->used;
      Add(fresh.get(), {&label, 1}, {graph_->Vector(slot), static_cast<std::size_t>(options_.dim)}, /*searched=*/false);
    }
    slots_ = std::move(slots);
    ++rebuilds_;
    const std::lock_guard lock(current_mu_);
    graph_ = std::move(fresh);
    return Status::Ok();
  }

  [[nodiscard]] std::vector<Hit> Scan(const Graph& graph, std::size_t used, std::span<const float> query,
                                      const SearchOptions& options) const {
    TopK top(options);
    for (std::size_t slot = 0; slot < used; ++slot) {
      if (!graph.IsDead(slot)) top.Offer(graph.labels[slot], score_(query.data(), graph.Vector(slot)));
    }
    return top.Take();
  }

  const HnswOptions options_;
  const Scorer score_;
  mutable std::mutex current_mu_;  // guards the pointer graph_ against readers; the writer thread alone replaces it
  std::shared_ptr<Graph> graph_;
  mutable std::mutex gate_;
  mutable std::shared_mutex graph_mu_;            // shared: search; exclusive: a write slice
  std::unordered_map<Label, std::size_t> slots_;  // writer thread only
  std::atomic<std::size_t> rebuilds_{0};
};

}  // namespace

Status HnswOptions::Validate() const {
  if (dim < 1 || dim > 4096) return ConfigError(StrCat("dim must be 1 to 4096, not ", dim));
  if (m < 2 || m > 128) return ConfigError(StrCat("index.m must be 2 to 128, not ", m));
  if (ef_construction < m || ef_construction > 4096) {
    return ConfigError(StrCat("index.ef_construction must be m to 4096, not ", ef_construction));
  }
  if (initial_capacity < 64) return ConfigError("index.initial_capacity must be at least 64");
  if (min_live_fraction < 0.1 || min_live_fraction > 0.95) {
    return ConfigError("index.min_live_fraction must be 0.1 to 0.95");
  }
  if (write_slice < 1) return ConfigError("index.write_slice must be at least 1");
  return Status::Ok();
}

Result<std::unique_ptr<Index>> MakeHnswIndex(const HnswOptions& options) {
  FRESHET_TRY(options.Validate());
  try {
    return std::unique_ptr<Index>(std::make_unique<HnswIndex>(options));
  } catch (const std::exception& e) {
    return ResourceExhausted(StrCat("hnswlib: ", e.what()));
  }
}

}  // namespace freshet
