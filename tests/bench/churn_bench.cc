#include "churn_bench.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <unordered_set>

#include "churn_contenders.h"
#include "churn_plan.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index.h"
#include "svg_chart.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kBatch = 100;  // of inserts and deletes, as a stream has them
constexpr std::size_t kLongPlan = 20;
constexpr std::size_t kClusters = 200;
constexpr std::size_t kKs[] = {10, 100};

struct Data {
  test::VectorSet base;
  test::VectorSet queries;
  std::vector<std::uint32_t> photo;    // by row
  std::vector<std::uint32_t> cluster;  // by row
};

float SquaredL2(const float* a, const float* b, int dim) {
  float sum = 0;
  for (int i = 0; i < dim; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// The nearest of some rows, by row.
std::vector<std::uint32_t> Clusters(const test::VectorSet& base, std::size_t count) {
  const std::unique_ptr<Index> centres = MakeFlatIndex(base.dim, Metric::kL2);
  const auto width = static_cast<std::size_t>(base.dim);
  for (std::size_t i = 0; i < count; ++i) {
    const Label label = i;
    (void)centres->Insert({&label, 1}, {base.Row(i * base.size / count), width});
  }
  SearchOptions nearest;
  nearest.k = 1;
  std::vector<std::uint32_t> cluster(base.size);
  for (std::size_t row = 0; row < base.size; ++row) {
    const auto hits = centres->Search({base.Row(row), width}, nearest);
    if (hits.ok() && !hits->empty()) cluster[row] = static_cast<std::uint32_t>(hits->front().label);
  }
  return cluster;
}

Result<Data> Load(const ChurnBenchOptions& options) {
  Data data;
  const std::size_t clusters = std::min(kClusters, options.rows / 50 + 2);
  if (options.data == "synthetic") {
    data.base = test::ClusteredVectors(options.seed, 0, options.rows, 64, clusters);
    data.queries = test::ClusteredVectors(options.seed, 1, options.queries, 64, clusters);
    data.cluster = Clusters(data.base, clusters);
    // A "photo" is a stretch of similar rows, as in the real set.
    std::vector<std::uint32_t> order(data.base.size);
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return data.cluster[a] / 2 < data.cluster[b] / 2; });
    Data sorted = data;
    const auto width = static_cast<std::size_t>(data.base.dim);
    for (std::size_t i = 0; i < order.size(); ++i) {
      std::copy_n(data.base.Row(order[i]), width, sorted.base.values.data() + i * width);
      sorted.cluster[i] = data.cluster[order[i]];
      sorted.photo.push_back(sorted.cluster[i] / 2);
    }
    return sorted;
  }
  FRESHET_ASSIGN(data.base, test::ReadU8Bin(options.data + "/base.u8bin", options.rows));
  FRESHET_ASSIGN(data.queries, test::ReadU8Bin(options.data + "/query.u8bin", options.queries));
  FRESHET_ASSIGN(const std::string photos, ReadFile(options.data + "/photo_id.u16"));
  if (photos.size() / 2 < data.base.size) return Corruption(options.data + "/photo_id.u16: too short");
  for (std::size_t row = 0; row < data.base.size; ++row) {
    std::uint16_t photo = 0;
    std::memcpy(&photo, photos.data() + 2 * row, sizeof(photo));
    data.photo.push_back(photo);
  }
  data.cluster = Clusters(data.base, clusters);
  return data;
}

// The plan, and at each of its searches how far the k-th nearest live row of each query is.
struct Scene {
  const Data* data = nullptr;
  ChurnPlan plan;
  std::vector<std::vector<float>> bound[2];  // by k, search, query
  [[nodiscard]] const float* Vector(Label label) const { return data->base.Row(plan.row_of[label]); }
};

std::vector<float> VectorsOf(const Scene& scene, const std::vector<Label>& labels) {
  const auto width = static_cast<std::size_t>(scene.data->base.dim);
  std::vector<float> vectors(labels.size() * width);
  for (std::size_t i = 0; i < labels.size(); ++i) std::copy_n(scene.Vector(labels[i]), width, &vectors[i * width]);
  return vectors;
}

