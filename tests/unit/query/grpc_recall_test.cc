// What gRPC answers is what HTTP answers: every method, and the forms of a request, each in both protocols.
#include <algorithm>
#include <random>

#include "freshet/core/json.h"
#include "grpc_codec.h"
#include "grpc_fixture.h"
#include "grpc_messages.h"
#include "json_at.h"
#include "recall_json.h"

namespace freshet {
namespace {

using test::At;
using test::AttributesOf;
using test::DetailsOf;
using test::Parse;
using test::ResponseOf;
using test::Timeless;
using test::Told;

class GrpcRecallTest : public test::GrpcTest {
 protected:
  void SetUp() override {
    replica_.Put("a", {1, 0},
                 {{"added", std::string("2011-05-30T08:00:00Z")},
                  {"category", std::string("film")},
                  {"flags", std::vector<bool>{true, false}},
                  {"numbers", std::vector<double>{0.5, 2}},
                  {"price", 2.5},
                  {"stock", true},
                  {"tags", std::vector<std::string>{"x", "y"}},
                  {"wholes", std::vector<std::int64_t>{1, std::int64_t{1} << 60}},
                  {"year", std::int64_t{1995}}});
    replica_.Put("b", {0.5F, 0.1F}, {{"category", std::string("book")}, {"year", std::int64_t{2005}}});
    replica_.Put("c", {0.25F, 0.5F}, {{"category", std::string("film")}, {"year", (std::int64_t{1} << 53) + 1}});
    replica_.Put("x", {0.1F, 0.9F});
    replica_.changed_ms["a"] = 1'306'800'000'000;
    UserState ann;
    ann.features = {{"age", 33.0}, {"country", std::string("FR")}, {"tags", std::vector<std::string>{"x"}}};
    ann.history = {{"a", "buy", 2, 1'306'863'000'000}};
    ann.seen = {"a"};
    replica_.users["ann"] = ann;
    replica_.popular = {{"c", 3.5}, {"b", 1}};
    reranker_.scores = {{"b", 9}, {"c", 8}};
    StartServer();
  }
  // Asks both, which have to agree.
  void Same(const std::string& json, const std::string& text) {
    SCOPED_TRACE(json);
    const HttpReply http = Http("POST", "/v1/recall", json);
    v1::RecallResponse response;
    const grpc::Status status = Recall(Parse<v1::RecallRequest>(text), &response);
    if (http.status == 200) {
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(Timeless(RecallResponseToJson(ResponseOf(response))), Timeless(http.body));
    } else {
      SameProblem(http, status);
    }
  }
  static void SameProblem(const HttpReply& http, const grpc::Status& status) {
    ASSERT_FALSE(status.ok()) << http.body;
    const Told told = DetailsOf(status);
    const auto text_at = [&](const char* pointer) {
      const auto document = ParseJson(http.body);
      const JsonValue* value = document.ok() ? JsonPointer(pointer).Get(**document) : nullptr;
      return value == nullptr ? std::string() : std::string(JsonText(*value));
    };
    EXPECT_EQ(told.type, text_at("/type"));
    EXPECT_EQ(told.pointer, text_at("/pointer"));
    EXPECT_EQ(told.domain, "freshet");
    const std::string detail = text_at("/detail");
    EXPECT_EQ(status.error_message(), told.pointer.empty() ? detail : StrCat(told.pointer, ": ", detail));
    if (status.error_code() == grpc::StatusCode::INVALID_ARGUMENT) {
      EXPECT_EQ(told.field, told.pointer);
      EXPECT_EQ(told.description, detail);
    }
  }
};

TEST_F(GrpcRecallTest, EveryFormOfARequestIsAnsweredAsOverHttp) {
  Same(R"({"vector": [1, 0]})", "vector: 1 vector: 0");
  Same(R"({"vector": [1, 0], "k": 2, "params": {"ef": 50, "exact": true}, "with_attributes": true})",
       "vector: 1 vector: 0 k: 2 params { ef: 50 exact: true } with_attributes: true");
  Same(R"({"user": "ann", "exclude_seen": true, "explain": true})",
       "user { id: 'ann' } exclude_seen: true explain: true");
  Same(R"({"user": "nobody"})", "user { id: 'nobody' }");
  Same(R"({"user": {"features": {"age": 7, "tags": ["x", "y"], "country": "DE", "new": true}}})",
       "user { features { values { key: 'age' value { number: 7 } } values { key: 'tags' value { texts { values: 'x' "
       "values: 'y' } } } values { key: 'country' value { text: 'DE' } } values { key: 'new' value { flag: true } } } "
       "}");
  Same(R"({"user": {"id": "ann", "history": ["a", {"item_id": "x", "event": "buy", "value": 2, "timestamp": 5}]}})",
       "user { id: 'ann' history { entries { item_id: 'a' } entries { item_id: 'x' event: 'buy' value: 2 timestamp: 5 "
       "} } }");
  Same(R"({"user": {"id": "ann", "history": []}})", "user { id: 'ann' history {} }");
  Same(R"({"item": "a", "exclude_ids": ["b"]})", "item: 'a' exclude_ids: 'b'");
  Same(R"({"items": ["a", "b"], "negative": ["x"]})", "items: 'a' items: 'b' negative: 'x'");
  Same(R"({"vector": [1, 0], "max_per": {"category": 1}})", "vector: 1 vector: 0 max_per { key: 'category' value: 1 }");
  Same(R"({"vector": [1, 0], "score_threshold": 0.3})", "vector: 1 vector: 0 score_threshold: 0.3");
  Same(R"({"vector": [1, 0], "explain": true, "weights": {"similarity": 0.5, "popularity": 2, "recency": 1,
           "recency_of": "added", "half_life_hours": 24}})",
       "vector: 1 vector: 0 explain: true weights { similarity: 0.5 popularity: 2 recency: 1 recency_of: 'added' "
       "half_life_hours: 24 }");
  Same(R"({"vector": [1, 0], "k": 3, "explain": true, "rerank": {"candidates": 4}})",
       "vector: 1 vector: 0 k: 3 explain: true rerank { candidates: 4 }");
  Same(R"({"vector": [1, 0], "rerank": true})", "vector: 1 vector: 0 rerank {}");
  Same(R"({"vector": [1, 0], "min_as_of": 1306863540000, "timeout_ms": 5000})",
       "vector: 1 vector: 0 min_as_of: 1306863540000 timeout_ms: 5000");
}

