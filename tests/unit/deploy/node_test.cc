#include "node.h"

#include <gtest/gtest.h>

#include <set>

#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"
#include "freshet/query/http_client.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

// The value of a metric without labels, as text.
std::string Scraped(const std::string& address, const std::string& name) {
  const auto reply = HttpCall(address, "GET", "/metrics", "", 30'000);
  EXPECT_OK(reply);
  if (!reply.ok()) return "";
  for (const std::string& line : Split(reply->body, '\n')) {
    if (line.starts_with(name + " ")) return line.substr(name.size() + 1);
  }
  return "not there";
}

// What of `value` the schema does not describe, and what of the schema is not there, but for `optional`.
void ExpectDescribed(const YamlNode& schema, const JsonValue& value, const std::set<std::string>& optional) {
  std::set<std::string> described;
  for (const auto& [name, property] : schema.Find("properties")->members) {
    described.insert(name);
    const JsonValue* member = JsonFind(value, name);
    if (member == nullptr) {
      EXPECT_TRUE(optional.contains(name)) << name << " is not there";
    } else if (member->IsObject()) {
      ExpectDescribed(property, *member, {});
    }
  }
  for (const auto& member : value.GetObject()) {
    EXPECT_TRUE(described.contains(std::string(JsonText(member.name)))) << JsonText(member.name);
  }
}

class NodeTest : public ::testing::Test {
 protected:
  void Open(const std::vector<std::string>& more = {}) {
    std::vector<std::string> overrides = {"data_dir=" + (dir_ / "node"), "index.capacity=64"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    auto config = ParseConfig("encoder: {kind: passthrough, dim: 8}\nquery: {}\nadmin: {listen: 127.0.0.1:0}\n",
                              "f.yaml", overrides);
    ASSERT_OK(config);
    auto opened = Node::Open(*config, ApplierOptions::Role::kFollower, [] { return Status::Ok(); }, {});
    ASSERT_OK(opened);
    node_ = std::move(*opened);
    ASSERT_OK(node_->Serve(
        *config, "sidecar", [] { return Status::Ok(); }, &stopping_));
  }
  void TearDown() override { node_->StopServing(); }
  void ApplyAsOf(std::int64_t as_of_ms) {
    EncodedBatch batch;
    batch.as_of_ms = as_of_ms;
    ASSERT_OK(node_->applier->Apply(std::move(batch)));
  }
  [[nodiscard]] HttpReply Get(const std::string& path) const {
    const auto reply = HttpCall(node_->http->address(), "GET", path, "", 30'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }

  const test::TempDir dir_;
  const std::atomic<bool> stopping_{false};
  std::unique_ptr<Node> node_;
};

TEST_F(NodeTest, IsReadyWhileAgeAndRecordsAreWithinTheirBounds) {
  Open({"ready.max_lag_seconds=60", "ready.max_lag_records=500"});
  EXPECT_NE(Get("/readyz").body.find("has not caught up"), std::string::npos);
  ApplyAsOf(node_->clock.WallMs());
  EXPECT_EQ(Get("/readyz").status, 200);
  Gauge& lag = node_->metrics.GetGauge("freshet_consumer_lag_records", "Records in the log that were not read yet");
  lag.Set(500);
  EXPECT_EQ(Get("/readyz").status, 200);
  lag.Set(501);
  HttpReply reply = Get("/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.body, R"({"ready":false,"reasons":["501 records of the log were not read yet, the bound is 500"]})");
  EXPECT_EQ(Get("/livez").status, 200);
}

TEST_F(NodeTest, WithoutABoundOnRecordsTheAgeDecides) {
  Open({"ready.max_lag_records=0"});
  node_->metrics.GetGauge("freshet_consumer_lag_records", "Records in the log that were not read yet").Set(1e12);
  ApplyAsOf(node_->clock.WallMs());
  EXPECT_EQ(Get("/readyz").status, 200);
}

TEST_F(NodeTest, ItsReportIsTheDescribedOne) {
  Open();
  const auto api = ParseYaml(Get("/openapi.yaml").body, "openapi.yaml");
  ASSERT_OK(api);
  const YamlNode& schema = *api->Find("components")->Find("schemas")->Find("Status");
  const auto report = [&] {
    auto json = ParseJson(Get("/v1/status").body);
    EXPECT_OK(json);
    return std::move(*json);
  };
  auto before = report();
  ExpectDescribed(schema, *before, {"model", "snapshots"});
  EXPECT_TRUE(JsonFind(*before, "lag_seconds")->IsNull()) << "not known yet";
  EXPECT_EQ(JsonText(*JsonFind(*JsonFind(*before, "store"), "restored_from")), "");
  ApplyAsOf(node_->clock.WallMs() - 90'000);
  auto after = report();
  EXPECT_GE(JsonFind(*after, "lag_seconds")->GetDouble(), 90);
  EXPECT_LT(JsonFind(*after, "lag_seconds")->GetDouble(), 120);
  EXPECT_GT(JsonFind(*after, "resident_bytes")->GetDouble(), 0);
  EXPECT_EQ(JsonText(*JsonFind(*after, "model_version")), node_->applier->space_id());
}

// The tower of this package reads ten interactions.
TEST(Node, WarnsWhereLessOfAHistoryIsKeptThanTheModelReads) {
  for (const int kept : {9, 10}) {
    const test::TempDir dir;
    auto config = ParseConfig(StrCat("encoder: {package: ", test::SourceRoot(), "/tests/unit/encoder/data/pytorch}\n"),
                              "f.yaml", {"data_dir=" + (dir / "node"), StrCat("store.history=", kept)});
    ASSERT_OK(config);
    testing::internal::CaptureStderr();
    const auto opened = Node::Open(*config, ApplierOptions::Role::kFollower, [] { return Status::Ok(); }, {});
    const std::string log = testing::internal::GetCapturedStderr();
    ASSERT_OK(opened);
    const bool warned =
        log.find("the model reads 10 interactions of a user's history, and 9 are kept: set store.history to 10") !=
        std::string::npos;
    EXPECT_EQ(warned, kept == 9) << log;
  }
}

TEST(Node, TellsHowStaleItsAnswersAreWheneverItIsAsked) {
  const test::TempDir dir;
  auto config = ParseConfig("encoder: {kind: passthrough, dim: 8}\nquery: {}\nadmin: {listen: 127.0.0.1:0}\n", "f.yaml",
                            {"data_dir=" + (dir / "node"), "index.capacity=64"});
  ASSERT_OK(config);
  auto opened = Node::Open(*config, ApplierOptions::Role::kFollower, [] { return Status::Ok(); }, {});
  ASSERT_OK(opened);
  Node& node = **opened;
  const std::atomic<bool> stopping{false};
  ASSERT_OK(node.Serve(
      *config, "sidecar", [] { return Status::Ok(); }, &stopping));
  for (const HttpServer* door : {node.http.get(), node.admin.get()}) {
    EXPECT_EQ(Scraped(door->address(), "freshet_staleness_seconds"), "+Inf") << "not known yet";
  }
  EncodedBatch batch;
  batch.as_of_ms = node.clock.WallMs() - 90'000;
  ASSERT_OK(node.applier->Apply(std::move(batch)));
  for (const HttpServer* door : {node.http.get(), node.admin.get()}) {
    const auto seconds = ParseDouble(Scraped(door->address(), "freshet_staleness_seconds"));
    ASSERT_TRUE(seconds.has_value());
    EXPECT_GE(*seconds, 90);
    EXPECT_LT(*seconds, 120);
  }
  batch = {};
  batch.as_of_ms = node.clock.WallMs() + 60'000;  // clocks differ: not staler than now
  ASSERT_OK(node.applier->Apply(std::move(batch)));
  EXPECT_EQ(Scraped(node.http->address(), "freshet_staleness_seconds"), "0");
  node.StopServing();
}

}  // namespace
}  // namespace freshet