// Does the plan, in batches; `search` is told the number of each search.
Status Play(const Scene& scene, ChurnContender* contender,
            const std::function<Status(std::size_t, std::size_t)>& search) {
  std::size_t searches = 0;
  std::size_t live = 0;
  for (const ChurnStep& step : scene.plan.steps) {
    if (step.kind == ChurnStep::Kind::kSearch) {
      FRESHET_TRY(contender->Settle());
      FRESHET_TRY(search(searches++, live));
      continue;
    }
    for (std::size_t begin = 0; begin < step.labels.size(); begin += kBatch) {
      const std::size_t end = std::min(step.labels.size(), begin + kBatch);
      const std::vector<Label> labels(step.labels.begin() + static_cast<std::ptrdiff_t>(begin),
                                      step.labels.begin() + static_cast<std::ptrdiff_t>(end));
      if (step.kind == ChurnStep::Kind::kInsert) {
        FRESHET_TRY(contender->Insert(labels, VectorsOf(scene, labels)));
        live += labels.size();
      } else {
        FRESHET_TRY(contender->Delete(labels));
        live -= labels.size();
      }
    }
  }
  return Status::Ok();
}

struct Measured {
  std::vector<std::pair<double, double>> recall[2];  // search number, recall; by k
  std::size_t wrong = 0;                             // dead ones returned, or fewer than min(k, live)
  std::size_t unreachable = 0;                       // live ones that audits found, each after a search
  std::size_t unreachable_after = 0;                 // and that were still there when those were repaired
  double resident_mb = 0;
  double cpu_seconds = 0;  // of inserts and deletes
};

// A hit is whatever is as near as the k-th.
void Ask(const Scene& scene, std::size_t search, const std::unordered_set<Label>& live,
         const ChurnBenchOptions& options, ChurnContender* contender, Measured* measured) {
  const test::VectorSet& queries = scene.data->queries;
  for (const std::size_t which : {0U, 1U}) {
    std::size_t hits = 0;
    const std::size_t k = std::min(kKs[which], live.size());
    for (std::size_t i = 0; i < queries.size; ++i) {
      const std::vector<Label> found =
          contender->Search(queries.Row(i), kKs[which], which == 0 ? options.ef_at_10 : options.ef_at_100);
      const std::unordered_set<Label> once(found.begin(), found.end());
      if (once.size() != k) ++measured->wrong;
      for (const Label label : once) {
        if (!live.contains(label)) {
          ++measured->wrong;
        } else if (SquaredL2(queries.Row(i), scene.Vector(label), queries.dim) <= scene.bound[which][search][i]) {
          ++hits;
        }
      }
    }
    const double wanted = static_cast<double>(queries.size * std::max<std::size_t>(k, 1));
    measured->recall[which].emplace_back(static_cast<double>(search), static_cast<double>(hits) / wanted);
  }
}

// Ours and the peers, one after the other, so that resident memory is each one's own.
Result<Measured> Measure(const Scene& scene, const std::vector<std::unordered_set<Label>>& live,
                         const ChurnBenchOptions& options,
                         const std::function<Result<std::unique_ptr<ChurnContender>>()>& make) {
  Measured measured;
  GiveBackFreed();
  const double before = ResidentMb("VmRSS");
  double begin = ProcessCpuSeconds();
  FRESHET_ASSIGN(const std::unique_ptr<ChurnContender> contender, make());
  FRESHET_TRY(Play(scene, contender.get(), [&](std::size_t search, std::size_t) {
    measured.cpu_seconds += ProcessCpuSeconds() - begin;
    Ask(scene, search, live[search], options, contender.get(), &measured);
    FRESHET_ASSIGN(const std::size_t found, contender->Audit());
    FRESHET_ASSIGN(const std::size_t left, contender->Audit());
    measured.unreachable += found;
    measured.unreachable_after += left;
    begin = ProcessCpuSeconds();
    return Status::Ok();
  }));
  GiveBackFreed();
  measured.resident_mb = ResidentMb("VmRSS") - before;
  return measured;
}

