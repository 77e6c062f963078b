// The paths beside POST /v1/recall, and the API's description against what the server does.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "fake_replica.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "json_at.h"

namespace freshet {
namespace {

using test::At;

class HttpApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    replica_.Put("a", {1, 0}, {{"category", std::string("film")}, {"year", std::int64_t{1995}}});
    replica_.Put("b", {0.5F, 0}, {{"category", std::string("book")}});
    UserState ann;
    ann.features = {{"age", 33.0}, {"tags", std::vector<std::string>{"x"}}};
    ann.history = {{"a", "view", 1, 5}};
    ann.seen = {"a"};
    replica_.users["ann"] = ann;
    server_ = MakeHttpServer(
        {}, &service_, &metrics_, {}, [] { return std::string("{}"); }, [this] { ++snapshot_requests_; });
    ASSERT_OK(server_->Start());
  }
  HttpReply Call(std::string_view method, std::string_view target, std::string_view body = "") {
    Result<HttpReply> reply = HttpCall(server_->address(), method, target, body, 30'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }

  test::FakeReplica replica_;
  test::FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  test::FakeReranker reranker_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_, {}, &reranker_};
  int snapshot_requests_ = 0;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpApiTest, FiltersAndExplains) {
  HttpReply reply = Call("POST", "/v1/recall", R"({"vector": [1, 0], "explain": true,
      "filter": {"must": [{"key": "category", "match": "film"}, {"key": "year", "range": {"gte": 1990}}]}})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(At(reply.body, "/results"), R"([{"id":"a","score":1}])");
  EXPECT_EQ(At(reply.body, "/explain/matching"), "1");
  EXPECT_EQ(At(reply.body, "/explain/live"), "2");
  EXPECT_NE(At(reply.body, "/explain/path"), "");
  EXPECT_NE(At(reply.body, "/explain/stage_ms/search"), "");
  reply = Call("POST", "/v1/recall", R"({"vector": [1, 0], "filter": {"must": [{"key": "year", "range": {}}]}})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(At(reply.body, "/pointer"), R"("/filter/must/0/range")");
}

TEST_F(HttpApiTest, ABatchAnswersEachEntryByItself) {
  const HttpReply reply = Call("POST", "/v1/recall:batch", R"({"requests": [
      {"vector": [1, 0], "k": 1}, {"vector": [1, 0], "kk": 1}, {"item": "nobody"}, {"user": "ann", "k": 2}]})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(At(reply.body, "/responses/0/status"), "200");
  EXPECT_EQ(At(reply.body, "/responses/0/answer/results/0/id"), R"("a")");
  EXPECT_EQ(At(reply.body, "/responses/1/status"), "400");
  EXPECT_EQ(At(reply.body, "/responses/1/problem/pointer"), R"("/kk")");
  EXPECT_EQ(At(reply.body, "/responses/2/problem/type"), R"("urn:freshet:problem:not-found")");
  EXPECT_EQ(At(reply.body, "/responses/3/answer/results/1/id"), R"("b")");
  std::string many = R"({"requests": [{"item": "a"})";
  for (int i = 1; i < 128; ++i) many += R"(, {"item": "a"})";
  EXPECT_EQ(Call("POST", "/v1/recall:batch", many + "]}").status, 200);
  EXPECT_EQ(At(Call("POST", "/v1/recall:batch", many + R"(, {"item": "a"}]})").body, "/pointer"), R"("/requests")");
  EXPECT_EQ(Call("POST", "/v1/recall:batch", R"({"requests": []})").status, 400);
  EXPECT_EQ(Call("POST", "/v1/recall:batch", "[]").status, 400);
}

