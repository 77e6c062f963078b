// The binary body of POST /v1/recall: byte by byte as deploy/docs/api.md has it, both ways, and over the wire.
#include "freshet/query/recall_binary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "fake_replica.h"
#include "freshet/core/bytes.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using namespace std::string_literals;  // NOLINT: "..."s keeps zero bytes

BinaryParams K(std::uint32_t k) {
  BinaryParams params;
  params.k = k;
  return params;
}

TEST(RecallBinary, ARequestsBytesAreTheDocumented) {
  const std::vector<float> vector = {1.0F, -2.0F};
  EXPECT_EQ(EncodeBinaryRequest(vector, BinaryParams{258, 3, true, 4}),
            "FRR1"
            "\x01\0\0\0"
            "\x02\x01\0\0"
            "\x03\0\0\0"
            "\x04\0\0\0"
            "\x02\0\0\0"
            "\0\0\x80\x3f"
            "\0\0\0\xc0"s);
  const auto request = DecodeBinaryRequest(EncodeBinaryRequest(vector, BinaryParams{258, 3, true, 4}));
  ASSERT_OK(request);
  EXPECT_EQ(request->vector, vector);
  EXPECT_EQ(request->k, 258U);
  EXPECT_EQ(request->ef, 3U);
  EXPECT_TRUE(request->exact);
  EXPECT_EQ(request->timeout_ms, 4);
  EXPECT_FALSE(DecodeBinaryRequest(EncodeBinaryRequest(vector))->exact);
}

TEST(RecallBinary, AnAnswersBytesAreTheDocumented) {
  RecallResponse response;
  response.results = {{"ab", 2.0F, {}}, {"\u00e9", 1.0F, {}}};
  response.index_version = 7;
  response.as_of_ms = 9;
  response.took_ms = 0.25;
  response.model_version = "m";
  const std::string bytes = EncodeBinaryAnswer(response);
  EXPECT_EQ(bytes,
            "FRA1"
            "\0\0\0\0"
            "\x02\0\0\0"
            "\x04\0\0\0"
            "\x07\0\0\0\0\0\0\0"
            "\x09\0\0\0\0\0\0\0"
            "\xfa\0\0\0"
            "\x01\0\0\0"
            "\0\0\0\x40"
            "\0\0\x80\x3f"
            "\x02\0\0\0"
            "\x04\0\0\0"
            "m"
            "ab"
            "\xc3\xa9"s);
  const auto read = DecodeBinaryAnswer(bytes);
  ASSERT_OK(read);
  ASSERT_EQ(read->results.size(), 2U);
  EXPECT_EQ(read->results[0].id, "ab");
  EXPECT_EQ(read->results[1].id, "\u00e9");
  EXPECT_EQ(read->results[1].score, 1.0F);
  EXPECT_EQ(read->index_version, 7U);
  EXPECT_EQ(read->as_of_ms, 9);
  EXPECT_DOUBLE_EQ(read->took_ms, 0.25);
  EXPECT_EQ(read->model_version, "m");
  ASSERT_OK(DecodeBinaryAnswer(EncodeBinaryAnswer({})));
}

TEST(RecallBinary, EveryWrongFieldIsNamed) {
  const std::string right = EncodeBinaryRequest(std::vector<float>{1, 0}, K(10));
  const auto refusal = [&](std::size_t at, std::uint32_t value) {
    std::string wrong = right;
    std::memcpy(wrong.data() + at, &value, sizeof value);
    const Status status = DecodeBinaryRequest(wrong).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << at;
    return std::string(status.message());
  };
  EXPECT_TRUE(refusal(0, 0).find("FRR1") != std::string::npos);
  EXPECT_TRUE(refusal(0, 0x32525246).find("FRR1") != std::string::npos) << "version 2";
  EXPECT_TRUE(refusal(4, 2).starts_with("/flags: "));
  EXPECT_TRUE(refusal(8, 0).starts_with("/k: "));
  EXPECT_TRUE(refusal(8, kMaxK + 1).starts_with("/k: "));
  EXPECT_TRUE(refusal(12, kMaxEf + 1).starts_with("/params/ef: "));
  EXPECT_TRUE(refusal(16, kMaxTimeoutMs + 1).starts_with("/timeout_ms: "));
  EXPECT_TRUE(refusal(20, 1).starts_with("/vector: "));
  EXPECT_TRUE(refusal(20, 3).starts_with("/vector: "));
  EXPECT_TRUE(refusal(20, 0xffffffff).starts_with("/vector: "));
  EXPECT_TRUE(refusal(28, 0x7fc00000).starts_with("/vector/1: ")) << "NaN";
  EXPECT_TRUE(refusal(24, 0xff800000).starts_with("/vector/0: ")) << "minus infinity";
  for (std::size_t size = 0; size < right.size(); ++size) {
    EXPECT_EQ(DecodeBinaryRequest(right.substr(0, size)).status().code(), Code::kInvalidArgument) << size;
  }
  EXPECT_FALSE(DecodeBinaryRequest(right + "x").ok());
}

