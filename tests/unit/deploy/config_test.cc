#include "freshet/deploy/config.h"

#include <cstdlib>

#include "freshet/core/file.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr char kMinimal[] = "encoder: {kind: passthrough, dim: 8}\n";

TEST(Config, DefaultsAreEnoughWithAnEncoder) {
  const auto config = ParseConfig(kMinimal, "f.yaml", {});
  ASSERT_OK(config);
  EXPECT_EQ(config->items.name, "items");
  EXPECT_FALSE(config->users);
  EXPECT_TRUE(config->changelog);
  EXPECT_FALSE(config->serve);
  EXPECT_EQ(config->http.listen, "127.0.0.1:0");
  EXPECT_TRUE(config->dead_letters.tolerate);
}

TEST(Config, EveryMistakeAtOnceWithLineAndNearestKey) {
  const auto config = ParseConfig(
      "kafka:\n"
      "  bootstrap_server: x\n"       // 2: slip
      "  session_timeout_ms: fast\n"  // 3: no number
      "batch: {max_records: 0}\n"     // 4: out of range
      "encoder: {kind: magic}\n"      // 5: no such choice
      "errors.tolerance: some\n"      // 6
      "no_such_thing: 1\n",           // 7
      "f.yaml", {});
  ASSERT_EQ(config.status().code(), Code::kConfig);
  const std::string& message = config.status().message();
  for (const char* part : {"f.yaml:2: unknown key `bootstrap_server` in `kafka`; did you mean `bootstrap_servers`?",
                           "f.yaml:3:", "f.yaml:4: `max_records` must be a whole number, 1 to 100000",
                           "f.yaml:5: `kind` must be model or passthrough",
                           "f.yaml:6:", "f.yaml:7: unknown key `no_such_thing`; known are "}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << "\n in \n" << message;
  }
}

TEST(Config, TowersRunOnTheDeviceThatIsNamed) {
  const auto automatic = ParseConfig(kMinimal, "f.yaml", {});
  ASSERT_OK(automatic);
  EXPECT_EQ(automatic->encoder.device.kind, Device::Kind::kAuto);
  const auto config = ParseConfig(kMinimal, "f.yaml", {"encoder.device=cuda:1"});
  ASSERT_OK(config);
  EXPECT_EQ(config->encoder.device, (Device{Device::Kind::kCuda, 1}));
  const Status status = ParseConfig("encoder:\n  device: gpu\n", "f.yaml", {}).status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("f.yaml:2: `gpu` is no device"), std::string::npos) << status.message();
}

TEST(Config, BoundsOfTheIndexAreRead) {
  const auto config =
      ParseConfig(kMinimal, "f.yaml",
                  {"index.max_unreachable=0.25", "index.max_memory_bytes=1000", "index.rebuild_cpu_share=0.05"});
  ASSERT_OK(config);
  EXPECT_EQ(config->index.max_unreachable, 0.25);
  EXPECT_EQ(config->index.max_memory_bytes, 1000U);
  EXPECT_EQ(config->index.rebuild_cpu_share, 0.05);
  EXPECT_EQ(ParseConfig(kMinimal, "f.yaml", {"index.max_unreachable=1.5"}).status().code(), Code::kConfig);
}

TEST(Config, DuplicateKeysAreErrorsWithTheirLine) {
  const auto config = ParseConfig("data_dir: a\ndata_dir: b\n", "f.yaml", {});
  ASSERT_EQ(config.status().code(), Code::kConfig);
  EXPECT_NE(config.status().message().find("f.yaml:2: duplicate key `data_dir`"), std::string::npos)
      << config.status().message();
}

TEST(Config, OverridesReachNestedAndDottedKeys) {
  const auto config = ParseConfig(kMinimal, "f.yaml",
                                  {"kafka.bootstrap_servers=h:1", "kafka.assign=[0, 2]", "errors.tolerance=none",
                                   "query.listen=127.0.0.1:9", "topics.items.schema.category=/cat"});
  ASSERT_OK(config);
  EXPECT_EQ(config->kafka.bootstrap_servers, "h:1");
  EXPECT_EQ(config->assign, (std::vector<std::int32_t>{0, 2}));
  EXPECT_FALSE(config->dead_letters.tolerate);
  EXPECT_TRUE(config->serve);
  EXPECT_EQ(config->items.schema.category, "/cat");
  EXPECT_EQ(ParseConfig(kMinimal, "f.yaml", {"kafka.bootstrap=h"}).status().code(), Code::kConfig);
  EXPECT_EQ(ParseConfig(kMinimal, "f.yaml", {"nonsense"}).status().code(), Code::kConfig);
}