TEST_F(GrpcRecallTest, EveryConditionMatchesAsOverHttp) {
  const auto same = [this](const std::string& json, const std::string& text) {
    Same(StrCat(R"({"vector": [1, 1], "explain": true, "filter": )", json, "}"),
         StrCat("vector: 1 vector: 1 explain: true filter { ", text, " }"));
  };
  same("{}", "");
  same(R"({"key": "category", "match": "film"})", "key: 'category' match { text: 'film' }");
  same(R"({"key": "year", "match": 1995})", "key: 'year' match { integer: 1995 }");
  same(R"({"key": "year", "match": 1995.0})", "key: 'year' match { number: 1995 }");
  // Beyond what a double tells apart.
  same(R"({"key": "year", "match": 9007199254740993})", "key: 'year' match { integer: 9007199254740993 }");
  same(R"({"key": "year", "match": 9007199254740992})", "key: 'year' match { integer: 9007199254740992 }");
  same(R"({"key": "stock", "match": true})", "key: 'stock' match { flag: true }");
  same(R"({"key": "tags", "any": ["y", "z", 7]})",
       "key: 'tags' any { values { text: 'y' } values { text: 'z' } values { integer: 7 } }");
  same(R"({"key": "year", "range": {"gte": 1990, "lt": 2005.5}})",
       "key: 'year' range { gte { integer: 1990 } lt { number: 2005.5 } }");
  same(R"({"key": "added", "range": {"gt": "2011-05-29T00:00:00Z", "lte": "2011-05-30T08:00:00Z"}})",
       "key: 'added' range { gt { text: '2011-05-29T00:00:00Z' } lte { text: '2011-05-30T08:00:00Z' } }");
  same(R"({"key": "category", "prefix": "fi"})", "key: 'category' prefix: 'fi'");
  same(R"({"key": "price", "exists": false})", "key: 'price' exists: false");
  same(R"({"must": [{"key": "category", "match": "film"}, {"should": [{"key": "year", "match": 1995}]}],
           "must_not": [{"key": "tags", "match": "z"}]})",
       "must { key: 'category' match { text: 'film' } } must { should { key: 'year' match { integer: 1995 } } } "
       "must_not { key: 'tags' match { text: 'z' } }");
}

