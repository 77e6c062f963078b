// `freshet dead-letters`: what left the stream and why, and back into it once it is repaired.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/deploy/config.h"
#include "freshet/ingest/kafka.h"

namespace freshet {
namespace {

constexpr std::chrono::seconds kConnectTimeout{15};
constexpr std::chrono::seconds kSendTimeout{30};
constexpr std::chrono::milliseconds kPollWait{200};
constexpr std::int64_t kPatienceMs = 60'000;  // without a record or an end
constexpr std::size_t kMaxReasons = 1'000;
constexpr std::size_t kBatchRecords = 500;
constexpr std::int64_t kMaxPartition = 1'000'000;
constexpr std::int64_t kMaxTimestampMs = 253'402'300'799'999;  // the end of the year 9999
constexpr std::string_view kPrefix = "__connect.errors.";

struct Arguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string topic;  // empty: the configuration's
  bool json = false;
  bool records = false;
  std::string file;
};

// Calls `letter` for each dead letter that is there now.
Status ForEachLetter(const Config& config, const std::string& topic,
                     const std::function<Status(const RawRecord&)>& letter) {
  SystemClock clock;
  ConsumerOptions options;
  options.kafka = config.kafka;
  options.topics = {topic};
  options.assign_all = true;
  options.ask_ends = true;
  FRESHET_ASSIGN(const std::unique_ptr<RecordSource> source,
                 OpenKafkaConsumer(
                     options, [](const auto&) { return StoredPositions(); }, &clock, kConnectTimeout));
  const std::int64_t begun_ms = clock.WallMs();
  std::int64_t heard_ms = begun_ms;
  // All that had been acknowledged when this began.
  while (source->AsOfMs() < begun_ms || source->LagRecords() > 0) {
    FRESHET_ASSIGN(const PollResult polled, source->Poll(kPollWait));
    if (polled.kind == PollResult::Kind::kRecord) {
      FRESHET_TRY(letter(polled.record));
      heard_ms = clock.WallMs();
    } else if (clock.WallMs() - heard_ms > kPatienceMs) {
      return Unavailable(StrCat("Kafka at ", config.kafka.bootstrap_servers, ": topic ", topic, " cannot be read"));
    }
    if (StopRequested()) return Cancelled("stopped");
  }
  return Status::Ok();
}

std::string HeaderOf(const RawRecord& record, std::string_view name) {
  for (const auto& [key, value] : record.headers) {
    if (key.substr(0, kPrefix.size()) == kPrefix && key.substr(kPrefix.size()) == name) return std::string(value);
  }
  return "";
}

std::string ToHex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

std::optional<std::string> FromHex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const auto digit = [&](char c) {
      return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    if (digit(text[i]) < 0 || digit(text[i + 1]) < 0) return std::nullopt;
    bytes += static_cast<char>(digit(text[i]) * 16 + digit(text[i + 1]));
  }
  return bytes;
}

// Bytes as text where they are text, else in hexadecimal digits under `name`_hex.
void PutBytes(const std::string& name, std::optional<std::string_view> bytes, JsonWriter* out) {
  if (!bytes) {
    out->Key(name).Null();
  } else if (IsValidUtf8(*bytes)) {
    out->Key(name).String(*bytes);
  } else {
    out->Key(name + "_hex").String(ToHex(*bytes));
  }
}

// Nothing in *bytes: null.
Status GetBytes(const JsonValue& object, const std::string& name, std::optional<std::string>* bytes) {
  if (const JsonValue* hex = JsonFind(object, name + "_hex"); hex != nullptr && hex->IsString()) {
    *bytes = FromHex(JsonText(*hex));
    return *bytes ? Status::Ok() : InvalidArgument(StrCat("`", name, "_hex` holds no lower-case hexadecimal digits"));
  }
  const JsonValue* text = JsonFind(object, name);
  if (text == nullptr) return InvalidArgument(StrCat("`", name, "` is missing; null deletes"));
  if (text->IsNull()) return Status::Ok();
  if (!text->IsString()) return InvalidArgument(StrCat("`", name, "` must be a text or null"));
  *bytes = std::string(JsonText(*text));
  return Status::Ok();
}

void PrintRecord(const RawRecord& record) {
  JsonWriter out;
  out.BeginObject().Key("topic").String(HeaderOf(record, "topic"));
  out.Key("partition").String(HeaderOf(record, "partition")).Key("offset").String(HeaderOf(record, "offset"));
  out.Key("stage").String(HeaderOf(record, "stage")).Key("reason").String(HeaderOf(record, "exception.message"));
  out.Key("timestamp_ms").Int(record.timestamp_ms);
  PutBytes("key", record.key, &out);
  PutBytes("value", record.value, &out);
  out.Key("headers").BeginArray();
  for (const auto& [name, value] : record.headers) {
    if (name.substr(0, kPrefix.size()) == kPrefix) continue;
    out.BeginObject().Key("name").String(name);
    PutBytes("value", value, &out);
    out.EndObject();
  }
  out.EndArray().EndObject();
  std::printf("%s\n", out.Take().c_str());
}

