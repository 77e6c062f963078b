#include "index_bench.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>
#include <memory>
#include <thread>
#include <unordered_set>

#include "freshet/core/strings.h"
#include "freshet/indexer/index.h"
#include "freshet_test/vectors.h"
#include "index_parts.h"
#include "peer_hnswlib.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kM = 16;
constexpr std::size_t kEfConstruction = 200;
// By the clock, at the most results there are: of 1,000,000 x 128 and two cores.
constexpr double kGoodRecall = 0.95;
constexpr double kGoalP99Us = 2000;
constexpr double kGoalPerSecond = 5000;

struct Data {
  Metric metric = Metric::kCosine;
  test::VectorSet base;
  test::VectorSet queries;
};

Result<Data> Load(const IndexBenchOptions& options) {
  Data data;
  if (options.data == "synthetic") {
    const std::size_t clusters = std::min(options.clusters, options.vectors / 100 + 1);
    data.base = test::ClusteredVectors(options.seed, 0, options.vectors, options.dim, clusters);
    data.queries = test::ClusteredVectors(options.seed, 1, options.queries, options.dim, clusters);
    return data;
  }
  data.metric = Metric::kL2;
  FRESHET_ASSIGN(data.base, test::ReadU8Bin(options.data + "/base.u8bin", options.vectors));
  FRESHET_ASSIGN(data.queries, test::ReadU8Bin(options.data + "/query.u8bin", options.queries));
  return data;
}

// fbin: what tests/bench/peers reads.
Status Export(const test::VectorSet& set, const std::string& path, Report* report) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const std::uint32_t head[2] = {static_cast<std::uint32_t>(set.size), static_cast<std::uint32_t>(set.dim)};
  file.write(reinterpret_cast<const char*>(head), sizeof(head));
  file.write(reinterpret_cast<const char*>(set.values.data()),
             static_cast<std::streamsize>(set.values.size() * sizeof(float)));
  if (!file.flush()) return IoError(path + ": cannot be written");
  report->rows.push_back({"export", false, {{"file", path}}, {{"vectors", static_cast<double>(set.size)}}});
  return Status::Ok();
}

class Contender {
 public:
  virtual ~Contender() = default;
  virtual Status Add(Label label, const float* vector) = 0;
  virtual Status Settle() = 0;
  virtual void SetEf(std::size_t ef) = 0;
  [[nodiscard]] virtual std::vector<Label> Search(const float* query, std::size_t k) const = 0;

  std::string name;
  bool is_peer = false;
  double build_per_second = 0;
  double build_per_cpu_second = 0;
  double resident_mb = 0;
  double anonymous_mb = 0;
};

class Ours final : public Contender {
 public:
  Ours(std::unique_ptr<Index> index, int dim) : index_(std::move(index)), dim_(static_cast<std::size_t>(dim)) {
    name = "freshet hnsw";
  }
  // The file, opened, takes the place of what was built: its nodes are in graph order.
  Status Reopen(const std::string& path, const HnswOptions& options) {
    {
      FRESHET_ASSIGN(const std::unique_ptr<IndexCut> cut, index_->Cut());
      FRESHET_TRY(cut->Write(path));
    }
    index_ = nullptr;
    GiveBackFreed();
    const double before = ResidentMb("VmRSS");
    const double anonymous_before = ResidentMb("RssAnon");
    FRESHET_ASSIGN(index_, OpenHnswIndex(path, options));
    FRESHET_TRY(index_->Settle());
    GiveBackFreed();
    resident_mb = ResidentMb("VmRSS") - before;
    anonymous_mb = ResidentMb("RssAnon") - anonymous_before;
    return Status::Ok();
  }
  Status Add(Label label, const float* vector) override { return index_->Insert({&label, 1}, {vector, dim_}); }
  Status Settle() override { return index_->Settle(); }
  void SetEf(std::size_t ef) override { ef_ = ef; }
  [[nodiscard]] const Index& index() const { return *index_; }
  [[nodiscard]] std::vector<Label> Search(const float* query, std::size_t k) const override {
    SearchOptions options;
    options.k = k;
    options.ef = ef_;
    std::vector<Label> labels;
    const auto found = index_->Search({query, dim_}, options);
    if (!found.ok()) return labels;
    labels.reserve(found->size());
    for (const Hit& hit : *found) labels.push_back(hit.label);
    return labels;
  }