TEST_F(GrpcRecallTest, WhatIsWrongIsToldAsOverHttp) {
  Same("{}", "");
  Same(R"({"item": "a", "vector": [1, 0]})", "item: 'a' vector: 1 vector: 0");
  Same(R"({"item": "a", "k": 0})", "item: 'a' k: 0");
  Same(R"({"item": "a", "k": 1001})", "item: 'a' k: 1001");
  Same(R"({"item": ""})", "item: ''");
  Same(R"({"item": "nothing"})", "item: 'nothing'");
  Same(R"({"items": ["a", "nothing"]})", "items: 'a' items: 'nothing'");
  Same(R"({"vector": [1, 0, 0]})", "vector: 1 vector: 0 vector: 0");
  Same(R"({"vector": [0, 0]})", "vector: 0 vector: 0");
  Same(R"({"user": {}})", "user {}");
  Same(R"({"user": {"id": ""}})", "user { id: '' }");
  Same(R"({"user": {"history": [{"item_id": ""}]}})", "user { history { entries {} } }");
  Same(R"({"user": {"history": [{"item_id": "a", "timestamp": -1}]}})",
       "user { history { entries { item_id: 'a' timestamp: -1 } } }");
  Same(R"({"item": "a", "exclude_seen": true})", "item: 'a' exclude_seen: true");
  Same(R"({"item": "a", "params": {"ef": 10001}})", "item: 'a' params { ef: 10001 }");
  Same(R"({"item": "a", "timeout_ms": 0})", "item: 'a' timeout_ms: 0");
  Same(R"({"item": "a", "timeout_ms": 60001})", "item: 'a' timeout_ms: 60001");
  Same(R"({"item": "a", "min_as_of": -1})", "item: 'a' min_as_of: -1");
  Same(R"({"item": "a", "max_per": {"category": 0}})", "item: 'a' max_per { key: 'category' value: 0 }");
  Same(R"({"item": "a", "exclude_ids": ["b", ""]})", "item: 'a' exclude_ids: 'b' exclude_ids: ''");
  Same(R"({"item": "a", "weights": {"popularity": 2e6}})", "item: 'a' weights { popularity: 2e6 }");
  Same(R"({"item": "a", "weights": {"half_life_hours": 0}})", "item: 'a' weights { half_life_hours: 0 }");
  Same(R"({"item": "a", "weights": {}, "rerank": true})", "item: 'a' weights {} rerank {}");
  Same(R"({"item": "a", "rerank": {"candidates": 0}})", "item: 'a' rerank { candidates: 0 }");
  Same(R"({"item": "a", "filter": {"key": "year"}})", "item: 'a' filter { key: 'year' }");
  Same(R"({"item": "a", "filter": {"match": 1}})", "item: 'a' filter { match { integer: 1 } }");
  Same(R"({"item": "a", "filter": {"key": "year", "range": {}}})", "item: 'a' filter { key: 'year' range {} }");
  Same(R"({"item": "a", "filter": {"must": [{"key": "x", "range": {"gt": 1, "lt": "1995-11-22T10:00:00Z"}}]}})",
       "item: 'a' filter { must { key: 'x' range { gt { integer: 1 } lt { text: '1995-11-22T10:00:00Z' } } } }");
  Same(R"({"item": "a", "filter": {"must": [], "key": "x", "match": 1, "must_not": [{}]}})",
       "item: 'a' filter { key: 'x' match { integer: 1 } must_not {} }");
  std::string json = R"({"key": "x", "match": 1})";
  std::string text = "key: 'x' match { integer: 1 }";
  for (int depth = 0; depth < 9; ++depth) {
    json = StrCat(R"({"must": [)", json, "]}");
    text = StrCat("must { ", text, " }");
  }
  Same(StrCat(R"({"item": "a", "filter": )", json, "}"), StrCat("item: 'a' filter { ", text, " }"));
  // In either protocol the vector is not of finite numbers: JSON has no other way to say so.
  Same(R"({"vector": [1, 1e39]})", "vector: 1 vector: inf");
}

