// A model package with a TorchScript re-ranker, from the producer's record to the sidecar's answer over HTTP.
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/engine.h"
#include "freshet/deploy/sidecar.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/http_client.h"
#include "freshet_test/configs.h"
#include "freshet_test/embedded_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"
#include "package_writer.h"
#include "tiny_model.h"

namespace freshet::test {
namespace {

// By the items' attribute `price`; refuses what is searched for far away.
constexpr const char* kByPrice = R"(
def forward(self, x: Dict[str, Tensor]) -> Tensor:
    assert bool(x["user_vector"][0] < 50), "too far away"
    return x["item_dense"][:, 0]
)";

class RerankPipelineTest : public EmbeddedBrokerTest {
 protected:
  void SetUp() override {
    PackageContents contents = TinyPackage();
    AddTinyReranker(&contents, kByPrice);
    contents.goldens.reranks[0].scores = {4};
    ASSERT_OK(WritePackage(std::move(contents), dir_ / "model"));
  }
  [[nodiscard]] Config WithModel(const std::string& yaml) const {
    auto config = ParseConfig(WithPackage(yaml, dir_ / "model", dir_.path()), "config.yaml", {});
    EXPECT_OK(config);
    return *config;
  }
};

// "b c a" of an answer's results.
std::string IdsOf(const JsonValue& answer) {
  std::string ids;
  for (const JsonValue& hit : JsonFind(answer, "results")->GetArray()) {
    ids += StrCat(ids.empty() ? "" : " ", JsonText(*JsonFind(hit, "id")));
  }
  return ids;
}

TEST_F(RerankPipelineTest, TheSidecarAnswersByTheScriptOfThePackage) {
  // By vectors, seen from a's place: a, c, b. By price: b, c, a.
  Send("items", "a", R"({"attributes":{"price":1}})");
  Send("items", "b", R"({"attributes":{"price":3}})");
  Send("items", "c", R"({"attributes":{"price":2}})");
  Send("interactions", "ann", R"({"user_id":"ann","item_id":"a","event":"view","timestamp":1700000000000})");
  auto engine = Engine::Start(WithModel(EngineYaml(broker_->bootstrap_servers(), dir_ / "engine")));
  ASSERT_OK(engine);
  auto sidecar = Sidecar::Start(WithModel(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar")));
  ASSERT_OK(sidecar);
  ASSERT_TRUE(
      WaitFor([&] { return (*sidecar)->applier().catalog().live() == 3 && (*sidecar)->applier().user_count() == 1; }));
  std::unique_ptr<JsonDocument> document;
  const auto ask = [&](const std::string& path, const std::string& body) -> const JsonValue& {
    const auto reply = HttpCall((*sidecar)->http_address(), "POST", path, body, 30'000);
    EXPECT_OK(reply);
    EXPECT_EQ(reply->status, 200) << reply->body;
    auto parsed = ParseJson(reply->body);
    EXPECT_OK(parsed);
    document = std::move(*parsed);
    return *document;
  };
  EXPECT_EQ(IdsOf(ask("/v1/recall", R"({"user": "ann"})")), "a c b");
  const JsonValue& best = ask("/v1/recall", R"({"user": "ann", "k": 2, "rerank": true, "explain": true})");
  EXPECT_EQ(IdsOf(best), "b c");
  EXPECT_EQ(JsonFind(best, "degraded"), nullptr);
  EXPECT_EQ(JsonFind((*JsonFind(best, "results"))[0], "score")->GetDouble(), 3);
  EXPECT_EQ(JsonFind((*JsonFind(best, "results"))[0], "similarity")->GetDouble(), -2);
  EXPECT_EQ(JsonFind(*JsonFind(best, "explain"), "reranked")->GetUint64(), 3U);
  EXPECT_NE(JsonFind(*JsonFind(*JsonFind(best, "explain"), "stage_ms"), "rerank"), nullptr);
  EXPECT_EQ(IdsOf(ask("/v1/recall", R"({"user": "ann", "k": 2, "rerank": {"candidates": 2}})")), "c a");
  EXPECT_EQ(IdsOf(ask("/v1/score", R"({"user": "ann", "ids": ["a", "b"], "rerank": true})")), "b a");

  // What the script refuses is answered all the same, each entry of a batch by itself.
  const JsonValue& both = ask("/v1/recall:batch", R"({"requests": [{"vector": [100, 0], "rerank": true},
                                                                  {"vector": [1, 0], "rerank": true}]})");
  const JsonValue& refused = *JsonFind((*JsonFind(both, "responses"))[0], "answer");
  EXPECT_EQ(JsonText(*JsonFind(refused, "degraded")), "rerank");
  EXPECT_EQ(IdsOf(refused), "a c b");
  const JsonValue& answered = *JsonFind((*JsonFind(both, "responses"))[1], "answer");
  EXPECT_EQ(JsonFind(answered, "degraded"), nullptr);
  EXPECT_EQ(IdsOf(answered), "b c a");
  const auto metrics = HttpCall((*sidecar)->http_address(), "GET", "/metrics", "", 30'000);
  ASSERT_OK(metrics);
  EXPECT_NE(metrics->body.find("\nfreshet_query_rerank_failures_total 1\n"), std::string::npos);

  // The engine's own door has it as well.
  const auto reply =
      HttpCall((*engine)->http_address(), "POST", "/v1/recall", R"({"item": "a", "rerank": true})", 30'000);
  ASSERT_OK(reply);
  auto parsed = ParseJson(reply->body);
  ASSERT_OK(parsed);
  EXPECT_EQ(IdsOf(**parsed), "b c");
  ASSERT_OK((*sidecar)->Stop());
  ASSERT_OK((*engine)->Stop());
}

TEST_F(RerankPipelineTest, ShowAndVerifyKnowIt) {
  std::string out;
  EXPECT_EQ(RunCommand({FreshetBinary(), "model", "show", dir_ / "model"}, &out), 0);
  EXPECT_NE(out.find("re-ranker"), std::string::npos) << out;
  EXPECT_EQ(RunCommand({FreshetBinary(), "model", "verify", "--json", dir_ / "model"}, &out), 0);
  EXPECT_NE(out.find(R"("reranker":{)"), std::string::npos) << out;
  // Goldens that it does not answer.
  PackageContents wrong = TinyPackage();
  AddTinyReranker(&wrong, kByPrice);
  wrong.goldens.reranks[0].scores = {5};
  ASSERT_OK(WritePackage(std::move(wrong), dir_ / "model"));
  EXPECT_EQ(RunCommand({FreshetBinary(), "model", "show", dir_ / "model"}, &out), 0);
  EXPECT_EQ(RunCommand({FreshetBinary(), "model", "verify", dir_ / "model"}, &out), 1);
}

}  // namespace
}  // namespace freshet::test
