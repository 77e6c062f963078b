#include "sidecar_bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <map>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_binary.h"
#include "grpc_load.h"
#include "sidecar_load.h"
#include "sidecar_world.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kOpenWorkers = 8;  // enough that a call seldom waits for one
constexpr std::size_t kCompared = 20;

// Of the server; gRPC's is empty in a build without.
struct Doors {
  std::string http;
  std::string grpc;
};

std::vector<std::string> ContendersAt(const Doors& doors) {
  std::vector<std::string> names = {"index, direct", "RecallService, direct", "HTTP, JSON", "HTTP, binary"};
  if (!doors.grpc.empty()) names.emplace_back("gRPC");
  return names;
}

// The contenders, for one k. Requests are made beforehand: a recommender's own time is not ours.
class Contenders {
 public:
  static Result<std::unique_ptr<Contenders>> Make(SidecarWorld* world, const Doors& doors, std::size_t k,
                                                  std::size_t workers) {
    auto contenders = std::make_unique<Contenders>();
    contenders->world_ = world;
    contenders->k_ = k;
    const test::VectorSet& queries = world->queries();
    for (std::size_t i = 0; i < queries.size; ++i) {
      const std::span<const float> query(queries.Row(i), static_cast<std::size_t>(queries.dim));
      contenders->json_.push_back(JsonRequest(query, k));
      contenders->binary_.push_back(BinaryRequest(query, k));
      if (!doors.grpc.empty()) contenders->grpc_.push_back(GrpcLoad::Request(query, k));
    }
    for (std::size_t w = 0; w < workers; ++w) {
      FRESHET_ASSIGN(std::unique_ptr<LoadConnection> connection, LoadConnection::Open(doors.http));
      contenders->connections_.push_back(std::move(connection));
      if (!doors.grpc.empty()) contenders->grpc_connections_.push_back(GrpcLoad::Open(doors.grpc));
    }
    return contenders;
  }

  [[nodiscard]] LoadCall Call(const std::string& name) {
    if (name == "index, direct") return [this](std::size_t, std::size_t i) { return Search(i); };
    if (name == "RecallService, direct") {
      return [this](std::size_t, std::size_t i) { return world_->service().Recall(Request(i)).status(); };
    }
    if (name == "gRPC") {
      return [this](std::size_t worker, std::size_t i) {
        return grpc_connections_[worker]->Call(grpc_[i % grpc_.size()]);
      };
    }
    const std::vector<std::string>& requests = name == "HTTP, JSON" ? json_ : binary_;
    return [this, &requests](std::size_t worker, std::size_t i) {
      return connections_[worker]->Call(requests[i % requests.size()]).status();
    };
  }

  // Whether all say the same.
  Status Compare() {
    for (std::size_t i = 0; i < std::min(kCompared, json_.size()); ++i) {
      FRESHET_ASSIGN(const RecallResponse direct, world_->service().Recall(Request(i)));
      FRESHET_ASSIGN(const std::string_view bytes, connections_[0]->Call(binary_[i]));
      FRESHET_ASSIGN(const RecallResponse binary, DecodeBinaryAnswer(bytes));
      FRESHET_ASSIGN(const std::string_view text, connections_[0]->Call(json_[i]));
      FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> json, ParseJson(std::string(text)));
      const auto& results = JsonFind(*json, "results")->GetArray();
      if (direct.results.size() != std::min(k_, world_->applier()->catalog().live()) ||
          binary.results.size() != direct.results.size() || results.Size() != direct.results.size()) {
        return Internal("an answer is short");
      }
      for (std::size_t r = 0; r < direct.results.size(); ++r) {
        const std::string& id = direct.results[r].id;
        if (binary.results[r].id == id && JsonText(*JsonFind(results[static_cast<unsigned>(r)], "id")) == id) continue;
        return Internal("the ways to ask differ");
      }
      if (grpc_.empty()) continue;
      FRESHET_ASSIGN(const std::vector<std::string> ids, grpc_connections_[0]->Ids(grpc_[i]));
      if (!std::equal(ids.begin(), ids.end(), direct.results.begin(), direct.results.end(),
                      [](const std::string& id, const RecallHit& hit) { return id == hit.id; })) {
        return Internal("gRPC answers something else");
      }
    }
    return Status::Ok();
  }

 private:
  Status Search(std::size_t i) const {
    const test::VectorSet& queries = world_->queries();
    SearchOptions options;
    options.k = k_;
    return world_->index()
        .Search({queries.Row(i % queries.size), static_cast<std::size_t>(queries.dim)}, options)
        .status();
  }
  [[nodiscard]] RecallRequest Request(std::size_t i) const {
    const test::VectorSet& queries = world_->queries();
    const float* row = queries.Row(i % queries.size);
    RecallRequest request;
    request.vector.emplace(row, row + queries.dim);
    request.k = k_;
    return request;
  }

  SidecarWorld* world_ = nullptr;
  std::size_t k_ = 0;
  std::vector<std::string> json_;
  std::vector<std::string> binary_;
  std::vector<std::string> grpc_;  // empty: there is no such door
  std::vector<std::unique_ptr<LoadConnection>> connections_;
  std::vector<std::unique_ptr<GrpcLoad>> grpc_connections_;
};