// Of the same live rows, at every so-many-th search and the last.
Result<Measured> MeasureFresh(const Scene& scene, const std::vector<std::unordered_set<Label>>& live,
                              const ChurnBenchOptions& options) {
  Measured measured;
  const std::size_t every = live.size() > kLongPlan ? options.fresh_every : 1;
  for (std::size_t search = 0; search < live.size(); ++search) {
    if ((search + 1) % every != 0 && search + 1 != live.size()) continue;
    std::vector<Label> labels(live[search].begin(), live[search].end());
    std::sort(labels.begin(), labels.end());
    GiveBackFreed();
    const double before = ResidentMb("VmRSS");
    const double begin = ProcessCpuSeconds();
    FRESHET_ASSIGN(const std::unique_ptr<ChurnContender> contender, ChurnOurs::Make(scene.data->base.dim));
    for (std::size_t at = 0; at < labels.size(); at += kBatch) {
      const std::vector<Label> batch(
          labels.begin() + static_cast<std::ptrdiff_t>(at),
          labels.begin() + static_cast<std::ptrdiff_t>(std::min(labels.size(), at + kBatch)));
      FRESHET_TRY(contender->Insert(batch, VectorsOf(scene, batch)));
    }
    FRESHET_TRY(contender->Settle());
    measured.cpu_seconds = ProcessCpuSeconds() - begin;
    Ask(scene, search, live[search], options, contender.get(), &measured);
    GiveBackFreed();
    measured.resident_mb = ResidentMb("VmRSS") - before;
  }
  return measured;
}

double Mean(const std::vector<std::pair<double, double>>& curve) {
  double sum = 0;
  for (const auto& point : curve) sum += point.second;
  return curve.empty() ? 0 : sum / static_cast<double>(curve.size());
}

void AddRow(const Scene& scene, const std::string& name, bool is_peer, const Measured& measured, Report* report) {
  Row row{name, is_peer, {{"plan", scene.plan.name}, {"live", StrCat(scene.plan.live)}}, {}};
  row.params.emplace_back("inserts", StrCat(scene.plan.row_of.size()));
  for (const std::size_t which : {0U, 1U}) {
    const auto& curve = measured.recall[which];
    const auto least =
        std::min_element(curve.begin(), curve.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    row.metrics.emplace_back(StrCat("mean_recall_at_", kKs[which]), Mean(curve));
    row.metrics.emplace_back(StrCat("least_recall_at_", kKs[which]), least->second);
    row.metrics.emplace_back(StrCat("last_recall_at_", kKs[which]), curve.back().second);
  }
  row.metrics.emplace_back("wrong_answers", static_cast<double>(measured.wrong));
  if (!is_peer) {
    row.metrics.emplace_back("unreachable", static_cast<double>(measured.unreachable));
    row.metrics.emplace_back("unreachable_after_audit", static_cast<double>(measured.unreachable_after));
  }
  row.metrics.emplace_back("resident_mb", measured.resident_mb);
  row.metrics.emplace_back("cpu_seconds", measured.cpu_seconds);
  report->rows.push_back(std::move(row));
}

Status RunPlan(const Data& data, ChurnPlan plan, const ChurnBenchOptions& options, Report* report,
               std::vector<SvgPanel>* panels) {
  Scene scene;
  scene.data = &data;
  scene.plan = std::move(plan);
  std::vector<std::unordered_set<Label>> live;
  {
    ChurnOracle oracle(data.base.dim);
    FRESHET_TRY(Play(scene, &oracle, [&](std::size_t, std::size_t) {
      const std::vector<Label> labels = oracle.Live();
      live.emplace_back(labels.begin(), labels.end());
      std::vector<float> bounds[2];
      for (std::size_t i = 0; i < data.queries.size; ++i) {
        const std::vector<Label> nearest = oracle.Search(data.queries.Row(i), kKs[1], 0);
        for (const std::size_t which : {0U, 1U}) {
          const std::size_t k = std::min(kKs[which], nearest.size());
          bounds[which].push_back(
              k == 0 ? -1 : SquaredL2(data.queries.Row(i), scene.Vector(nearest[k - 1]), data.queries.dim));
        }
      }
      for (const std::size_t which : {0U, 1U}) scene.bound[which].push_back(std::move(bounds[which]));
      return Status::Ok();
    }));
  }

  const std::string& name = scene.plan.name;
  const int dim = data.base.dim;
  FRESHET_ASSIGN(const Measured fresh, MeasureFresh(scene, live, options));
  FRESHET_ASSIGN(const Measured ours, Measure(scene, live, options, [&] { return ChurnOurs::Make(dim); }));
  AddRow(scene, "freshet hnsw", false, ours, report);
  AddRow(scene, "freshet hnsw, built afresh", false, fresh, report);
  std::vector<SvgPanel> pair;
  for (const std::size_t which : {0U, 1U}) {
    pair.push_back({StrCat(name, ", recall@", kKs[which]),
                    name.find("turnover") == std::string::npos && name != "drift" ? "search" : "times turned over",
                    {{"freshet", ours.recall[which]}, {"freshet, built afresh", fresh.recall[which]}}});
    double most = 0;
    for (const auto& [search, recall] : fresh.recall[which]) {
      most = std::max(most, recall - ours.recall[which][static_cast<std::size_t>(search)].second);
    }
    report->goals.push_back(
        {StrCat(name, ": recall@", kKs[which], " below a fresh build's, at the worst search"), .005, most, true});
  }
  report->goals.push_back(
      {name + ": unreachable after the audits", 0, static_cast<double>(ours.unreachable_after), true});
  report->goals.push_back({name + ": wrong answers", 0, static_cast<double>(ours.wrong), true});
  report->goals.push_back(
      {name + ": resident memory, ratio to a fresh build", 1.2, ours.resident_mb / fresh.resident_mb, true});
  if (options.peer) {
    for (const bool replace : {false, true}) {
      const std::string peer_name = replace ? "hnswlib 0.8.0, replace_deleted" : "hnswlib 0.8.0, mark-delete";
      const std::size_t capacity = replace ? scene.plan.max_slots : scene.plan.row_of.size();
      const Result<Measured> peer = Measure(scene, live, options, [&]() -> Result<std::unique_ptr<ChurnContender>> {
        return std::unique_ptr<ChurnContender>(std::make_unique<ChurnPeer>(dim, capacity, replace));
      });
      if (!peer.ok()) return peer.status();
      AddRow(scene, peer_name, true, *peer, report);
      for (const std::size_t which : {0U, 1U}) pair[which].curves.push_back({peer_name, peer->recall[which]});
    }
  }
  panels->insert(panels->end(), pair.begin(), pair.end());
  return Status::Ok();
}

}  // namespace

