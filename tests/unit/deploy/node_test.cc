#include "node.h"

#include <gtest/gtest.h>

#include "freshet/core/strings.h"
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