// What JSON cannot say.
TEST_F(GrpcRecallTest, WhatOnlyMessagesCanSayIsRefused) {
  const auto refused = [this](const std::string& text, const std::string& pointer) {
    const grpc::Status status = Recall(Parse<v1::RecallRequest>(text));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << text;
    EXPECT_EQ(DetailsOf(status).pointer, pointer) << status.error_message();
  };
  refused("vector: 1 vector: nan", "/vector/1");
  refused("item: 'a' score_threshold: nan", "/score_threshold");
  refused("item: 'a' weights { similarity: nan }", "/weights/similarity");
  refused("item: 'a' weights { half_life_hours: nan }", "/weights/half_life_hours");
  refused("user { features { values { key: 'age' value { number: inf } } } }", "/user/features");
  refused("user { features { values { key: 'age' value {} } } }", "/user/features");
  refused("user { history { entries { item_id: 'a' value: nan } } }", "/user/history/0/value");
  refused("item: 'a' filter { must { key: 'x' match { number: nan } } }", "/filter/must/0/match");
  refused("item: 'a' filter { must_not {} must_not { key: 'x' range { lt { number: nan } } } }",
          "/filter/must_not/1/range/lt");
  refused("item: 'a' filter { key: 'x' any { values {} } }", "/filter/any");
}

TEST_F(GrpcRecallTest, WhatIsNoMessageOrOfANewerVersionIsRefused) {
  const auto refused = [this](const std::string& bytes, const std::string& method = test::kRecallMethod) {
    const test::RawReply reply = test::CallBytes(channel_, method, bytes);
    EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << reply.status.error_message();
    EXPECT_EQ(DetailsOf(reply.status).reason, "INVALID_REQUEST");
    return reply.status.error_message();
  };
  for (const char* method : {"Recall", "RecallBatch", "Score", "GetItem", "GetUser", "Status"}) {
    const std::string path = StrCat("/freshet.v1.Recall/", method);
    EXPECT_NE(refused("\xff\xff\xff", path).find("the bytes are not a freshet.v1."), std::string::npos) << method;
    // Field 99, a number.
    EXPECT_NE(refused(std::string("\x98\x06\x01", 3), path).find("99"), std::string::npos) << method;
  }
  EXPECT_NE(refused("\x12\x02\xc3\x28").find("UTF-8"), std::string::npos) << "item: not UTF-8";
  // Within the user of field 1: field 99.
  EXPECT_EQ(refused(std::string("\x0a\x03\x98\x06\x01", 5)),
            "/user: the field with the number 99 is not known to this server");
}

// Bytes of requests, changed at random: read or refused, whatever they are.
TEST_F(GrpcRecallTest, AnyBytesAreReadOrRefused) {
  const std::string whole =
      Parse<v1::RecallRequest>(
          "user { id: 'ann' features { values { key: 'tags' value { texts { values: 'x' } } } } history { entries { "
          "item_id: 'a' value: 2 timestamp: 5 } } } item: 'a' items: 'b' vector: 1 k: 5 filter { must { key: 'x' any { "
          "values { integer: 7 } } } should { key: 'y' range { gt { number: 1.5 } } } must_not { key: 'z' prefix: 'p' "
          "} "
          "} max_per { key: 'category' value: 2 } exclude_ids: 'b' params { ef: 9 } weights { recency_of: 'added' } "
          "rerank {} min_as_of: 1 timeout_ms: 5")
          .SerializeAsString();
  std::mt19937_64 random(test::TestSeed());
  const auto below = [&random](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  int read = 0;
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = whole;
    for (std::size_t changes = below(4) + 1; changes > 0; --changes) {
      const std::size_t at = below(bytes.size());
      if (below(4) == 0) {
        bytes.erase(at, below(16));
        if (bytes.empty()) break;
      } else {
        bytes[at] = static_cast<char>(below(256));
      }
    }
    for (const Status& status : {ReadRecallMessage(bytes).status(), ReadScoreMessage(bytes).status(),
                                 ReadBatchMessage(bytes).status(), ReadItemMessage(bytes).status()}) {
      ++(status.ok() ? read : refused);
      if (status.ok()) continue;
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.ToString();
    }
  }
  EXPECT_GT(read, 0);
  EXPECT_GT(refused, 0);
}

