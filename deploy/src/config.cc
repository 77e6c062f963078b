#include "freshet/deploy/config.h"

#include <array>

#include "config_reader.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"
#include "schema_reader.h"

namespace freshet {
namespace {

using Field = ConfigReader::Field;

void ReadTopic(ConfigReader* reader, const YamlNode& node, const std::string& path, TopicConfig* topic) {
  FormatOptions& format = topic->format;
  reader->Mapping(node, path,
                  {reader->Text("name", &topic->name),
                   reader->Integer("partitions", &topic->partitions, 1, 10'000),
                   reader->Choice("format", {"json", "debezium", "cloudevents", "protobuf", "confluent"},
                                  [&](std::size_t choice) {
                                    format.format = std::array{RecordFormat::kJson, RecordFormat::kDebezium,
                                                               RecordFormat::kCloudEvents, RecordFormat::kProtobuf,
                                                               RecordFormat::kConfluent}[choice];
                                  }),
                   reader->Choice("key_format", {"text", "json", "protobuf"},
                                  [&](std::size_t choice) { format.key_format = static_cast<KeyFormat>(choice); }),
                   {"protobuf",
                    [&](const YamlNode& n) {
                      reader->Mapping(n, path + ".protobuf",
                                      {reader->Text("descriptor_set", &format.protobuf_descriptor_set),
                                       reader->Text("message", &format.protobuf_message),
                                       reader->Text("key_message", &format.protobuf_key_message)});
                    }},
                   {"schema", [&](const YamlNode& n) { ReadSchema(reader, n, path + ".schema", &topic->schema); }}});
  if (const Status status = format.Validate(); !status.ok()) reader->Error(node.line, status.Prefixed(path).message());
}

void ReadAssign(ConfigReader* reader, const YamlNode& node, Config* config) {
  config->assign.clear();
  if (node.IsSequence()) {
    for (const YamlNode& element : node.items) {
      if (const auto partition = reader->ReadInteger(element, "assign", 0, 1'000'000)) {
        config->assign.push_back(static_cast<std::int32_t>(*partition));
      }
    }
    return;
  }
  if (!node.IsScalar() || (node.scalar != "group" && node.scalar != "all")) {
    reader->Error(node.line, "`assign` must be group, all or a list of partitions like [0, 1]");
    return;
  }
  config->assign_all = node.scalar == "all";
}

void ReadKafka(ConfigReader* reader, const YamlNode& node, Config* config) {
  const auto options = [&](const YamlNode& map) {
    if (!map.IsMapping()) {
      reader->Error(map.line, "`librdkafka_options` must map librdkafka properties to values");
      return;
    }
    for (std::size_t i = 0; i < map.members.size(); ++i) {
      const auto& [key, value] = map.members[i];
      if (const Status status = ValidateLibrdkafkaOptions({{key, ""}}); !status.ok()) {
        reader->Error(map.member_lines[i], status.message());
      } else if (const auto text = reader->ReadText(value, key)) {
        if (const Status bounds = ValidateLibrdkafkaOptions({{key, *text}}); !bounds.ok()) {
          reader->Error(map.member_lines[i], bounds.message());
        }
        config->kafka.librdkafka_options[key] = *text;
      }
    }
  };
  reader->Mapping(node, "kafka",
                  {reader->Text("bootstrap_servers", &config->kafka.bootstrap_servers),
                   reader->Text("client_id", &config->kafka.client_id),
                   reader->Text("group_id", &config->group_id),
                   reader->Text("group_instance_id", &config->group_instance_id),
                   {"assign", [&](const YamlNode& n) { ReadAssign(reader, n, config); }},
                   reader->Integer("session_timeout_ms", &config->session_timeout_ms, 1'000, 3'600'000),
                   {"librdkafka_options", options}});
}

void ReadTopics(ConfigReader* reader, const YamlNode& node, Config* config) {
  const auto users = [&](const YamlNode& n) {
    config->users.emplace();
    config->users->name = "users";
    config->users->schema = DefaultSchema(TopicRole::kUsers);
    ReadTopic(reader, n, "topics.users", &*config->users);
  };
  reader->Mapping(
      node, "topics",
      {{"items", [&](const YamlNode& n) { ReadTopic(reader, n, "topics.items", &config->items); }},
       {"interactions", [&](const YamlNode& n) { ReadTopic(reader, n, "topics.interactions", &config->interactions); }},
       {"users", users},
       reader->Flag("create", &config->create_topics)});
}

void ReadRegistry(ConfigReader* reader, const YamlNode& node, RegistryOptions* registry) {
  reader->Mapping(node, "schema_registry",
                  {reader->Text("url", &registry->url), reader->Text("username", &registry->username),
                   reader->Text("password", &registry->password), reader->Text("ca_file", &registry->ca_file),
                   reader->Integer("timeout_ms", &registry->timeout_ms, 1, 60'000)});
  if (const Status status = registry->Validate(); !status.ok()) reader->Error(node.line, status.message());
}

void ReadEncoder(ConfigReader* reader, const YamlNode& node, Config* config) {
  EncoderConfig& encoder = config->encoder;
  reader->Mapping(
      node, "encoder",
      {reader->Choice("kind", {"model", "passthrough"}, [&](std::size_t choice) { encoder.passthrough = choice == 1; }),
       reader->Text("package", &encoder.package), reader->Text("allowed_root", &encoder.allowed_root),
       reader->Integer("dim", &encoder.dim, 1, 4096),
       reader->Choice("metric", {"cosine", "ip", "l2"},
                      [&](std::size_t choice) {
                        encoder.metric = std::array{Metric::kCosine, Metric::kInnerProduct, Metric::kL2}[choice];
                      }),
       reader->Integer("threads", &encoder.threads, 1, 256), reader->Section("device", [&](const YamlNode& value) {
         const auto text = reader->ReadText(value, "device");
         if (!text) return;
         if (const Result<Device> device = ParseDevice(*text); device.ok()) {
           encoder.device = *device;
         } else {
           reader->Error(value.line, device.status().message());
         }
       })});
}

void ReadStages(ConfigReader* reader, Config* config, std::vector<Field>* fields) {
  fields->push_back({"log", [reader, config](const YamlNode& node) {
                       reader->Mapping(
                           node, "log",
                           {reader->Choice("format", {"human", "json"},
                                           [&](std::size_t choice) {
                                             config->log_format = choice == 0 ? LogFormat::kHuman : LogFormat::kJson;
                                           }),
                            reader->Choice("level", {"debug", "info", "warning", "error"}, [&](std::size_t choice) {
                              config->log_level = static_cast<LogLevel>(choice);
                            })});
                     }});
  fields->push_back({"batch", [reader, config](const YamlNode& node) {
                       reader->Mapping(node, "batch",
                                       {reader->Integer("max_records", &config->ingest.max_batch_records, 1, 100'000),
                                        reader->Integer("max_bytes", &config->ingest.max_batch_bytes, 1024),
                                        reader->Integer("linger_ms", &config->ingest.linger_ms, 0, 60'000),
                                        reader->Integer("decode_threads", &config->ingest.decode_threads, 1, 64)});
                     }});
  fields->push_back({"queues", [reader, config](const YamlNode& node) {
                       reader->Mapping(node, "queues",
                                       {reader->Integer("max_batches", &config->queue_max_batches, 1, 10'000),
                                        reader->Integer("max_bytes", &config->queue_max_bytes, 1024)});
                     }});
  fields->push_back(
      {"index", [reader, config](const YamlNode& node) {
         reader->Mapping(
             node, "index",
             {reader->Integer("m", &config->index.m, 2, 128),
              reader->Integer("ef_construction", &config->index.ef_construction, 2, 4096),
              reader->Choice("rerank", {"fp32", "fp16", "residual8"},
                             [&](std::size_t choice) { config->index.rerank = static_cast<Rerank>(choice); }),
              reader->Integer("link_threads", &config->index.link_threads, 1, 256),
              reader->Integer("capacity", &config->index.capacity, 64, 1'000'000'000),
              reader->Integer("max_fresh", &config->index.max_fresh, 1),
              reader->Text("rerank_directory", &config->index.rerank_directory),
              reader->Number("min_live_fraction", &config->index.min_live_fraction, 0.1, 0.99),
              reader->Number("min_recall", &config->index.min_recall, 0, 0.99),
              reader->Number("max_unreachable", &config->index.max_unreachable, 0, 1),
              reader->Integer("max_memory_bytes", &config->index.max_memory_bytes, 0),
              reader->Number("rebuild_cpu_share", &config->index.rebuild_cpu_share, 0.05, 1)});
       }});
  fields->push_back(
      {"store", [reader, config](const YamlNode& node) {
         reader->Mapping(
             node, "store",
             {reader->Choice("durability", {"wal", "sync", "interval"},
                             [&](std::size_t choice) { config->store.durability = static_cast<Durability>(choice); }),
              reader->Integer("interval_ms", &config->store.sync_interval_ms, 1, 60'000),
              reader->Choice("vectors", {"fp32", "fp16"},
                             [&](std::size_t choice) { config->store.vectors = static_cast<VectorType>(choice); }),
              reader->Integer("history", &config->applier.history, 1, 10'000),
              reader->Integer("seen", &config->applier.seen, 1, 100'000),
              reader->Integer("cache_bytes", &config->store.cache_bytes, 8 << 20),
              reader->Integer("write_buffer_bytes", &config->store.write_buffer_bytes, 1 << 20),
              reader->Integer("audit_interval_seconds", &config->audit_interval_seconds, 0, 30 * 86'400),
              reader->Integer("compaction_bytes_per_second", &config->store.compaction_bytes_per_second, 0)});
       }});
}

void ReadSnapshots(ConfigReader* reader, const YamlNode& node, Config* config) {
  SnapshotOptions& snapshots = config->snapshots;
  const auto keep = [&](const YamlNode& n) {
    reader->Mapping(n, "snapshots.keep",
                    {reader->Integer("count", &snapshots.keep.max_count, 1, 100'000),
                     {"hours",
                      [&](const YamlNode& value) {
                        if (const auto hours = reader->ReadInteger(value, "hours", 0, 1'000'000)) {
                          snapshots.keep.max_age_ms = *hours * 3'600'000;
                        }
                      }},
                     reader->Integer("bytes", &snapshots.keep.max_bytes, 0)});
  };
  reader->Mapping(node, "snapshots",
                  {reader->Text("directory", &snapshots.directory, true),
                   reader->Integer("interval_seconds", &snapshots.interval_seconds, 0, 30 * 86'400),
                   reader->Integer("records", &snapshots.records, 0),
                   reader->Integer("wal_bytes", &snapshots.wal_bytes, 0),
                   reader->Flag("at_stop", &snapshots.at_stop),
                   reader->Integer("bytes_per_second", &snapshots.bytes_per_second, 0),
                   {"keep", keep}});
}

Field TlsSection(ConfigReader* reader, const std::string& path, HttpTls* tls) {
  return reader->Section("tls", [reader, path, tls](const YamlNode& node) {
    reader->Mapping(node, path,
                    {reader->Text("certificate", &tls->certificate), reader->Text("key", &tls->key),
                     reader->Text("client_ca", &tls->client_ca)});
  });
}

void ReadServing(ConfigReader* reader, Config* config, std::vector<Field>* fields) {
  fields->push_back({"snapshots", [reader, config](const YamlNode& node) { ReadSnapshots(reader, node, config); }});
  fields->push_back({"changelog", [reader, config](const YamlNode& node) {
                       reader->Mapping(node, "changelog",
                                       {reader->Flag("enabled", &config->changelog),
                                        reader->Text("vectors_topic", &config->publisher.vectors_topic),
                                        reader->Text("user_events_topic", &config->publisher.user_events_topic),
                                        reader->Integer("partitions", &config->changelog_partitions, 1, 10'000),
                                        reader->Integer("outbox_max_bytes", &config->applier.outbox_max_bytes, 1 << 20),
                                        reader->Integer("progress_interval_ms", &config->publisher.progress_interval_ms,
                                                        10, 60'000)});
                     }});
  fields->push_back(
      {"query", [reader, config](const YamlNode& node) {
         config->serve = true;
         reader->Mapping(
             node, "query",
             {reader->Text("listen", &config->http.listen), reader->Text("grpc_listen", &config->http.grpc_listen),
              reader->Text("token_file", &config->http.token_file), TlsSection(reader, "query.tls", &config->http.tls),
              reader->Integer("threads", &config->http.threads, 1, 256),
              reader->Integer("max_connections", &config->http.max_connections, 1, 65'536),
              reader->Integer("max_queued", &config->http.max_queued, 0, 65'536),
              reader->Integer("max_waiting", &config->http.max_waiting, 0, 65'536),
              reader->Flag("access_log", &config->http.access_log),
              reader->Integer("write_timeout_ms", &config->http.write_timeout_ms, 1, 600'000),
              reader->Integer("header_timeout_ms", &config->http.header_timeout_ms, 1, 600'000),
              reader->Integer("idle_timeout_ms", &config->http.idle_timeout_ms, 1, 3'600'000),
              reader->Integer("request_timeout_ms", &config->http.request_timeout_ms, 1, 30'000)});
       }});
  fields->push_back({"admin", [reader, config](const YamlNode& node) {
                       HttpOptions& admin = config->admin.emplace();
                       admin.threads = 1;
                       admin.max_connections = 32;
                       reader->Mapping(
                           node, "admin",
                           {reader->Text("listen", &admin.listen), reader->Text("token_file", &admin.token_file),
                            TlsSection(reader, "admin.tls", &admin.tls)});
                     }});
  fields->push_back({"ready", [reader, config](const YamlNode& node) {
                       reader->Mapping(node, "ready",
                                       {reader->Integer("max_lag_seconds", &config->max_lag_seconds, 1, 86'400),
                                        reader->Integer("max_lag_records", &config->max_lag_records, 0)});
                     }});
}

// Keys that are written with dots at the top level, as Kafka Connect names them.
bool IsDottedKey(std::string_view path) { return path.rfind("errors.", 0) == 0; }

Status ApplyOverride(const std::string& text, YamlNode* root) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return ConfigError(StrCat("--set ", text, ": must be key.path=value"));
  }
  const std::string path = text.substr(0, equals);
  FRESHET_ASSIGN(YamlNode value, ParseYaml(text.substr(equals + 1), "--set " + path));
  if (value.kind == YamlNode::Kind::kNull) value.kind = YamlNode::Kind::kScalar;
  YamlNode* node = root;
  for (const std::string& key : IsDottedKey(path) ? std::vector<std::string>{path} : Split(path, '.')) {
    if (node->kind == YamlNode::Kind::kNull) node->kind = YamlNode::Kind::kMapping;
    if (!node->IsMapping()) return ConfigError(StrCat("--set ", path, ": `", key, "` is below a single value"));
    YamlNode* child = nullptr;
    for (auto& [name, member] : node->members) {
      if (name == key) child = &member;
    }
    if (child == nullptr) {
      node->members.emplace_back(key, YamlNode{});
      node->member_lines.push_back(0);
      child = &node->members.back().second;
    }
    node = child;
  }
  *node = std::move(value);
  return Status::Ok();
}

}  // namespace

Config::Config() {
  items.name = "items";
  items.schema = DefaultSchema(TopicRole::kItems);
  interactions.name = "interactions";
  interactions.schema = DefaultSchema(TopicRole::kInteractions);
  dead_letters.topic = "dead-letters";
}

Result<Config> ParseConfig(const std::string& text, const std::string& name,
                           const std::vector<std::string>& overrides) {
  FRESHET_ASSIGN(YamlNode root, ParseYaml(text, name));
  for (const std::string& override_text : overrides) FRESHET_TRY(ApplyOverride(override_text, &root));
  Config config;
  ConfigReader reader(name);
  std::vector<Field> fields = {
      reader.Text("data_dir", &config.data_dir),
      {"kafka", [&](const YamlNode& node) { ReadKafka(&reader, node, &config); }},
      {"topics", [&](const YamlNode& node) { ReadTopics(&reader, node, &config); }},
      {"schema_registry", [&](const YamlNode& node) { ReadRegistry(&reader, node, &config.registry); }},
      {"encoder", [&](const YamlNode& node) { ReadEncoder(&reader, node, &config); }},
      reader.Choice("errors.tolerance", {"all", "none"},
                    [&](std::size_t choice) { config.dead_letters.tolerate = choice == 0; }),
      reader.Text("errors.deadletterqueue.topic.name", &config.dead_letters.topic, true),
      reader.Flag("errors.deadletterqueue.context.headers.enable", &config.dead_letters.context_headers)};
  ReadStages(&reader, &config, &fields);
  ReadServing(&reader, &config, &fields);
  reader.Mapping(root, "", fields);
  if (!config.encoder.passthrough && config.encoder.package.empty() && reader.errors().empty()) {
    reader.Error(1, "`encoder.package` must name a model package (or `encoder.kind: passthrough`)");
  }
  for (const Status& status : {config.ingest.Validate(), config.publisher.Validate(), config.http.Validate(),
                               config.admin ? config.admin->Validate().Prefixed("admin") : Status::Ok()}) {
    if (!status.ok()) reader.Error(1, status.message());
  }
  if (!reader.errors().empty()) {
    std::string all;
    for (const std::string& error : reader.errors()) all += (all.empty() ? "" : "\n") + error;
    return ConfigError(all);
  }
  return config;
}

Result<Config> LoadConfig(const std::string& path, const std::vector<std::string>& overrides) {
  const auto text = ReadFile(path, std::size_t{1} << 20);
  if (!text.ok()) return ConfigError(text.status().message());
  return ParseConfig(*text, path, overrides);
}

}  // namespace freshet