TEST_F(HttpApiTest, ABatchsAnswersAreBoundedTogether) {
  HttpOptions options;
  options.max_batch_bytes = 200;
  const auto server = MakeHttpServer(options, &service_, &metrics_, {}, {});
  ASSERT_OK(server->Start());
  const auto reply = HttpCall(server->address(), "POST", "/v1/recall:batch", R"({"requests": [
      {"item": "nobody"}, {"item": "a"}, {"item": "b"}, {"item": "a"}, {"kk": 1}]})");
  ASSERT_OK(reply);
  EXPECT_EQ(reply->status, 200) << reply->body;
  EXPECT_EQ(At(reply->body, "/responses/0/status"), "404");
  EXPECT_EQ(At(reply->body, "/responses/1/status"), "200");
  EXPECT_EQ(At(reply->body, "/responses/2/status"), "400");
  EXPECT_EQ(At(reply->body, "/responses/3/status"), "400");
  EXPECT_NE(At(reply->body, "/responses/3/problem/detail").find("more than 200 bytes"), std::string::npos)
      << reply->body;
  EXPECT_EQ(At(reply->body, "/responses/4/problem/pointer"), R"("/kk")");
}

TEST_F(HttpApiTest, GaugesAreSetWhenMetricsAreAskedFor) {
  Gauge& gauge = metrics_.GetGauge("freshet_test_seconds", "Since something");
  int asked = 0;
  const auto server = MakeHttpServer({}, &service_, &metrics_, {}, {}, {}, [&] { gauge.Set(++asked); });
  ASSERT_OK(server->Start());
  for (const char* expected : {"freshet_test_seconds 1\n", "freshet_test_seconds 2\n"}) {
    const auto reply = HttpCall(server->address(), "GET", "/metrics");
    ASSERT_OK(reply);
    EXPECT_NE(reply->body.find(expected), std::string::npos) << reply->body;
  }
  ASSERT_OK(HttpCall(server->address(), "GET", "/livez"));
  EXPECT_EQ(asked, 2);
}

TEST_F(HttpApiTest, ScoresGivenIds) {
  HttpReply reply = Call("POST", "/v1/score", R"({"user": "ann", "ids": ["b", "nobody", "a"]})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(At(reply.body, "/results/0/id"), R"("a")");
  EXPECT_EQ(At(reply.body, "/unknown"), R"(["nobody"])");
  reply = Call("POST", "/v1/score", R"({"user": "ann"})");
  EXPECT_EQ(At(reply.body, "/pointer"), R"("/ids")");
  reply = Call("POST", "/v1/score", R"({"user": "ann", "ids": ["a"], "k": 1})");
  EXPECT_EQ(At(reply.body, "/pointer"), R"("/k")");
}

TEST_F(HttpApiTest, ShowsAUser) {
  const HttpReply reply = Call("GET", "/v1/users/ann");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body,
            R"({"id":"ann","features":{"age":33.0,"tags":["x"]},"history":[{"item_id":"a","event":"view","value":1.0,)"
            R"("timestamp":5}],"seen":["a"],"index_version":7})");
  EXPECT_EQ(Call("GET", "/v1/users/bob").status, 404);
  EXPECT_EQ(Call("GET", "/v1/users/%ff").status, 400);
}

TEST_F(HttpApiTest, WaitsForFreshnessOrSays503) {
  EXPECT_EQ(Call("POST", "/v1/recall", R"({"item": "a", "min_as_of": "2011-05-31T17:39:00.123Z"})").status, 200);
  const HttpReply reply = Call("POST", "/v1/recall", R"({"item": "a", "min_as_of": 1306863540124, "timeout_ms": 5})");
  EXPECT_EQ(reply.status, 503) << reply.body;
  EXPECT_EQ(At(reply.body, "/type"), R"("urn:freshet:problem:unavailable")");
}