TEST(Config, TopicsSayHowTheirRecordsAreWritten) {
  const auto config = ParseConfig(std::string(kMinimal) + R"(
topics:
  items:
    format: debezium
    schema: {attribute_types: {year: int, tags: texts}}
  interactions:
    format: cloudevents
    key_format: json
    schema: {timestamp: /at, timestamp_format: rfc3339}
)",
                                  "f.yaml", {});
  ASSERT_OK(config);
  EXPECT_EQ(config->items.format.format, RecordFormat::kDebezium);
  EXPECT_FALSE(config->items.format.key_format.has_value());
  EXPECT_EQ(config->items.schema.attribute_types,
            (std::map<std::string, AttributeType>{{"tags", AttributeType::kTexts}, {"year", AttributeType::kInt}}));
  EXPECT_EQ(config->interactions.format.format, RecordFormat::kCloudEvents);
  EXPECT_EQ(config->interactions.format.key_format, KeyFormat::kJson);
  EXPECT_EQ(config->interactions.schema.timestamp_format, TimestampFormat::kRfc3339);
  const auto registry = ParseConfig(std::string(kMinimal) + R"(
topics:
  items: {format: confluent, key_format: protobuf, protobuf: {descriptor_set: shop.desc, key_message: shop.Key}}
  interactions: {format: protobuf, protobuf: {descriptor_set: shop.desc, message: shop.View}}
batch: {decode_threads: 3}
schema_registry: {url: "https://r:8081", username: u, password: p, timeout_ms: 100}
)",
                                    "f.yaml", {});
  ASSERT_OK(registry);
  EXPECT_EQ(registry->items.format.format, RecordFormat::kConfluent);
  EXPECT_EQ(registry->items.format.key_format, KeyFormat::kProtobuf);
  EXPECT_EQ(registry->items.format.protobuf_key_message, "shop.Key");
  EXPECT_EQ(registry->interactions.format.protobuf_message, "shop.View");
  EXPECT_EQ(registry->ingest.decode_threads, 3U);
  EXPECT_EQ(registry->registry.url, "https://r:8081");
  EXPECT_EQ(registry->registry.timeout_ms, 100);
  for (const char* wrong :
       {"schema_registry.timeout_ms=5", "schema_registry.url=r:8081", "topics.items.format=xml",
        "topics.items.key_format=avro", "batch.decode_threads=0", "topics.items.key_format=protobuf",
        "topics.items={format: protobuf, protobuf: {message: shop.Item}}",
        "topics.items={format: protobuf, protobuf: {descriptor_set: shop.desc}}",
        "topics.items.schema.attribute_types={year: integer}", "topics.items.schema.attribute_types=int",
        "topics.items.schema.timestamp_format=ns"}) {
    EXPECT_EQ(ParseConfig(kMinimal, "f.yaml", {wrong}).status().code(), Code::kConfig) << wrong;
  }
}

TEST(Config, EnvironmentIsExpandedAndAMissingVariableIsNamed) {
  ::setenv("FRESHET_TEST_SECRET", "s3cret", 1);
  const std::string yaml =
      std::string(kMinimal) + "kafka: {librdkafka_options: {sasl.password: \"${env:FRESHET_TEST_SECRET}\"}}\n";
  const auto config = ParseConfig(yaml, "f.yaml", {});
  ASSERT_OK(config);
  EXPECT_EQ(config->kafka.librdkafka_options.at("sasl.password"), "s3cret");
  const auto missing = ParseConfig(std::string(kMinimal) + "data_dir: ${env:FRESHET_TEST_UNSET}\n", "f.yaml", {});
  ASSERT_EQ(missing.status().code(), Code::kConfig);
  EXPECT_NE(missing.status().message().find("FRESHET_TEST_UNSET"), std::string::npos);
}

TEST(Config, AFileIsReadWithoutItsLastLineEndAndAMissingOneIsNamed) {
  const test::TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "password", "s3cret $ {x}\n"));
  const std::string yaml =
      std::string(kMinimal) + "kafka: {librdkafka_options: {sasl.password: \"${file:" + (dir / "password") + "}\"}}\n";
  const auto config = ParseConfig(yaml, "f.yaml", {});
  ASSERT_OK(config);
  EXPECT_EQ(config->kafka.librdkafka_options.at("sasl.password"), "s3cret $ {x}");
  const auto missing = ParseConfig(std::string(kMinimal) + "data_dir: ${file:/no/such/file}\n", "f.yaml", {});
  ASSERT_EQ(missing.status().code(), Code::kConfig);
  EXPECT_NE(missing.status().message().find("/no/such/file"), std::string::npos);
  const auto unknown = ParseConfig(std::string(kMinimal) + "data_dir: ${vault:x}\n", "f.yaml", {});
  EXPECT_NE(unknown.status().message().find("${file:PATH}"), std::string::npos);
}