Result<Report> RunChurnBench(const ChurnBenchOptions& given) {
  ChurnBenchOptions options = given;
  if (options.quick) {
    options.rows = 4000;
    options.queries = 50;
    options.live = 1000;
    options.turnovers = 2;
  }
  FRESHET_ASSIGN(const Data data, Load(options));
  std::vector<ChurnPlan> plans;
  if (!options.runbooks.empty()) {
    for (const auto& [name, file] :
         {std::pair{"simple", "simple_runbook.yaml"}, std::pair{"replace", "simple_replace_runbook.yaml"},
          std::pair{"expiration-time", "wikipedia-1M_expiration_time_runbook.yaml"}}) {
      FRESHET_ASSIGN(ChurnPlan plan, ReadRunbook(options.runbooks + "/" + file, name, data.base.size));
      plans.push_back(std::move(plan));
    }
  }
  plans.push_back(Turnover("photo turnover", data.photo, options.live, options.turnovers, options.seed));
  plans.push_back(Turnover("cluster turnover", data.cluster, options.live, options.turnovers, options.seed));
  plans.push_back(Drift("drift", data.base.size, options.live, options.turnovers));

  Report report;
  report.benchmark = "churn";
  std::vector<SvgPanel> panels;
  for (ChurnPlan& plan : plans) {
    if (plan.name.find(options.only) == std::string::npos) continue;
    FRESHET_TRY(RunPlan(data, std::move(plan), options, &report, &panels));
  }
  if (options.latency) FRESHET_TRY(MeasureLatency(data.base, data.queries, options.quick, &report));
  if (!options.svg.empty()) {
    FRESHET_TRY(WriteFileAtomically(
        options.svg, SvgCharts(StrCat("Recall under churn: ", options.data == "synthetic" ? "synthetic" : "SIFT", ", ",
                                      data.base.size, " rows"),
                               panels, 2)));
  }
  return report;
}

}  // namespace freshet::bench