// What the description says of paths and fields, tried.
class OpenApiTest : public HttpApiTest {
 protected:
  void SetUp() override {
    HttpApiTest::SetUp();
    const HttpReply reply = Call("GET", "/openapi.yaml");
    ASSERT_EQ(reply.status, 200);
    EXPECT_EQ(reply.content_type, "application/yaml");
    auto parsed = ParseYaml(reply.body, "openapi.yaml");
    ASSERT_OK(parsed);
    api_ = std::move(*parsed);
  }
  [[nodiscard]] std::set<std::string> Properties(const std::string& schema) const {
    std::set<std::string> names;
    const YamlNode* node = api_.Find("components")->Find("schemas")->Find(schema);
    if (node == nullptr || node->Find("properties") == nullptr) return {"no schema " + schema};
    for (const auto& [name, property] : node->Find("properties")->members) names.insert(name);
    return names;
  }
  static std::set<std::string> Members(const std::string& json, const std::string& pointer = "") {
    std::set<std::string> names;
    const auto document = ParseJson(json);
    if (!document.ok()) return {"not JSON"};
    const JsonValue* value = JsonPointer(pointer.c_str(), pointer.size()).Get(**document);
    if (value == nullptr || !value->IsObject()) return {"no object at " + pointer};
    for (const auto& member : value->GetObject()) names.insert(std::string(JsonText(member.name)));
    return names;
  }
  YamlNode api_;
};

TEST_F(OpenApiTest, EveryReferenceHasATarget) {
  std::size_t references = 0;
  const std::function<void(const YamlNode&)> walk = [&](const YamlNode& node) {
    for (const auto& [name, child] : node.members) {
      if (name == "$ref") {
        ++references;
        const std::vector<std::string> parts = Split(child.scalar, '/');
        const YamlNode* at = &api_;
        for (std::size_t i = 1; i < parts.size() && at != nullptr; ++i) at = at->Find(parts[i]);
        EXPECT_NE(at, nullptr) << child.scalar;
      }
      walk(child);
    }
    for (const YamlNode& child : node.items) walk(child);
  };
  walk(api_);
  EXPECT_GT(references, 30U);
}

TEST_F(OpenApiTest, ThePathsAreTheServers) {
  const std::string metrics_before = Call("GET", "/metrics").body;
  std::set<std::string> documented;
  for (const auto& [path, operations] : api_.Find("paths")->members) {
    documented.insert(path);
    std::string target = path;
    if (const std::size_t at = target.find("{id}"); at != std::string::npos) {
      target.replace(at, 4, path.find("users") != std::string::npos ? "ann" : "a");
    }
    const bool posted = operations.Find("post") != nullptr;
    EXPECT_EQ(Call("DELETE", target).status, 405) << path;
    EXPECT_EQ(Call(posted ? "GET" : "POST", target).status, 405) << path;
    const std::string body = path == "/v1/recall"  ? R"({"item": "a"})"
                             : path == "/v1/score" ? R"({"item": "a", "ids": ["b"]})"
                                                   : R"({"requests": [{"item": "a"}]})";
    EXPECT_EQ(Call(posted ? "POST" : "GET", target, posted ? body : "").status,
              path == "/v1/admin/snapshots" ? 202 : 200)
        << path;
  }
  EXPECT_EQ(snapshot_requests_, 1);
  // Each route has its histogram from the start: what is not documented would be seen there.
  const std::string key = "freshet_http_seconds_count{route=\"";
  std::set<std::string> served;
  for (std::size_t at = metrics_before.find(key); at != std::string::npos; at = metrics_before.find(key, at + 1)) {
    const std::size_t begin = at + key.size();
    served.insert(metrics_before.substr(begin, metrics_before.find('"', begin) - begin));
  }
  served.erase("other");
  EXPECT_EQ(served, documented);
}

TEST_F(OpenApiTest, WhatQueuesMayBeRefused) {
  for (const auto& [path, operations] : api_.Find("paths")->members) {
    const bool queues = path == "/v1/recall" || path == "/v1/recall:batch" || path == "/v1/score" ||
                        path.find("{id}") != std::string::npos;
    const YamlNode& operation = operations.members.front().second;
    EXPECT_EQ(operation.Find("responses")->Find("429") != nullptr, queues) << path;
  }
}