struct Reason {
  std::uint64_t records = 0;
  std::string first;  // where the first of them stood
};

Status List(const Config& config, const std::string& topic, const Arguments& arguments) {
  std::map<std::vector<std::string>, Reason> reasons;  // topic, stage, reason
  std::uint64_t total = 0;
  FRESHET_TRY(ForEachLetter(config, topic, [&](const RawRecord& record) {
    ++total;
    if (arguments.records) {
      PrintRecord(record);
      return Status::Ok();
    }
    std::vector<std::string> key = {HeaderOf(record, "topic"), HeaderOf(record, "stage"),
                                    HeaderOf(record, "exception.message")};
    if (reasons.size() >= kMaxReasons && !reasons.contains(key)) key = {key[0], key[1], "(other reasons)"};
    Reason& reason = reasons[key];
    if (reason.records++ == 0) reason.first = StrCat(HeaderOf(record, "partition"), "@", HeaderOf(record, "offset"));
    return Status::Ok();
  }));
  if (arguments.records) return Status::Ok();
  std::vector<std::pair<std::vector<std::string>, Reason>> sorted(reasons.begin(), reasons.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.records > b.second.records; });
  if (arguments.json) {
    JsonWriter out;
    out.BeginObject().Key("topic").String(topic).Key("records").Uint(total).Key("reasons").BeginArray();
    for (const auto& [key, reason] : sorted) {
      out.BeginObject().Key("records").Uint(reason.records).Key("topic").String(key[0]).Key("stage").String(key[1]);
      out.Key("reason").String(key[2]).Key("first").String(reason.first).EndObject();
    }
    std::printf("%s\n", out.EndArray().EndObject().Take().c_str());
    return Status::Ok();
  }
  for (const auto& [key, reason] : sorted) {
    std::printf("%8llu  %s  %s  %s  (first: %s)\n", static_cast<unsigned long long>(reason.records), key[0].c_str(),
                key[1].c_str(), key[2].c_str(), reason.first.c_str());
  }
  std::printf("%8llu  in %s\n", static_cast<unsigned long long>(total), topic.c_str());
  return Status::Ok();
}

// A whole number, also as the text that Connect's headers have it in; `otherwise` where there is none.
Result<std::int64_t> GetNumber(const JsonValue& object, const std::string& name, std::int64_t otherwise,
                               std::int64_t max) {
  const JsonValue* value = JsonFind(object, name);
  if (value == nullptr || value->IsNull() || (value->IsString() && JsonText(*value).empty())) return otherwise;
  std::optional<std::int64_t> number;
  if (value->IsInt64()) number = value->GetInt64();
  if (value->IsString()) number = ParseInt(JsonText(*value));
  if (!number || *number < 0 || *number > max) {
    return InvalidArgument(StrCat("`", name, "` must be a whole number from 0 to ", max));
  }
  return *number;
}

// The partition that it came from and its time are the record's own; without a partition its key says where it goes.
Result<OutRecord> ParseRecord(std::string_view line) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> json, ParseJson(line));
  if (!json->IsObject()) return InvalidArgument("a line must be a JSON object, as `list --records` prints it");
  OutRecord record;
  const JsonValue* topic = JsonFind(*json, "topic");
  if (topic == nullptr || !topic->IsString()) return InvalidArgument("`topic` must say where the record goes");
  record.topic = JsonText(*topic);
  FRESHET_ASSIGN(const std::int64_t partition, GetNumber(*json, "partition", -1, kMaxPartition));
  record.partition = static_cast<std::int32_t>(partition);
  FRESHET_ASSIGN(record.timestamp_ms, GetNumber(*json, "timestamp_ms", 0, kMaxTimestampMs));
  FRESHET_TRY(GetBytes(*json, "key", &record.key));
  FRESHET_TRY(GetBytes(*json, "value", &record.value));
  const JsonValue* headers = JsonFind(*json, "headers");
  if (headers == nullptr || !headers->IsArray()) return record;
  for (const JsonValue& header : headers->GetArray()) {
    const JsonValue* name = header.IsObject() ? JsonFind(header, "name") : nullptr;
    if (name == nullptr || !name->IsString()) return InvalidArgument("a header needs a `name`");
    std::optional<std::string> value;
    FRESHET_TRY(GetBytes(header, "value", &value));
    record.headers.emplace_back(std::string(JsonText(*name)), value.value_or(""));
  }
  return record;
}