// Medians over the rounds.
class Rounds {
 public:
  void Add(const std::string& name, const LoadResult& result) {
    results_[name].push_back({result.per_second, result.p50_us, result.p99_us, result.p999_us});
  }
  [[nodiscard]] LoadResult Of(const std::string& name) const {
    const auto median = [&](std::size_t i) {
      std::vector<double> values;
      for (const auto& one : results_.at(name)) values.push_back(one[i]);
      return Median(values);
    };
    return {median(0), median(1), median(2), median(3)};
  }
  void AddRows(const std::vector<std::string>& names, std::size_t k, const std::string& loop, Report* report) const {
    for (const std::string& name : names) {
      const LoadResult result = Of(name);
      report->rows.push_back({name,
                              false,
                              {{"k", StrCat(k)}, {"loop", loop}},
                              {{"per_second", result.per_second},
                               {"p50_us", result.p50_us},
                               {"p99_us", result.p99_us},
                               {"p999_us", result.p999_us}}});
    }
  }

 private:
  std::map<std::string, std::vector<std::vector<double>>> results_;
};

Status RunK(SidecarWorld* world, const Doors& doors, std::size_t k, const SidecarBenchOptions& options,
            Report* report) {
  FRESHET_ASSIGN(const std::unique_ptr<Contenders> contenders,
                 Contenders::Make(world, doors, k, std::max(kOpenWorkers, options.connections)));
  FRESHET_TRY(contenders->Compare());
  const std::vector<std::string> names = ContendersAt(doors);
  Rounds one;
  Rounds several;
  Rounds open;
  for (std::size_t round = 0; round < options.rounds; ++round) {
    for (const std::string& name : names) {
      FRESHET_ASSIGN(const LoadResult alone, ClosedLoop(contenders->Call(name), 1, options.calls));
      one.Add(name, alone);
      FRESHET_ASSIGN(const LoadResult together, ClosedLoop(contenders->Call(name), options.connections, options.calls));
      several.Add(name, together);
    }
  }
  for (std::size_t round = 0; round < options.rounds; ++round) {
    for (const std::string& name : names) {
      FRESHET_ASSIGN(const LoadResult half, OpenLoop(contenders->Call(name), kOpenWorkers, options.calls,
                                                     several.Of(name).per_second / 2, options.seed + round));
      open.Add(name, half);
    }
  }
  one.AddRows(names, k, "closed, 1 asks", report);
  several.AddRows(names, k, StrCat("closed, ", options.connections, " ask"), report);
  open.AddRows(names, k, "open, half of that rate", report);
  const double direct_us = one.Of("index, direct").p50_us;
  const std::string top = StrCat("top-", k, ": ");
  const double most_us = k <= 100 ? 60 : 150;
  report->goals.push_back(
      {top + "HTTP JSON over the direct call, p50, us", most_us, one.Of("HTTP, JSON").p50_us - direct_us, true});
  report->goals.push_back({top + "HTTP binary to the direct call, calls a second, ratio", 0.9,
                           several.Of("HTTP, binary").per_second / several.Of("index, direct").per_second, false});
  for (const char* name : {"HTTP, JSON", "HTTP, binary"}) {
    const LoadResult half = open.Of(name);
    report->goals.push_back(
        {StrCat(top, name, ", p99 at half load to its p50, ratio"), 2, half.p99_us / half.p50_us, true});
  }
  return Status::Ok();
}

Status RunIdle(const std::string& address, std::size_t count, Report* report) {
  const double before_mb = ResidentMb("RssAnon");
  std::vector<std::unique_ptr<LoadConnection>> idle;
  // Asked once each, so that each has what a connection has; then they are idle.
  const std::string request = "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
  for (std::size_t i = 0; i < count; ++i) {
    FRESHET_ASSIGN(std::unique_ptr<LoadConnection> connection, LoadConnection::Open(address));
    FRESHET_TRY(connection->Call(request).status());
    connection->Forget();
    idle.push_back(std::move(connection));
  }
  const double mb = ResidentMb("RssAnon") - before_mb;
  report->rows.push_back({"idle connections", false, {{"connections", StrCat(count)}}, {{"resident_mb", mb}}});
  report->goals.push_back({StrCat(count, " idle connections, MB"), 10, mb, true});
  return Status::Ok();
}

}  // namespace

Result<Report> RunSidecarBench(const SidecarBenchOptions& asked) {
  SidecarBenchOptions options = asked;
  if (options.quick) {
    options.vectors = 3'000;
    options.dim = 32;
    options.queries = 100;
    options.ks = {100};
    options.rounds = 1;
    options.calls = 100;
  }
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  FRESHET_ASSIGN(const std::unique_ptr<SidecarWorld> world, SidecarWorld::Make(options));
  HttpOptions http;
  http.max_connections = 4'096;
  http.idle_timeout_ms = 600'000;
  http.header_timeout_ms = 600'000;  // connections are opened before they are used
  http.grpc_listen = "127.0.0.1:0";
  if (!http.Validate().ok()) http.grpc_listen.clear();  // a build without
  const std::unique_ptr<HttpServer> server = MakeHttpServer(http, &world->service(), world->metrics(), {}, {});
  FRESHET_TRY(server->Start());
  Report report;
  report.benchmark = "sidecar";
  for (const std::size_t k : options.ks)
    FRESHET_TRY(RunK(world.get(), {server->address(), server->grpc_address()}, k, options, &report));
  FRESHET_TRY(RunIdle(server->address(), options.quick ? 100 : 1'000, &report));
  FRESHET_TRY(RunFollowing(world.get(), server->address(), options, &report));
  FRESHET_TRY(RunUsers(world.get(), options, &report));
  for (Row& row : report.rows) {
    row.params.emplace_back("vectors", StrCat(options.vectors));
    row.params.emplace_back("dim", StrCat(options.dim));
  }
  return report;
}

}  // namespace freshet::bench