 private:
  std::unique_ptr<Index> index_;
  std::size_t dim_;
  std::size_t ef_ = 0;
};

class Peer final : public Contender {
 public:
  Peer(bool l2, int dim, std::size_t capacity) : index_(l2, dim, capacity, kM, kEfConstruction) {
    name = "hnswlib 0.8.0 fp32";
    is_peer = true;
  }
  Status Add(Label label, const float* vector) override {
    index_.Add(label, vector);
    return Status::Ok();
  }
  Status Settle() override { return Status::Ok(); }
  void SetEf(std::size_t ef) override { index_.SetEf(ef); }
  [[nodiscard]] std::vector<Label> Search(const float* query, std::size_t k) const override {
    return index_.Search(query, k);
  }

 private:
  PeerHnswlib index_;
};

// Ours has one writer, and threads of its own; into hnswlib any thread may write once it is not empty.
Status Build(const Data& data, std::size_t threads, Contender* contender) {
  GiveBackFreed();
  const double before = ResidentMb("VmRSS");
  const double anonymous_before = ResidentMb("RssAnon");
  const double begin = Seconds();
  const double cpu_begin = ProcessCpuSeconds();
  FRESHET_TRY(contender->Add(0, data.base.Row(0)));
  std::atomic<std::size_t> next{1};
  std::atomic<bool> failed{false};
  const auto add = [&] {
    for (std::size_t i = next++; i < data.base.size && !failed; i = next++) {
      if (!contender->Add(i, data.base.Row(i)).ok()) failed = true;
    }
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads && contender->is_peer; ++i) others.emplace_back(add);
  add();
  for (std::thread& other : others) other.join();
  if (failed) return Internal(contender->name + ": a vector was refused");
  FRESHET_TRY(contender->Settle());
  contender->build_per_second = static_cast<double>(data.base.size) / (Seconds() - begin);
  contender->build_per_cpu_second = static_cast<double>(data.base.size) / (ProcessCpuSeconds() - cpu_begin);
  GiveBackFreed();
  contender->resident_mb = ResidentMb("VmRSS") - before;
  contender->anonymous_mb = ResidentMb("RssAnon") - anonymous_before;
  return Status::Ok();
}

struct Round {
  double seconds = 0;
  double cpu_seconds = 0;  // of all threads
  std::vector<double> each_us;
};

Round Ask(const Data& data, const Contender& contender, std::size_t k, std::size_t threads) {
  std::atomic<std::size_t> next{0};
  Round round;
  round.each_us.resize(data.queries.size);
  std::atomic<double> cpu{0};
  const auto work = [&] {
    const double cpu_begin = CpuSeconds();
    for (std::size_t i = next++; i < data.queries.size; i = next++) {
      const double begin = Seconds();
      (void)contender.Search(data.queries.Row(i), k);
      round.each_us[i] = (Seconds() - begin) * 1e6;
    }
    cpu += CpuSeconds() - cpu_begin;
  };
  const double begin = Seconds();
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  round.seconds = Seconds() - begin;
  round.cpu_seconds = cpu;
  return round;
}

double Recall(const Data& data, const Contender& contender, const std::vector<std::vector<Label>>& truth,
              std::size_t k) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < data.queries.size; ++i) {
    const std::vector<Label> labels = contender.Search(data.queries.Row(i), k);
    const std::unordered_set<Label> answer(labels.begin(), labels.end());
    for (std::size_t j = 0; j < k; ++j) found += answer.contains(truth[i][j]) ? 1 : 0;
  }
  return static_cast<double>(found) / static_cast<double>(data.queries.size * k);
}

// Queries a second at a recall, interpolated between the two measured points around it; 0 where it was not reached.
double AtRecall(const std::vector<std::pair<double, double>>& curve, double recall) {
  double best = 0;
  for (std::size_t i = 0; i < curve.size(); ++i) {
    if (curve[i].first >= recall) best = std::max(best, curve[i].second);
    if (i == 0 || curve[i - 1].first >= recall || curve[i].first < recall) continue;
    const double share = (recall - curve[i - 1].first) / (curve[i].first - curve[i - 1].first);
    best = std::max(best, curve[i - 1].second + share * (curve[i].second - curve[i - 1].second));
  }
  return best;
}

}  // namespace

