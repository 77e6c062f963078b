// The configuration file: YAML in, the options of every stage out.
//
// Place in the flow: read once by `run`, `sidecar` and `config check`. One file format for both roles; a section that a
// role does not use is allowed. Every key is declared once, in config.cc, with its default and range. Unknown and
// duplicate keys and values out of range are all reported at once, each with file, line and what to write instead.
// ${env:NAME} and ${file:PATH} in a value are replaced; secrets come that way and are never printed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/log.h"
#include "freshet/core/status.h"
#include "freshet/encoder/device.h"
#include "freshet/indexer/index.h"
#include "freshet/ingest/dead_letters.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/ingest_stage.h"
#include "freshet/ingest/kafka.h"
#include "freshet/ingest/schema_registry.h"
#include "freshet/query/http_server.h"
#include "freshet/store/applier.h"
#include "freshet/store/publisher.h"
#include "freshet/store/snapshotter.h"
#include "freshet/store/store.h"

namespace freshet {

struct TopicConfig {
  std::string name;
  std::int32_t partitions = 4;  // only where it has to be created
  FormatOptions format;
  SchemaMap schema;
};

struct EncoderConfig {
  bool passthrough = false;
  std::string package;
  std::string allowed_root;  // empty: the package's parent directory
  int dim = 128;             // passthrough
  Metric metric = Metric::kCosine;
  int threads = 1;
  Device device = {};
};

struct Config {
  std::string data_dir = "./data";
  LogFormat log_format = LogFormat::kHuman;
  LogLevel log_level = LogLevel::kInfo;

  KafkaOptions kafka;
  std::string group_id = "freshet";
  std::string group_instance_id = "freshet-0";
  bool assign_all = false;
  int session_timeout_ms = 10'000;
  std::vector<std::int32_t> assign;

  TopicConfig items;
  TopicConfig interactions;
  std::optional<TopicConfig> users;
  bool create_topics = false;
  RegistryOptions registry;  // `schema_registry:`; no url: none

  DeadLetterOptions dead_letters;
  EncoderConfig encoder;
  IngestOptions ingest;
  std::size_t queue_max_batches = 8;
  std::size_t queue_max_bytes = std::size_t{64} << 20;
  HnswOptions index;
  StoreOptions store;  // directory, space, dimension and metric come from elsewhere
  ApplierOptions applier;

  int audit_interval_seconds = 600;  // 0: never
  int changelog_check_ms = 30'000;   // how often it is asked whether the changelog is this engine's alone; no key
  SnapshotOptions snapshots;

  bool changelog = true;
  std::int32_t changelog_partitions = 4;
  PublisherOptions publisher;

  bool serve = false;  // a `query:` section is there
  HttpOptions http;
  std::optional<HttpOptions> admin;  // an `admin:` section is there
  // /readyz: at most so far behind the log.
  int max_lag_seconds = 10;
  std::int64_t max_lag_records = 100'000;  // 0: no bound

  Config();
};

// `overrides` are "key.path=value", applied after the file. Errors: kConfig, one line per mistake.
[[nodiscard]] Result<Config> LoadConfig(const std::string& path, const std::vector<std::string>& overrides);
[[nodiscard]] Result<Config> ParseConfig(const std::string& text, const std::string& name,
                                         const std::vector<std::string>& overrides);

}  // namespace freshet