// A secret in the wrong place is a mistake like any other: the message repeats what the file says, not what it stands
// for.
TEST(Config, NoErrorRepeatsASecret) {
  ::setenv("FRESHET_TEST_SECRET", "s3cret", 1);
  for (const char* wrong :
       {"errors.tolerance: ${env:FRESHET_TEST_SECRET}", "topics: {create: \"${env:FRESHET_TEST_SECRET}\"}",
        "batch: {max_records: \"${env:FRESHET_TEST_SECRET}\"}",
        "schema_registry: {url: \"${env:FRESHET_TEST_SECRET}\"}", "kafka: {assign: \"${env:FRESHET_TEST_SECRET}\"}"}) {
    const auto config = ParseConfig(std::string(kMinimal) + wrong + "\n", "f.yaml", {});
    ASSERT_EQ(config.status().code(), Code::kConfig) << wrong;
    EXPECT_EQ(config.status().message().find("s3cret"), std::string::npos) << config.status().message();
  }
}

TEST(Config, KeysThatFreshetOwnsAreRefusedByName) {
  for (const char* key : {"group.id", "enable.auto.commit", "auto.offset.reset", "metadata.broker.list"}) {
    const auto config =
        ParseConfig(std::string(kMinimal) + "kafka: {librdkafka_options: {" + key + ": x}}\n", "f.yaml", {});
    ASSERT_EQ(config.status().code(), Code::kConfig) << key;
    EXPECT_NE(config.status().message().find(key), std::string::npos);
  }
}

TEST(Config, OtherThanLoopbackIsRefused) {
  EXPECT_EQ(ParseConfig(kMinimal, "f.yaml", {"query.listen=0.0.0.0:80"}).status().code(), Code::kConfig);
}

TEST(Config, GrpcIsAskedForByItsAddress) {
  const auto none = ParseConfig(kMinimal, "f.yaml", {});
  ASSERT_OK(none);
  EXPECT_EQ(none->http.grpc_listen, "");
  const auto config = ParseConfig(kMinimal, "f.yaml", {"query.grpc_listen=127.0.0.1:8082"});
  if (config.ok()) {
    EXPECT_EQ(config->http.grpc_listen, "127.0.0.1:8082");
  } else {
    // A build without it says so, and what to do.
    EXPECT_EQ(config.status().code(), Code::kConfig);
    EXPECT_NE(config.status().message().find("grpc_listen: this freshet was built without gRPC"), std::string::npos)
        << config.status().message();
    EXPECT_NE(config.status().message().find("-DFRESHET_GRPC=ON"), std::string::npos);
  }
  const auto open = ParseConfig(kMinimal, "f.yaml", {"query.grpc_listen=0.0.0.0:8082"});
  ASSERT_EQ(open.status().code(), Code::kConfig);
  EXPECT_NE(open.status().message().find("grpc_listen: `0.0.0.0:8082` is not a loopback address"), std::string::npos);
}

TEST(Config, TheDoorsBoundsAreRead) {
  const auto config =
      ParseConfig(kMinimal, "f.yaml", {"query.max_queued=0", "query.write_timeout_ms=600000", "query.access_log=true"});
  ASSERT_OK(config);
  EXPECT_EQ(config->http.max_queued, 0U);
  EXPECT_EQ(config->http.write_timeout_ms, 600'000);
  EXPECT_TRUE(config->http.access_log);
  for (const char* wrong : {"query.max_queued=65537", "query.max_queued=-1", "query.write_timeout_ms=0",
                            "query.write_timeout_ms=600001", "query.access_log=2"}) {
    EXPECT_EQ(ParseConfig(kMinimal, "f.yaml", {wrong}).status().code(), Code::kConfig) << wrong;
  }
}

TEST(Config, TheExamplesAreValid) {
  for (const char* name : {"engine", "sidecar", "demo-engine", "demo-sidecar"}) {
    SCOPED_TRACE(name);
    EXPECT_OK(LoadConfig(test::SourceRoot() + "/deploy/config/" + name + ".yaml", {}));
  }
}

}  // namespace
}  // namespace freshet