Result<Report> RunIndexBench(const IndexBenchOptions& given) {
  IndexBenchOptions options = given;
  if (options.quick) {
    options.vectors = 5000;
    options.queries = 50;
    options.ks = {10, 100};
  }
  Report report;
  report.benchmark = "index";
  HnswOptions ours_options;
  ours_options.m = kM;
  ours_options.ef_construction = kEfConstruction;
  ours_options.slack = options.slack;
  ours_options.link_threads = options.build_threads;
  ours_options.rerank_directory = options.rerank_dir;
  if (!options.growth.empty()) {
    const IndexPartOptions part{"synthetic", options.ks, options.rounds, options.seed};
    FRESHET_TRY(MeasureGrowth(options.growth, options.dim, options.queries, ours_options, part, &report));
    return report;
  }
  FRESHET_ASSIGN(const Data data, Load(options));
  if (!options.export_to.empty()) {
    FRESHET_TRY(Export(data.base, options.export_to + "/base.fbin", &report));
    FRESHET_TRY(Export(data.queries, options.export_to + "/query.fbin", &report));
    return report;
  }
  const std::size_t largest_k = *std::max_element(options.ks.begin(), options.ks.end());
  if (data.base.size < largest_k) return InvalidArgument(StrCat("fewer vectors than k = ", largest_k));

  std::vector<std::vector<Label>> truth(data.queries.size);
  {
    const std::unique_ptr<Index> flat = MakeFlatIndex(data.base.dim, data.metric);
    std::vector<Label> labels(data.base.size);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = i;
    FRESHET_TRY(flat->Insert(labels, data.base.values));
    SearchOptions search;
    search.k = largest_k;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      FRESHET_ASSIGN(const std::vector<Hit> hits,
                     flat->Search({data.queries.Row(i), static_cast<std::size_t>(data.base.dim)}, search));
      for (const Hit& hit : hits) truth[i].push_back(hit.label);
    }
  }

  ours_options.dim = data.base.dim;
  ours_options.metric = data.metric;
  FRESHET_ASSIGN(std::unique_ptr<Index> index, MakeHnswIndex(ours_options));
  std::vector<std::unique_ptr<Contender>> contenders;
  auto made = std::make_unique<Ours>(std::move(index), data.base.dim);
  Ours& built = *made;
  contenders.push_back(std::move(made));
  if (options.peer)
    contenders.push_back(std::make_unique<Peer>(data.metric == Metric::kL2, data.base.dim, data.base.size));
  const std::string set =
      options.data == "synthetic" ? StrCat("synthetic-", data.base.size) : StrCat("sift-", data.base.size);
  for (const auto& contender : contenders) {
    FRESHET_TRY(Build(data, options.build_threads, contender.get()));
    report.rows.push_back(
        {contender->name,
         contender->is_peer,
         {{"data", set}, {"part", "build"}, {"m", StrCat(kM)}, {"threads", StrCat(options.build_threads)}},
         {{"build_per_second", contender->build_per_second},
          {"build_per_cpu_second", contender->build_per_cpu_second},
          {"resident_mb", contender->resident_mb},
          {"resident_anonymous_mb", contender->anonymous_mb}}});
  }
  if (options.peer) {
    report.goals.push_back({"build, ratio to hnswlib by processor time", 2.5,
                            contenders[0]->build_per_cpu_second / contenders[1]->build_per_cpu_second});
  }

  const IndexPartOptions part{set, options.ks, options.rounds, options.seed};
  const Directory directory(options.directory);
  const std::string file = directory.path + "/index";
  FRESHET_TRY(built.Reopen(file, ours_options));
  const Index& our_index = built.index();
  report.rows.push_back({built.name,
                         false,
                         {{"data", set}, {"part", "opened"}},
                         {{"resident_mb", built.resident_mb}, {"resident_anonymous_mb", built.anonymous_mb}}});
  if (options.kinds) {
    FRESHET_TRY(MeasureBatches(our_index, built.name, data.queries, part, &report));
    FRESHET_TRY(MeasureMapped(file, data.queries, part, &report));
    FRESHET_TRY(MeasureFlat(data.base, data.metric, data.queries, part, &report));
  }
  if (options.exclusions) FRESHET_TRY(MeasureExclusions(our_index, data.queries, part, &report));
  if (options.resident) {
    FRESHET_TRY(MeasureResident(file, directory.path, ours_options, data.queries, truth, part, &report));
  }
  if (options.live) {
    FRESHET_TRY(MeasureLiveAdds(data.base, data.queries, ours_options, options.peer, part, &report));
  }
  if (!options.rerank_dir.empty())
    FRESHET_TRY(MeasurePaging(our_index, data.queries, options.rerank_dir, part, &report));
  std::array<bool, 2> told_clock{};  // by threads
  for (const std::size_t k : options.curves ? options.ks : std::vector<std::size_t>{}) {
    for (const std::size_t threads : {1U, 2U}) {
      std::vector<std::vector<std::pair<double, double>>> curves(contenders.size());
      std::vector<std::size_t> efs;
      for (const double factor :
           k < 50 ? std::vector{1.6, 2.4, 4.0, 7.0, 12.0, 20.0} : std::vector{.2, .3, .5, 1.0, 1.5, 2.0, 3.0}) {
        efs.push_back(static_cast<std::size_t>(static_cast<double>(k) * factor));
      }
      for (const std::size_t ef : efs) {
        std::vector<std::vector<double>> rates(contenders.size());
        std::vector<std::vector<double>> cpu_rates(contenders.size());
        std::vector<std::vector<double>> p99s(contenders.size());
        for (const auto& contender : contenders) contender->SetEf(ef);
        // hnswlib widens an ef below k to k: asking again would measure the same once more.
        const std::size_t asked_of = ef < k ? 1 : contenders.size();
        for (std::size_t round = 0; round < options.rounds; ++round) {
          for (std::size_t c = 0; c < asked_of; ++c) {
            Round asked = Ask(data, *contenders[c], k, threads);
            rates[c].push_back(static_cast<double>(data.queries.size) / asked.seconds);
            cpu_rates[c].push_back(static_cast<double>(data.queries.size) / asked.cpu_seconds);
            std::sort(asked.each_us.begin(), asked.each_us.end());
            p99s[c].push_back(asked.each_us[asked.each_us.size() * 99 / 100]);
          }
        }
        for (std::size_t c = 0; c < asked_of; ++c) {
          const double recall = Recall(data, *contenders[c], truth, k);
          // The least effort that is good enough.
          if (c == 0 && k == largest_k && recall >= kGoodRecall && !told_clock[threads - 1]) {
            told_clock[threads - 1] = true;
            const std::string what = StrCat("top-", k, ", recall ", recall, ", ", threads, " thread(s)");
            report.goals.push_back({what + ": p99 of one query, us", kGoalP99Us, Median(p99s[c]), true});
            if (threads == 2) report.goals.push_back({what + ": queries a second", kGoalPerSecond, Median(rates[c])});
          }
          curves[c].emplace_back(recall, Median(cpu_rates[c]));
          const auto [least, most] = std::minmax_element(cpu_rates[c].begin(), cpu_rates[c].end());
          report.rows.push_back({contenders[c]->name,
                                 contenders[c]->is_peer,
                                 {{"data", set}, {"k", StrCat(k)}, {"ef", StrCat(ef)}, {"threads", StrCat(threads)}},
                                 {{StrCat("recall_at_", k), recall},
                                  {"queries_per_second", Median(rates[c])},
                                  {"queries_per_cpu_second", Median(cpu_rates[c])},
                                  {"queries_per_cpu_second_least", *least},
                                  {"queries_per_cpu_second_most", *most},
                                  {"p99_us", Median(p99s[c])}}});
        }
      }
      // By processor time, which other work on the machine disturbs the least.
      for (const double recall : {0.95, 0.98}) {
        if (!options.peer) break;
        const double peer = AtRecall(curves[1], recall);
        const double ours = AtRecall(curves[0], recall);
        if (peer == 0 || ours == 0) continue;
        report.goals.push_back({StrCat("top-", k, " at recall ", recall == 0.95 ? ".95" : ".98", ", ", threads,
                                       threads == 1 ? " thread" : " threads", ", ratio to hnswlib by processor time"),
                                k >= 500 ? 3.0 : 2.0, ours / peer});
      }
    }
  }
  return report;
}

}  // namespace freshet::bench