TEST_F(GrpcRecallTest, BatchesAreAnsweredEntryByEntry) {
  const HttpReply http = Http("POST", "/v1/recall:batch",
                              R"({"requests": [{"item": "a", "k": 2}, {"item": "nothing"}, {"item": "a", "k": 0}]})");
  ASSERT_EQ(http.status, 200) << http.body;
  grpc::ClientContext context;
  Prepare(&context);
  v1::RecallBatchResponse response;
  const grpc::Status status =
      stub_->RecallBatch(&context,
                         Parse<v1::RecallBatchRequest>(
                             "requests { item: 'a' k: 2 } requests { item: 'nothing' } requests { item: 'a' k: 0 }"),
                         &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.responses_size(), 3);
  ASSERT_TRUE(response.responses(0).has_answer());
  EXPECT_EQ(Timeless(RecallResponseToJson(ResponseOf(response.responses(0).answer()))),
            Timeless(At(http.body, "/responses/0/answer")));
  for (const int i : {1, 2}) {
    ASSERT_TRUE(response.responses(i).has_problem());
    const v1::Problem& problem = response.responses(i).problem();
    const std::string there = StrCat("/responses/", i, "/problem");
    EXPECT_EQ(JsonQuote(problem.type()), At(http.body, there + "/type"));
    EXPECT_EQ(JsonQuote(problem.title()), At(http.body, there + "/title"));
    EXPECT_EQ(JsonQuote(problem.detail()), At(http.body, there + "/detail"));
    EXPECT_EQ(JsonQuote(problem.pointer()), At(http.body, there + "/pointer"));
  }
  EXPECT_EQ(response.responses(1).problem().code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(response.responses(2).problem().code(), grpc::StatusCode::INVALID_ARGUMENT);

  for (const int requests : {0, 129}) {
    v1::RecallBatchRequest many;
    std::string json = R"({"requests": [)";
    for (int i = 0; i < requests; ++i) {
      many.add_requests()->set_item("a");
      json += i == 0 ? R"({"item": "a"})" : R"(, {"item": "a"})";
    }
    grpc::ClientContext another;
    Prepare(&another);
    SameProblem(Http("POST", "/v1/recall:batch", json + "]}"), stub_->RecallBatch(&another, many, &response));
  }
}

TEST_F(GrpcRecallTest, ScoresAreAsOverHttp) {
  const auto same = [this](const std::string& json, const std::string& text) {
    SCOPED_TRACE(json);
    const HttpReply http = Http("POST", "/v1/score", json);
    grpc::ClientContext context;
    Prepare(&context);
    v1::ScoreResponse response;
    const grpc::Status status = stub_->Score(&context, Parse<v1::ScoreRequest>(text), &response);
    if (http.status != 200) return SameProblem(http, status);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ScoreResponse read;
    read.answer = ResponseOf(response.answer());
    read.unknown.assign(response.unknown().begin(), response.unknown().end());
    EXPECT_EQ(Timeless(ScoreResponseToJson(read)), Timeless(http.body));
  };
  same(R"({"user": "ann", "ids": ["a", "nothing", "b"]})", "user { id: 'ann' } ids: 'a' ids: 'nothing' ids: 'b'");
  same(R"({"user": "nobody", "ids": ["b", "c"]})", "user { id: 'nobody' } ids: 'b' ids: 'c'");
  same(R"({"vector": [1, 0], "ids": ["a", "b", "c"], "rerank": true})",
       "vector: 1 vector: 0 ids: 'a' ids: 'b' ids: 'c' rerank: true");
  same(R"({"item": "a", "ids": ["b", "c"], "weights": {"popularity": 3}})",
       "item: 'a' ids: 'b' ids: 'c' weights { popularity: 3 }");
  same(R"({"item": "a", "ids": []})", "item: 'a'");
  same(R"({"ids": ["a"]})", "ids: 'a'");
  same(R"({"item": "a", "ids": ["b", ""]})", "item: 'a' ids: 'b' ids: ''");
}

TEST_F(GrpcRecallTest, WhatIsStoredIsShownAsOverHttp) {
  for (const char* id : {"a", "x", "nothing"}) {
    const HttpReply http = Http("GET", StrCat("/v1/items/", id));
    grpc::ClientContext context;
    Prepare(&context);
    v1::GetItemRequest request;
    request.set_id(id);
    v1::Item item;
    const grpc::Status status = stub_->GetItem(&context, request, &item);
    if (http.status != 200) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
      SameProblem(http, status);
      continue;
    }
    ASSERT_TRUE(status.ok()) << status.error_message();
    ItemView read;
    read.id = item.id();
    read.live = item.live();
    read.not_live = item.not_live();
    read.sequence = item.sequence();
    if (item.has_changed_ms()) read.changed_ms = item.changed_ms();
    read.attributes = AttributesOf(item.attributes());
    read.vector.emplace(item.vector().begin(), item.vector().end());
    read.index_version = item.index_version();
    EXPECT_EQ(ItemViewToJson(read), http.body);
  }
  for (const char* id : {"ann", "nobody"}) {
    const HttpReply http = Http("GET", StrCat("/v1/users/", id));
    grpc::ClientContext context;
    Prepare(&context);
    v1::GetUserRequest request;
    request.set_id(id);
    v1::User user;
    const grpc::Status status = stub_->GetUser(&context, request, &user);
    if (http.status != 200) {
      SameProblem(http, status);
      continue;
    }
    ASSERT_TRUE(status.ok()) << status.error_message();
    UserView read;
    read.id = user.id();
    for (const auto& [name, value] : user.features()) {
      FeatureValue feature = value.number();
      if (value.has_text()) feature = value.text();
      if (value.has_texts()) {
        feature = std::vector<std::string>(value.texts().values().begin(), value.texts().values().end());
      }
      read.state.features.emplace_back(name, std::move(feature));
    }
    std::sort(read.state.features.begin(), read.state.features.end());
    for (const v1::HistoryEntry& entry : user.history()) {
      read.state.history.push_back({entry.item_id(), entry.event(), entry.value(), entry.timestamp()});
    }
    read.state.seen.assign(user.seen().begin(), user.seen().end());
    read.index_version = user.index_version();
    EXPECT_EQ(UserViewToJson(read), http.body);
  }
  // One that is stored, and not in answers.
  replica_.Own(false);
  grpc::ClientContext context;
  Prepare(&context);
  v1::GetItemRequest request;
  request.set_id("a");
  v1::Item item;
  ASSERT_TRUE(stub_->GetItem(&context, request, &item).ok());
  EXPECT_FALSE(item.live());
  EXPECT_EQ(item.not_live(), "partition_elsewhere");
}

TEST_F(GrpcRecallTest, TheStatusIsHttps) {
  grpc::ClientContext context;
  Prepare(&context);
  v1::StatusResponse response;
  ASSERT_TRUE(stub_->Status(&context, {}, &response).ok());
  EXPECT_EQ(response.json(), Http("GET", "/v1/status").body);
}

TEST_F(GrpcRecallTest, AnswersAreCountedByMethodAndCode) {
  ASSERT_TRUE(Recall(test::RequestOfItem("a")).ok());
  EXPECT_FALSE(Recall(test::RequestOfItem("nothing")).ok());
  EXPECT_TRUE(Calls(0));
  EXPECT_EQ(Requests("Recall", "OK"), 1);
  EXPECT_EQ(Requests("Recall", "NOT_FOUND"), 1);
  EXPECT_EQ(metrics_.GetHistogram("freshet_grpc_seconds", "", {{"method", "Recall"}}).Count(), 2);
  EXPECT_EQ(metrics_.GetCounter("freshet_http_requests_total", "", {{"route", "/v1/recall"}, {"code", "200"}}).Value(),
            0)
      << "HTTP's are HTTP's";
}

}  // namespace
}  // namespace freshet
