// freshet_bench sidecar: for a user, beside the same for a vector.
#include <utility>

#include "bench_towers.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_server.h"
#include "sidecar_load.h"
#include "sidecar_world.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kK = 100;
constexpr std::size_t kUsers = 200;
constexpr int kHistory = 50;

// A tower that was trained on something else: what it costs is the same.
class InBenchSpace final : public UserEncoder {
 public:
  InBenchSpace(std::unique_ptr<UserEncoder> tower, std::string space)
      : tower_(std::move(tower)), space_(std::move(space)) {}
  [[nodiscard]] int dim() const override { return tower_->dim(); }
  [[nodiscard]] const std::string& space_id() const override { return space_; }
  [[nodiscard]] Status Encode(const UserContext& user, std::span<float> out) const override {
    return tower_->Encode(user, out);
  }

 private:
  const std::unique_ptr<UserEncoder> tower_;
  const std::string space_;
};

}  // namespace

Status RunUsers(SidecarWorld* world, const SidecarBenchOptions& options, Report* report) {
  FRESHET_TRY(world->AddUsers(kUsers, kHistory));
  TowerShape shape;
  shape.items = options.quick ? 600 : 4'000;
  shape.dim = options.dim;
  shape.history = kHistory;
  const Directory directory(options.directory);
  WriteShopEvents(shape, directory.path);
  FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package, TrainTowers(shape, directory.path, "mean"));
  FRESHET_ASSIGN(std::unique_ptr<UserEncoder> tower, package->LoadUserEncoder());
  const InBenchSpace users(std::move(tower), world->applier()->space_id());
  const SystemClock clock;
  Metrics metrics;
  const RecallService service(world->applier(), &users, &clock, &metrics);
  const std::unique_ptr<HttpServer> server = MakeHttpServer({}, &service, &metrics, {}, {});
  FRESHET_TRY(server->Start());
  FRESHET_ASSIGN(const std::unique_ptr<LoadConnection> connection, LoadConnection::Open(server->address()));
  std::vector<std::string> by_vector;
  std::vector<std::string> by_user;
  const test::VectorSet& queries = world->queries();
  for (std::size_t i = 0; i < kUsers; ++i) {
    by_vector.push_back(JsonRequest({queries.Row(i % queries.size), static_cast<std::size_t>(queries.dim)}, kK));
    JsonWriter json;
    json.BeginObject().Key("user").String(StrCat("user-", i)).Key("k").Uint(kK).Key("exclude_seen").Bool(true);
    by_user.push_back(PostRequest("/v1/recall", "application/json", json.EndObject().Take()));
    FRESHET_ASSIGN(const std::string_view body, connection->Call(by_user.back()));
    FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> answer, ParseJson(std::string(body)));
    if (JsonFind(*answer, "degraded") != nullptr || JsonFind(*answer, "results")->GetArray().Size() != kK) {
      return Internal(StrCat("not an answer by the tower: ", body.substr(0, 200)));
    }
  }
  std::vector<double> p50_us[2];
  std::vector<double> p99_us[2];
  for (std::size_t round = 0; round < options.rounds; ++round) {
    for (const std::size_t which : {0, 1}) {
      const std::vector<std::string>& requests = which == 0 ? by_vector : by_user;
      const LoadCall call = [&](std::size_t, std::size_t i) {
        return connection->Call(requests[i % requests.size()]).status();
      };
      FRESHET_ASSIGN(const LoadResult result, ClosedLoop(call, 1, options.calls));
      p50_us[which].push_back(result.p50_us);
      p99_us[which].push_back(result.p99_us);
    }
  }
  for (const std::size_t which : {0, 1}) {
    report->rows.push_back({which == 0 ? "HTTP, JSON, a vector" : "HTTP, JSON, a user: tower, search, none of the seen",
                            false,
                            {{"k", StrCat(kK)}, {"loop", "closed, 1 asks"}, {"history", StrCat(kHistory)}},
                            {{"p50_us", Median(p50_us[which])}, {"p99_us", Median(p99_us[which])}}});
  }
  report->goals.push_back({"a user's p99 over a vector's, us", 500, Median(p99_us[1]) - Median(p99_us[0]), true});
  return Status::Ok();
}

}  // namespace freshet::bench
