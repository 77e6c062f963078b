// freshet_bench filters: recall and time by selectivity, and by how the filter goes with the query.
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "freshet/core/strings.h"
#include "sidecar_bench.h"
#include "sidecar_world.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kK = 100;
constexpr double kShares[] = {1, 0.5, 0.3, 0.1, 0.01, 0.001, 0.0001};

// What a filter has to do with the queries that are asked with it.
struct Relation {
  const char* name;
  const char* attribute;
  bool far;  // the queries furthest from the pivot, else (with nearness) those next to it
};
constexpr Relation kRelations[] = {{"none", kByChance, false},
                                   {"matches are near the query", kByNearness, false},
                                   {"matches are far from the query", kByNearness, true}};

struct Cell {
  std::vector<double> wall_us;
  std::vector<double> cpu_us;
  double found = 0;
  double wanted = 0;
  std::map<std::string, std::size_t> paths;

  [[nodiscard]] static double At(std::vector<double> values, double quantile) {
    std::sort(values.begin(), values.end());
    return values[std::min(values.size() - 1, static_cast<std::size_t>(quantile * static_cast<double>(values.size())))];
  }
  [[nodiscard]] std::string Path() const {
    std::string all;
    for (const auto& [path, count] : paths) all += StrCat(all.empty() ? "" : "+", path);
    return all;
  }
};

RecallRequest Request(const float* query, int dim, const char* attribute, double share) {
  RecallRequest request;
  request.vector.emplace(query, query + dim);
  request.k = kK;
  request.explain = true;
  if (attribute != nullptr) {
    RangeBounds<FilterNumber> bounds;
    bounds.lt = static_cast<std::int64_t>(share * static_cast<double>(kScale));
    request.filter.emplace().condition = NumberCondition(attribute, bounds);
  }
  return request;
}

Status Measure(const RecallService& service, const RecallRequest& request, bool judge, Cell* cell) {
  const double begin = Seconds();
  const double cpu_begin = CpuSeconds();
  FRESHET_ASSIGN(const RecallResponse answer, service.Recall(request));
  cell->cpu_us.push_back((CpuSeconds() - cpu_begin) * 1e6);
  cell->wall_us.push_back((Seconds() - begin) * 1e6);
  ++cell->paths[answer.explanation->path];
  if (!judge) return Status::Ok();
  RecallRequest exact = request;
  exact.exact = true;
  FRESHET_ASSIGN(const RecallResponse truth, service.Recall(exact));
  if (answer.results.size() != truth.results.size()) return Internal("a filtered answer is short");
  std::set<std::string> ids;
  for (const RecallHit& hit : answer.results) ids.insert(hit.id);
  for (const RecallHit& hit : truth.results) cell->found += ids.contains(hit.id) ? 1 : 0;
  cell->wanted += static_cast<double>(truth.results.size());
  return Status::Ok();
}

// Queries by nearness to the pivot: the first are next to it.
std::vector<std::size_t> ByNearness(const SidecarWorld& world) {
  const test::VectorSet& queries = world.queries();
  std::vector<std::pair<float, std::size_t>> order;
  for (std::size_t i = 0; i < queries.size; ++i) {
    float dot = 0;
    for (int d = 0; d < queries.dim; ++d) dot += queries.Row(i)[d] * world.pivot()[static_cast<std::size_t>(d)];
    order.emplace_back(-dot, i);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::size_t> indices;
  for (const auto& [dot, i] : order) indices.push_back(i);
  return indices;
}

}  // namespace

Result<Report> RunFiltersBench(const SidecarBenchOptions& asked) {
  SidecarBenchOptions options = asked;
  if (options.quick) {
    options.vectors = 3'000;
    options.dim = 32;
    options.queries = 40;
    options.rounds = 1;
  }
  FRESHET_ASSIGN(const std::unique_ptr<SidecarWorld> world, SidecarWorld::Make(options));
  const std::vector<std::size_t> near = ByNearness(*world);
  // A tenth of the queries at each end, at least 10.
  const std::size_t some = std::min(near.size(), std::max<std::size_t>(near.size() / 10, 10));
  std::map<std::pair<const char*, double>, Cell> cells;
  Cell unfiltered;
  for (std::size_t round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < some; ++i) {
      for (const Relation& relation : kRelations) {
        const std::size_t query = relation.far                      ? near[near.size() - 1 - i]
                                  : relation.attribute == kByChance ? near[i * near.size() / some]
                                                                    : near[i];
        const float* row = world->queries().Row(query);
        FRESHET_TRY(Measure(world->service(), Request(row, options.dim, nullptr, 1), round == 0, &unfiltered));
        for (const double share : kShares) {
          FRESHET_TRY(Measure(world->service(), Request(row, options.dim, relation.attribute, share), round == 0,
                              &cells[{relation.name, share}]));
        }
      }
    }
  }
  Report report;
  report.benchmark = "filters";
  const std::vector<std::pair<std::string, std::string>> size = {{"vectors", StrCat(options.vectors)},
                                                                 {"dim", StrCat(options.dim)}};
  const auto add = [&](const Cell& cell, std::vector<std::pair<std::string, std::string>> params) {
    params.insert(params.end(), size.begin(), size.end());
    params.emplace_back("path", cell.Path());
    const double p50 = Cell::At(cell.cpu_us, 0.5);
    report.rows.push_back({"freshet",
                           false,
                           params,
                           {{"recall_at_100", cell.found / std::max(cell.wanted, 1.0)},
                            {"p50_us", Cell::At(cell.wall_us, 0.5)},
                            {"p99_us", Cell::At(cell.wall_us, 0.99)},
                            {"cpu_p50_us", p50},
                            {"cpu_p50_ratio_to_unfiltered", p50 / Cell::At(unfiltered.cpu_us, 0.5)}}});
  };
  add(unfiltered, {{"selectivity", "no filter"}});
  double worst_recall = 1;
  double worst_ratio = 0;
  for (const Relation& relation : kRelations) {
    for (const double share : kShares) {
      const Cell& cell = cells.at({relation.name, share});
      add(cell, {{"selectivity", StrCat(share)}, {"correlation", relation.name}});
      if (cell.wanted > 0) worst_recall = std::min(worst_recall, cell.found / cell.wanted);
      worst_ratio = std::max(worst_ratio, Cell::At(cell.cpu_us, 0.5) / Cell::At(unfiltered.cpu_us, 0.5));
    }
  }
  report.goals.push_back({"worst recall of exact, over all", 0.95, worst_recall, false});
  report.goals.push_back({"slowest to unfiltered, p50 of processor time, ratio", 3, worst_ratio, true});
  return report;
}

}  // namespace freshet::bench