TEST(RecallBinary, AnAnswerThatIsCutOrChangedIsNotRead) {
  RecallResponse response;
  response.results = {{"ab", 2.0F, {}}, {"c", 1.0F, {}}};
  const std::string right = EncodeBinaryAnswer(response);
  for (std::size_t size = 0; size < right.size(); ++size) {
    EXPECT_EQ(DecodeBinaryAnswer(right.substr(0, size)).status().code(), Code::kCorruption) << size;
  }
  EXPECT_FALSE(DecodeBinaryAnswer(right + "x").ok());
  for (const std::size_t at : {0U, 4U, 8U, 12U, 36U, 48U, 52U}) {  // magic, flags, counts, ends of ids
    std::string wrong = right;
    wrong[at] = static_cast<char>(wrong[at] + 3);
    EXPECT_FALSE(DecodeBinaryAnswer(wrong).ok()) << at;
  }
}

class RecallBinaryHttpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 20; ++i) replica_.Put(StrCat("item-", i), {static_cast<float>(i), 1});
    server_ = MakeHttpServer({}, &service_, &metrics_, {}, {});
    ASSERT_OK(server_->Start());
  }
  HttpReply Call(const std::string& body, std::string_view type = kBinaryRecallType) {
    Result<HttpReply> reply = HttpCall(server_->address(), "POST", "/v1/recall", body, 30'000, "", type);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }

  test::FakeReplica replica_;
  SystemClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, nullptr, &clock_, &metrics_};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(RecallBinaryHttpTest, SaysWhatJsonSays) {
  const HttpReply reply = Call(EncodeBinaryRequest(std::vector<float>{1, 0.5F}, K(5)));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.content_type, kBinaryRecallType);
  auto binary = DecodeBinaryAnswer(reply.body);
  ASSERT_OK(binary);
  binary->took_ms = 0;
  std::string json = Call(R"({"vector": [1, 0.5], "k": 5})", "application/json").body;
  const std::size_t took = json.find(R"("took_ms":)") + 10;
  json.replace(took, json.find('}', took) - took, "0.0");
  EXPECT_EQ(RecallResponseToJson(*binary), json);
  EXPECT_EQ(Call(EncodeBinaryRequest(std::vector<float>{1, 0}), "Application/VND.freshet.Recall.v1 ; x=y").content_type,
            kBinaryRecallType);
}

TEST_F(RecallBinaryHttpTest, ErrorsAreProblemsInJson) {
  const auto problem = [&](const std::string& body, std::string_view type, const std::string& pointer) {
    const HttpReply reply = Call(body, type);
    EXPECT_EQ(reply.status, 400) << reply.body;
    EXPECT_EQ(reply.content_type, "application/problem+json");
    EXPECT_NE(reply.body.find(pointer), std::string::npos) << reply.body;
  };
  problem(EncodeBinaryRequest(std::vector<float>{1, 0, 0}), kBinaryRecallType, R"("pointer":"/vector")");
  problem(EncodeBinaryRequest(std::vector<float>{0, 0}), kBinaryRecallType, R"("pointer":"/vector")");
  problem(EncodeBinaryRequest(std::vector<float>{}), kBinaryRecallType, R"("pointer":"/vector")");
  problem(EncodeBinaryRequest(std::vector<float>{1, 0}, K(5'000)), kBinaryRecallType, R"("pointer":"/k")");
  problem(R"({"vector": [1, 0]})", kBinaryRecallType, "FRR1");
  problem(EncodeBinaryRequest(std::vector<float>{1, 0}), "application/vnd.freshet.recall.v2", "JSON");
}

}  // namespace
}  // namespace freshet
