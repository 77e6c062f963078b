// The commands on deploy/docs/producers.md do what the page says, on Apache Kafka. Its configurations and records are
// tested without one: tests/unit/deploy/producers_doc_test.cc.
#include <algorithm>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr int kWaitMs = 60'000;
constexpr std::string_view kGives = "  # gives ";

class ProducersPageTest : public ::testing::Test {
 protected:
  ProducersPageTest() : broker_(dir_ / "kafka") {}
  std::string Run(const std::string& line) const {
    std::string out;
    EXPECT_EQ(RunCommand({"env", "BROKER=" + broker_.bootstrap_servers(), "bash", "-c", line}, &out), 0) << line;
    return out;
  }
  [[nodiscard]] std::size_t Letters() const {
    const std::string letters = Run(R"(kcat -C -b "$BROKER" -t dead-letters -e -q -f '%o\n')");
    return static_cast<std::size_t>(std::count(letters.begin(), letters.end(), '\n'));
  }

  TempDir dir_;
  KafkaBroker broker_;
};

TEST_F(ProducersPageTest, EveryCommandGivesWhatThePageSays) {
  const auto config = ParseConfig(EngineYaml(broker_.bootstrap_servers(), dir_ / "engine"), "engine.yaml", {});
  ASSERT_OK(config);
  const auto engine = Engine::Start(*config);
  ASSERT_OK(engine);
  const Catalog& catalog = (*engine)->applier().catalog();
  const auto page = ReadFile(SourceRoot() + "/deploy/docs/producers.md", std::size_t{1} << 20);
  ASSERT_OK(page);
  bool shell = false;
  std::size_t commands = 0;
  std::size_t poison = 0;
  for (const std::string& line : Split(*page, '\n')) {
    if (line.starts_with("```")) {
      shell = line == "```sh";
      continue;
    }
    if (!shell) continue;
    SCOPED_TRACE(line);
    ++commands;
    const std::string out = Run(line);
    const std::size_t at = line.find(kGives);
    if (at == std::string::npos) {
      EXPECT_NE(out.find("__connect.errors.exception.message"), std::string::npos) << out;
      continue;
    }
    const std::string gives = line.substr(at + kGives.size());
    const std::vector<std::string> words = Split(gives, ' ');
    if (gives == "poison") {
      ++poison;
      EXPECT_TRUE(WaitFor([&] { return Letters() == poison; }, kWaitMs));
    } else if (words.front() == "item") {
      EXPECT_TRUE(WaitFor([&] { return catalog.LabelOf(words.back()).has_value(); }, kWaitMs));
    } else {
      EXPECT_TRUE(gives.starts_with("delete of item ")) << gives;
      EXPECT_TRUE(WaitFor([&] { return !catalog.LabelOf(words.back()).has_value(); }, kWaitMs));
    }
  }
  EXPECT_GE(commands, 8U);
  EXPECT_EQ(Letters(), poison);
  ASSERT_OK((*engine)->Stop());
}

}  // namespace
}  // namespace freshet::test