Status Replay(const Config& config, const Arguments& arguments) {
  FRESHET_ASSIGN(const std::unique_ptr<KafkaProducer> producer, OpenKafkaProducer(config.kafka));
  FRESHET_TRY(producer->PartitionCount(config.items.name).status().Prefixed("Kafka"));
  // How many each topic has; 0: not asked for yet.
  std::map<std::string, std::int32_t> partitions = {{config.items.name, 0}, {config.interactions.name, 0}};
  if (config.users) partitions[config.users->name] = 0;
  // Whether the record can go where it says. What cannot is named with its line before it is sent.
  const auto check = [&](const OutRecord& record) -> Status {
    const auto topic = partitions.find(record.topic);
    if (topic == partitions.end()) {
      return InvalidArgument(StrCat("topic `", record.topic, "` is none of the configuration's"));
    }
    if (topic->second == 0) {
      FRESHET_ASSIGN(topic->second, producer->PartitionCount(record.topic));
    }
    if (record.partition < topic->second) return Status::Ok();
    return InvalidArgument(StrCat("topic `", record.topic, "` has no partition ", record.partition, ", but ",
                                  topic->second, "; without `partition` the key says where the record goes"));
  };
  std::vector<OutRecord> batch;
  std::uint64_t sent = 0;
  const auto send = [&]() -> Status {
    FRESHET_TRY(producer->Send(batch, kSendTimeout).Prefixed(StrCat("after ", sent, " records")));
    sent += batch.size();
    batch.clear();
    return Status::Ok();
  };
  std::size_t number = 0;
  FRESHET_TRY(ForEachLine(arguments.file, [&](std::string_view line, double) -> Status {
    ++number;
    if (Trim(line).empty()) return Status::Ok();
    Result<OutRecord> record = ParseRecord(line);
    const Status fits = record.ok() ? check(*record) : record.status();
    if (!fits.ok()) return fits.Prefixed(StrCat(arguments.file, ":", number));
    batch.push_back(std::move(*record));
    return batch.size() < kBatchRecords ? Status::Ok() : send();
  }));
  if (!batch.empty()) FRESHET_TRY(send());
  std::fprintf(stderr, "%llu records put back\n", static_cast<unsigned long long>(sent));
  return Status::Ok();
}

Status Run(const Arguments& arguments, bool replay) {
  FRESHET_ASSIGN(const Config config, LoadConfig(arguments.config, arguments.overrides));
  ConfigureLog(LogFormat::kHuman, LogLevel::kWarning);
  InstallStopSignals();
  if (replay) return Replay(config, arguments);
  const std::string topic = arguments.topic.empty() ? config.dead_letters.topic : arguments.topic;
  if (topic.empty()) return ConfigError("no dead-letter topic is configured; name one with --topic");
  return List(config, topic, arguments);
}

}  // namespace

void AddDeadLettersCommand(CLI::App* app, CommandRunner* run) {
  auto* command = app->add_subcommand("dead-letters", "Records that left the stream as poison");
  command->require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();
  const auto common = [&](CLI::App* sub) {
    sub->add_option("--config", arguments->config, "The engine's YAML file")->required()->type_name("FILE");
    sub->add_option("--set", arguments->overrides, "Override one key of the file; may be repeated")
        ->type_name("KEY.PATH=VALUE");
  };
  auto* list = command->add_subcommand("list", "Reasons by count; or the records themselves, to repair them");
  common(list);
  list->add_option("--topic", arguments->topic, "Another topic than the configured one");
  list->add_flag("--json", arguments->json, "Print the counts as one JSON object");
  list->add_flag("--records", arguments->records, "Print every record as a JSON line, as `replay` takes it");
  list->footer(
      "Example (after that of run):\n"
      "  freshet dead-letters list --config deploy/config/demo-engine.yaml \\\n"
      "    --set kafka.bootstrap_servers=\"$(cat /tmp/broker.address)\"\n"
      "Exit codes: 0, 69 the broker is away, 78 configuration.");
  list->callback([arguments, run] { *run = [arguments] { return ExitCode(Run(*arguments, /*replay=*/false)); }; });
  auto* replay = command->add_subcommand("replay", "Put repaired records back into the topics that they came from");
  common(replay);
  replay->add_option("FILE", arguments->file, "JSON lines of `list --records`, repaired")->required();
  replay->footer(
      "Example:\n"
      "  freshet dead-letters list --records --config engine.yaml > letters.jsonl\n"
      "  $EDITOR letters.jsonl\n"
      "  freshet dead-letters replay letters.jsonl --config engine.yaml\n"
      "A record goes back to the partition that it came from, with its time. Take `partition` out where its key was\n"
      "repaired: the new key then says where it goes.\n"
      "A record that is put back is the newest of its key: take out those that the producer has sent anew since.\n"
      "What is in the dead-letter topic stays there until its retention removes it.\n"
      "Exit codes: 0 all acknowledged, 1 a line is broken (those before it were sent), 69 the broker is away.");
  replay->callback([arguments, run] { *run = [arguments] { return ExitCode(Run(*arguments, /*replay=*/true)); }; });
}

}  // namespace freshet