TEST_F(OpenApiTest, TheRequestsFieldsAreTheServers) {
  const std::map<std::string, std::string> recall = {
      {"user", R"("ann")"},
      {"item", R"("a")"},
      {"items", R"(["a"])"},
      {"negative", R"(["b"])"},
      {"vector", "[1, 0]"},
      {"k", "5"},
      {"filter", "{}"},
      {"max_per", R"({"category": 1})"},
      {"exclude_ids", "[]"},
      {"exclude_seen", "true"},
      {"params", R"({"ef": 100, "exact": true})"},
      {"with_attributes", "true"},
      {"with_payload", "true"},
      {"score_threshold", "0.5"},
      {"explain", "true"},
      {"rerank", R"({"candidates": 500})"},
      {"weights",
       R"({"similarity": 1, "popularity": 0.5, "recency": -0.5, "recency_of": "added", "half_life_hours": 24})"},
      {"min_as_of", "1"},
      {"timeout_ms", "1000"},
  };
  std::set<std::string> tried;
  for (const auto& [field, value] : recall) {
    tried.insert(field);
    const bool target = field == "user" || field == "item" || field == "items" || field == "vector";
    const std::string with = target ? "" : field == "negative" ? R"("item": "a", )" : R"("user": "ann", )";
    const std::string body = StrCat("{", with, "\"", field, "\": ", value, "}");
    const HttpReply reply = Call("POST", "/v1/recall", body);
    EXPECT_EQ(reply.status, 200) << body << " -> " << reply.body;
  }
  EXPECT_EQ(Properties("RecallRequest"), tried);
  const std::set<std::string> score = {"user", "item",   "items",   "negative",  "vector",
                                       "ids",  "rerank", "weights", "min_as_of", "timeout_ms"};
  EXPECT_EQ(Properties("ScoreRequest"), score);
  for (const std::string& field : Properties("RecallRequest")) {
    if (score.contains(field)) continue;
    const HttpReply reply =
        Call("POST", "/v1/score", StrCat(R"({"item": "a", "ids": ["b"], ")", field, "\": ", recall.at(field), "}"));
    EXPECT_EQ(reply.status, 400) << field;
  }
  EXPECT_EQ(Properties("BatchRequest"), std::set<std::string>{"requests"});
}

TEST_F(OpenApiTest, TheAnswersFieldsAreTheServers) {
  HttpReply reply = Call("POST", "/v1/recall", R"({"user": "bob", "explain": true, "with_attributes": true, "k": 1})");
  EXPECT_EQ(Members(reply.body), Properties("RecallAnswer")) << reply.body;
  reply = Call("POST", "/v1/recall", R"({"item": "b", "explain": true, "with_attributes": true, "weights": {}})");
  std::set<std::string> hit = Members(reply.body, "/results/0");
  hit.merge(
      Members(Call("POST", "/v1/recall", R"({"item": "b", "explain": true, "rerank": true})").body, "/results/0"));
  EXPECT_EQ(hit, Properties("Hit"));
  EXPECT_EQ(Members(reply.body, "/results/0/parts"), (std::set<std::string>{"popularity", "recency", "similarity"}));
  reply = Call("POST", "/v1/score", R"({"user": "bob", "ids": ["a"]})");
  EXPECT_EQ(Members(reply.body), Properties("ScoreAnswer")) << reply.body;
  replica_.changed_ms["a"] = 1'306'863'540'123;
  std::set<std::string> item = Members(Call("GET", "/v1/items/a").body);
  EXPECT_TRUE(item.contains("vector") && item.contains("changed") && !item.contains("not_live"));
  replica_.Own(false);
  item.merge(Members(Call("GET", "/v1/items/a").body));
  replica_.Own(true);
  EXPECT_EQ(item, Properties("Item"));
  EXPECT_EQ(Members(Call("GET", "/v1/users/ann").body), Properties("User"));
  EXPECT_EQ(Members(Call("POST", "/v1/recall", R"({"item": "a", "kk": 1})").body), Properties("Problem"));
  EXPECT_EQ(Members(Call("POST", "/v1/recall:batch", R"({"requests": [{}]})").body), Properties("BatchAnswer"));
}

}  // namespace
}  // namespace freshet
