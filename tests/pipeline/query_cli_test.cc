// `freshet query` as a person uses it, against a live server.
#include <gtest/gtest.h>

#include <csignal>

#include "fake_replica.h"
#include "freshet/query/http_server.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

class QueryCliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    replica_.Put("first", {0.9F, 0}, {{"title", std::string("The first")}});
    replica_.Put("second", {0.5F, 0}, {{"kind", std::string("x")}});
    replica_.users["ann"].history = {{"x", "view", 1, 0}};  // looks along (1, 0)
    ASSERT_OK(WriteFileAtomically(dir_ / "vector.json", "[1, 0]"));
  }
  void StartServer() {
    // One thread answers, so that what happens in on_encode meets nobody who reads.
    options_.threads = 1;
    server_ = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    ASSERT_OK(server_->Start());
    options_.listen = server_->address();
  }
  [[nodiscard]] std::vector<std::string> Command(const std::vector<std::string>& arguments) const {
    std::vector<std::string> command = {FreshetBinary(), "query", "--address", options_.listen};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
  }
  std::string Run(const std::vector<std::string>& arguments, int exit_code = 0) {
    std::string out;
    EXPECT_EQ(RunCommand(Command(arguments), &out), exit_code);
    return out;
  }

  TempDir dir_;
  FakeReplica replica_;
  FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
  HttpOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(QueryCliTest, PrintsATableOrTheAnswer) {
  StartServer();
  const std::string table = "rank    score  id      title\n   1   0.9000  first   The first\n   2   0.5000  second  \n";
  EXPECT_EQ(Run({"--vector-file", dir_ / "vector.json"}), table);
  const std::string json = Run({"--vector-file", dir_ / "vector.json", "--json"});
  EXPECT_EQ(json.find(R"({"results":[{"id":"first","score":0.9},{"id":"second","score":0.5}],"index_version":7,)"), 0U)
      << json;
  EXPECT_NE(Run({"--item", "first", "--filter", "kind = 'x'"}).find("second"), std::string::npos);
}

TEST_F(QueryCliTest, AsksInBinary) {
  StartServer();
  const auto without_time = [](const std::string& json) { return json.substr(0, json.find("\"took_ms\"")); };
  EXPECT_EQ(without_time(Run({"--vector-file", dir_ / "vector.json", "--json", "--binary"})),
            without_time(Run({"--vector-file", dir_ / "vector.json", "--json"})));
  EXPECT_EQ(Run({"--item", "first", "--binary"}, 1), "");
  EXPECT_EQ(Run({"--vector-file", dir_ / "vector.json", "--binary", "--filter", "kind = 'x'"}, 1), "");
}

TEST_F(QueryCliTest, BlendsScores) {
  replica_.popular = {{"second", 100}};
  StartServer();
  const std::string table = Run({"--vector-file", dir_ / "vector.json", "--weight", "popularity=1"});
  EXPECT_LT(table.find("second"), table.find("first")) << table;
  EXPECT_EQ(Run({"--item", "first", "--weight", "popularity"}, 1), "");
  EXPECT_EQ(Run({"--item", "first", "--weight", "popularity=x"}, 1), "");
}

TEST_F(QueryCliTest, WatchesWhatChanges) {
  int answers = 0;
  encoder_.on_encode = [&](const UserContext&) {  // once a question
    if (++answers == 3) replica_.Put("new", {0.7F, 0});
    if (answers == 5) replica_.Delete("first");
  };
  StartServer();
  EXPECT_EQ(Run({"--user", "ann", "--watch", "--interval-ms", "10", "--count", "8"}),
            "rank    score  id      title\n   1   0.9000  first   The first\n   2   0.5000  second  \n"
            "\n"
            "rank    score  id      title\n   1   0.9000  first   The first\n   2 + 0.7000  new     \n   3 v 0.5000  "
            "second  \n"
            "\n"
            "rank    score  id      title\n   1 ^ 0.7000  new     \n   2 ^ 0.5000  second  \ngone: first\n");
}

TEST_F(QueryCliTest, WatchesInJsonALineForEachAnswer) {
  StartServer();
  const std::string lines =
      Run({"--vector-file", dir_ / "vector.json", "--watch", "--interval-ms", "10", "--count", "3", "--json"});
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 3);
}

TEST_F(QueryCliTest, WatchingGoesOnWhenTheServerReturns) {
  StartServer();
  Process watch(Command({"--vector-file", dir_ / "vector.json", "--watch", "--interval-ms", "10", "--json"}),
                dir_ / "log");
  const auto log = [&] {
    const auto text = ReadFile(dir_ / "log", std::size_t{1} << 26);
    return text.ok() ? *text : std::string();
  };
  ASSERT_TRUE(WaitFor([&] { return log().find("index_version") != std::string::npos; }));
  server_->Stop();
  server_.reset();
  ASSERT_TRUE(WaitFor([&] { return log().find("no answer: ") != std::string::npos; }));
  replica_.version = 4711;
  StartServer();
  EXPECT_TRUE(WaitFor([&] { return log().find("\"index_version\":4711") != std::string::npos; }));
  EXPECT_TRUE(watch.running());
  watch.Signal(SIGINT);
  EXPECT_EQ(watch.Wait(30'000), 128 + SIGINT);
}

TEST_F(QueryCliTest, AWatchThatCannotBeginSaysSo) {
  options_.listen = "127.0.0.1:1";
  EXPECT_EQ(Run({"--item", "first", "--watch"}, 69), "");
}

TEST_F(QueryCliTest, AWatchOfWhatDoesNotExistEnds) {
  StartServer();
  EXPECT_EQ(Run({"--item", "nobody", "--watch"}, 1), "");
}

}  // namespace
}  // namespace freshet::test
