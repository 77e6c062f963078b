#include "command_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "freshet/core/file.h"
#include "freshet_test/test_support.h"
#include "schema_reader.h"

namespace freshet {
namespace {

TEST(ParseTimeTest, DatesTimesAndMilliseconds) {
  EXPECT_EQ(ParseTime("1970-01-02"), 86'400'000);
  EXPECT_EQ(ParseTime("1970-01-01T00:01:05Z"), 65'000);
  EXPECT_EQ(ParseTime("1303776000000"), 1'303'776'000'000);
  for (const char* bad : {"", "yesterday", "2011-13-01", "2011-02-30", "2011-01-01T25:00"}) {
    EXPECT_FALSE(ParseTime(bad)) << bad;
  }
}

TEST(SplitArgumentsTest, DatesMeanASplitByTime) {
  SplitArguments arguments;
  EXPECT_EQ(arguments.Read().value().kind, SplitKind::kFraction);
  arguments.validation_from = "2011-06-01";
  arguments.test_from = "2011-07-01";
  const Result<SplitOptions> split = arguments.Read();
  ASSERT_OK(split);
  EXPECT_EQ(split->kind, SplitKind::kTime);
  EXPECT_EQ(split->test_from_ms - split->validation_from_ms, std::int64_t{30} * 86'400'000);
  arguments.kind = "random";
  EXPECT_EQ(arguments.Read().status().code(), Code::kConfig);
  arguments.kind.clear();
  arguments.test_from = "soon";
  EXPECT_NE(arguments.Read().status().message().find("--test-from: `soon`"), std::string::npos);
}

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() {
    command_.add_option("--batch-size", batch_size_)->check(CLI::PositiveNumber);
    command_.add_option("--k", ks_)->delimiter(',');
    command_.add_flag("--masked", masked_);
    command_.add_flag("!--no-page", page_);
    command_.add_option("--weights", weights_);
    AddSplitOptions(&command_, &split_);
  }

  Status Run(const std::string& yaml, std::vector<std::string> arguments) {
    EXPECT_OK(WriteFileAtomically(dir_ / "c.yaml", yaml));
    arguments.insert(arguments.begin(), {"--config", dir_ / "c.yaml"});
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    command_.parse(arguments);
    return config_.Apply();
  }

  const test::TempDir dir_;
  CLI::App command_;
  ConfigFileOption config_{&command_, "train"};
  SplitArguments split_;
  int batch_size_ = 1;
  std::vector<int> ks_;
  std::vector<std::string> weights_;
  bool masked_ = false;
  bool page_ = true;
};

TEST_F(ConfigFileTest, FillsWhatTheCommandLineLeavesOpen) {
  ASSERT_OK(
      Run("split: {kind: time, validation_from: 2011-06-01}\ntrain: {batch_size: 7, k: [1, 2], masked: true}\n"
          "evaluate: {resamples: 5}\n",
          {"--batch-size", "3"}));
  EXPECT_EQ(batch_size_, 3) << "the command line wins";
  EXPECT_EQ(ks_, (std::vector<int>{1, 2}));
  EXPECT_TRUE(masked_);
  EXPECT_EQ(split_.validation_from, "2011-06-01");
  EXPECT_EQ(split_.kind, "time");
}

TEST_F(ConfigFileTest, AFlagSaysWhatItSaysOnTheCommandLine) {
  ASSERT_OK(Run("train: {no_page: true, masked: false}\n", {}));
  EXPECT_FALSE(page_);
  EXPECT_FALSE(masked_);
  command_.clear();
  ASSERT_OK(Run("train: {no_page: false, masked: true}\n", {}));
  EXPECT_TRUE(page_);
  EXPECT_TRUE(masked_);
  command_.clear();
  page_ = true;
  ASSERT_OK(Run("train: {no_page: false}\n", {"--no-page"}));
  EXPECT_FALSE(page_) << "the command line wins";
  command_.clear();
  const Status status = Run("train: {no_page: maybe}\n", {});
  EXPECT_NE(status.message().find("c.yaml:1: "), std::string::npos) << status.message();
}

TEST_F(ConfigFileTest, AMappingIsNamesAndValues) {
  ASSERT_OK(Run("train:\n  weights: {buy: 5, \"a,b\": 0.5}\n", {}));
  EXPECT_EQ(weights_, (std::vector<std::string>{"buy=5", "a,b=0.5"}));
  const Status status = Run("train:\n  batch_size: {a: 1}\n", {});
  EXPECT_NE(status.message().find("c.yaml:2: `batch_size` must be a value"), std::string::npos) << status.message();
}

TEST_F(ConfigFileTest, TellsEveryMistakeWithItsLine) {
  const Status status = Run("train:\n  batchsize: 7\n  batch_size: -1\ntrian: {}\n", {});
  EXPECT_EQ(status.code(), Code::kConfig);
  for (const char* part : {"c.yaml:2: there is no setting `batchsize`: did you mean `batch_size`?",
                           "c.yaml:3: ", "c.yaml:4: there is no section `trian`: did you mean `train`?"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

TEST_F(ConfigFileTest, TheSectionOfTheSchemaIsThatOfATopicOverThePlainForm) {
  CLI::App evaluate;
  EventFileSchemas schemas;
  const ConfigFileOption config(&evaluate, "evaluate", nullptr,
                                [&](const YamlNode& node, const std::string& file) -> Status {
                                  FRESHET_ASSIGN(schemas, FileSchemasFromYaml(node, file));
                                  return Status::Ok();
                                });
  ASSERT_OK(
      Run("schema:\n  items: {item_id: /sku, extra_features: {price: /offer/price}}\n"
          "  interactions: {timestamp_format: s}\n",
          {}));
  std::vector<std::string> arguments = {dir_ / "c.yaml", "--config"};
  evaluate.parse(arguments);
  ASSERT_OK(config.Apply());
  ASSERT_TRUE(schemas.items && schemas.interactions);
  EXPECT_FALSE(schemas.users);
  EXPECT_EQ(schemas.items->item_id, "/sku");
  EXPECT_EQ(schemas.items->features, "/features");
  EXPECT_EQ(schemas.items->extra_features.at("price"), "/offer/price");
  EXPECT_EQ(schemas.interactions->timestamp_format, TimestampFormat::kSeconds);
  EXPECT_EQ(schemas.interactions->timestamp, "/timestamp");
  const auto yaml = ParseYaml("items: {itemid: /sku}\n", "f.yaml");
  ASSERT_OK(yaml);
  const Status status = FileSchemasFromYaml(*yaml, "f.yaml").status();
  EXPECT_NE(status.message().find("f.yaml:1: unknown key `itemid` in `schema.items`; did you mean `item_id`?"),
            std::string::npos)
      << status.message();
}

TEST_F(ConfigFileTest, TheSectionOfFeaturesIsHandedOn) {
  CLI::App train;
  int seen = 0;
  const ConfigFileOption config(&train, "train", [&](const YamlNode& node, const std::string& file) -> Status {
    ++seen;
    return ConfigError(file.substr(file.rfind('/') + 1) + ":" + std::to_string(node.line) + ": of features");
  });
  ASSERT_OK(Run("features: {items: []}\n", {}));  // a command that reads none leaves them alone
  std::vector<std::string> arguments = {dir_ / "c.yaml", "--config"};
  train.parse(arguments);
  const Status status = config.Apply();
  EXPECT_EQ(seen, 1);
  EXPECT_NE(status.message().find("c.yaml:1: of features"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace freshet
