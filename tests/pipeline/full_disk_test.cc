// An engine whose disk is full, as its operator sees it: /readyz says why, answers go on, and so does everything else
// when there is room.
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(60);

TEST(FullDisk, ReadyzSaysSoAnswersGoOnAndNothingIsLost) {
  const TempDir dir;
  ASSERT_OK(CreateDirectories(dir / "disk"));
  auto broker = StartMockBroker();
  ASSERT_OK(broker);
  for (const char* topic : {"items", "interactions", "users", "dead-letters"}) {
    ASSERT_OK((*broker)->CreateTopic(topic, 1));
  }
  KafkaOptions kafka;
  kafka.bootstrap_servers = (*broker)->bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  ASSERT_OK(WriteFileAtomically(dir / "engine.yaml", EngineYaml(kafka.bootstrap_servers, dir / "disk/data") +
                                                         "changelog: {enabled: false}\n"
                                                         "store: {write_buffer_bytes: 1048576}\n"));
  // A disk of its own, in a mount namespace of its own.
  const std::vector<std::string> unshare = ::geteuid() == 0
                                               ? std::vector<std::string>{"unshare", "--mount"}
                                               : std::vector<std::string>{"unshare", "--mount", "--map-root-user"};
  const std::string mount = StrCat("mount -t tmpfs -o size=24m none ", dir / "disk");
  std::vector<std::string> command = unshare;
  command.insert(command.end(), {"sh", "-c", mount});
  if (RunCommand(command, nullptr) != 0) GTEST_SKIP() << "a mount namespace is not allowed here";
  command.back() = StrCat(mount, " && echo $$ > ", dir / "pid", " && exec ", FreshetBinary(), " run --config ",
                          dir / "engine.yaml", " --address-file ", dir / "address");
  Process engine(command, dir / "log");
  ASSERT_TRUE(WaitFor([&] { return FileExists(dir / "address") || !engine.running(); }, kServiceUpMs));
  ASSERT_TRUE(engine.running()) << *ReadFile(dir / "log");
  const std::string address(Trim(*ReadFile(dir / "address")));
  const std::string disk = StrCat("/proc/", Trim(*ReadFile(dir / "pid")), "/root", dir / "disk");

  int sent = 0;
  const auto put = [&] {
    OutRecord record;
    record.topic = "items";
    record.key = StrCat("item-", sent++);
    record.value =
        StrCat(R"({"vector":[)", sent, R"(,1,0,0,0,0,0,0],"attributes":{"text":")", std::string(2'000, 'x'), R"("}})");
    ASSERT_OK((*producer)->Send({record}, kSendTimeout));
  };
  const auto get = [&](const std::string& path) {
    auto reply = HttpCall(address, "GET", path, "", 5'000);
    return reply.ok() ? StrCat(reply->status, " ", reply->body) : reply.status().ToString();
  };
  put();
  ASSERT_TRUE(WaitFor([&] { return get("/readyz").starts_with("200"); }, kServiceUpMs)) << get("/readyz");
  {
    std::ofstream filler(disk + "/filler", std::ios::binary);
    ASSERT_TRUE(filler.is_open()) << disk;
    const std::string block(1 << 16, 'x');
    while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  while (get("/readyz").starts_with("200") && sent < 20'000) put();
  EXPECT_TRUE(get("/readyz").starts_with("503")) << get("/readyz");
  EXPECT_NE(get("/readyz").find("nothing can be committed"), std::string::npos) << get("/readyz");
  EXPECT_NE(get("/metrics").find("\nfreshet_store_blocked 1"), std::string::npos);
  EXPECT_TRUE(get("/livez").starts_with("200")) << get("/livez");
  const auto answer = HttpCall(address, "POST", "/v1/recall", R"({"vector":[1,1,0,0,0,0,0,0],"k":1})", 5'000);
  ASSERT_OK(answer);
  EXPECT_EQ(answer->status, 200) << answer->body;
  EXPECT_NE(answer->body.find("item-"), std::string::npos) << answer->body;

  ASSERT_EQ(::unlink((disk + "/filler").c_str()), 0);
  put();
  ASSERT_TRUE(WaitFor(
      [&] {
        return get("/readyz").starts_with("200") &&
               get("/v1/status").find(StrCat(R"("items_live":)", sent, ",")) != std::string::npos;
      },
      kServiceUpMs))
      << get("/readyz") << "\n"
      << get("/v1/status");
  engine.Signal(SIGTERM);
  EXPECT_EQ(engine.Wait(kServiceUpMs), 0) << *ReadFile(dir / "log");
}

}  // namespace
}  // namespace freshet::test
