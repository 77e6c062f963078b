#include "kafka_common.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

struct RefusedKey {
  std::string_view key;
  std::string_view reason;
};

// Aliases included: librdkafka takes both spellings.
constexpr RefusedKey kRefused[] = {
    {"bootstrap.servers", "set kafka.bootstrap_servers"},
    {"metadata.broker.list", "set kafka.bootstrap_servers"},
    {"client.id", "set kafka.client_id"},
    {"group.id", "freshet owns the consumer group"},
    {"group.instance.id", "freshet owns the consumer group"},
    {"group.protocol.type", "freshet owns the consumer group"},
    {"session.timeout.ms", "freshet owns the consumer group"},
    {"partition.assignment.strategy", "freshet relies on `range`"},
    {"enable.auto.commit", "offsets live in freshet's store"},
    {"auto.commit.enable", "offsets live in freshet's store"},
    {"auto.commit.interval.ms", "offsets live in freshet's store"},
    {"enable.auto.offset.store", "offsets live in freshet's store"},
    {"offset.store.method", "offsets live in freshet's store"},
    {"offset.store.path", "offsets live in freshet's store"},
    {"offset.store.sync.interval.ms", "offsets live in freshet's store"},
    {"auto.offset.reset", "a lost offset is an error, never skipped"},
    {"enable.partition.eof", "freshness is measured with it"},
    {"isolation.level", "only committed records are applied"},
    {"queued.max.messages.kbytes", "set the consumer's prefetch bound in freshet's own configuration"},
    {"enable.idempotence", "freshet's producer is always idempotent"},
    {"acks", "freshet waits for all in-sync replicas"},
    {"request.required.acks", "freshet waits for all in-sync replicas"},
    {"transactional.id", "freshet does not use transactions"},
    {"partitioner", "keys are placed as Java producers place them"},
    {"delivery.report.only.error", "freshet waits for each acknowledgement"},
    {"dr_cb", "callbacks are freshet's"},
    {"dr_msg_cb", "callbacks are freshet's"},
    {"log.queue", "logs go to freshet's log"},
    {"enabled_events", "callbacks are freshet's"},
    {"opaque", "callbacks are freshet's"},
    {"default_topic_conf", "callbacks are freshet's"},
    {"test.mock.num.brokers", "start `freshet broker` instead"},
    {"plugin.library.paths", "freshet loads no foreign code"},
};

// A fetch that is under way holds as much, and several times that once it is decompressed, whatever the queue's bound
// is. A larger record is fetched all the same.
constexpr std::string_view kFetchBounds[] = {"fetch.max.bytes", "fetch.message.max.bytes", "max.partition.fetch.bytes"};
constexpr long long kMaxFetchBytes = 4LL << 20;

bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

}  // namespace

Status ValidateLibrdkafkaOptions(const std::map<std::string, std::string>& options) {
  for (const auto& [key, value] : options) {
    for (const RefusedKey& refused : kRefused) {
      if (key == refused.key)
        return ConfigError(StrCat("librdkafka_options: `", key, "` is freshet's own: ", refused.reason));
    }
    if (std::find(std::begin(kFetchBounds), std::end(kFetchBounds), key) != std::end(kFetchBounds) &&
        ParseInt(value).value_or(0) > kMaxFetchBytes) {
      return ConfigError(StrCat("librdkafka_options: `", key, "` may be at most ", kMaxFetchBytes,
                                ": memory is bounded, and a larger record is fetched all the same"));
    }
    if (EndsWith(key, "_cb")) {
      return ConfigError(StrCat("librdkafka_options: `", key, "` is freshet's own: callbacks are freshet's"));
    }
  }
  return Status::Ok();
}

namespace kafka {
namespace {

// Called on librdkafka's threads. Its severities are syslog's; a broker that is away is no error of ours.
void OnLog(const rd_kafka_t* rk, int level, const char* facility, const char* text) {
  LogLevel mapped = LogLevel::kDebug;
  if (level <= 2) {
    mapped = LogLevel::kError;
  } else if (level <= 4) {
    mapped = LogLevel::kWarning;
  } else if (level <= 6) {
    mapped = LogLevel::kInfo;
  }
  // The embedded broker is old enough for a warning with every consumer; freshet asks for topics by name only.
  if (std::string_view(facility) == "AUTOCREATE") mapped = LogLevel::kDebug;
  if (!LogEnabled(mapped)) return;
  Log(mapped, "kafka", text, {{"facility", facility}, {"client", rk != nullptr ? rd_kafka_name(rk) : ""}});
}

Status Set(rd_kafka_conf_t* conf, const std::string& key, const std::string& value) {
  char error[512] = "";
  if (rd_kafka_conf_set(conf, key.c_str(), value.c_str(), error, sizeof(error)) == RD_KAFKA_CONF_OK) {
    return Status::Ok();
  }
  // librdkafka repeats the value in its message; a value may be a password.
  return ConfigError(StrCat("librdkafka does not take the option `", key, "` or its value"));
}

Settings TunedSettings() {
  return {// A broker answers a waiting fetch when data comes; the embedded one answers only when this is over.
          {"fetch.wait.max.ms", "20"},
          {"fetch.error.backoff.ms", "100"},
          {"fetch.max.bytes", std::to_string(kMaxFetchBytes)},
          {"max.poll.interval.ms", "600000"},
          {"topic.metadata.refresh.interval.ms", "60000"}};
}

Settings OwnedSettings(const ConsumerOptions& options) {
  const bool pinned = options.assign_all || !options.assign.empty();
  Settings owned = {// librdkafka wants a group even for pinned partitions; nothing is ever committed to this one.
                    {"group.id", pinned ? "freshet-pinned-" + options.kafka.client_id : options.group_id},
                    {"session.timeout.ms", std::to_string(options.session_timeout_ms)},
                    {"heartbeat.interval.ms", std::to_string(std::max(1, options.session_timeout_ms / 4))},
                    {"partition.assignment.strategy", "range"},
                    {"enable.auto.commit", "false"},
                    {"enable.auto.offset.store", "false"},
                    {"auto.offset.reset", "error"},
                    {"check.crcs", "true"},
                    {"enable.partition.eof", "true"},
                    {"isolation.level", "read_committed"},
                    {"allow.auto.create.topics", "false"},
                    {"queued.max.messages.kbytes", std::to_string(options.queued_max_kbytes)}};
  if (!pinned && !options.group_instance_id.empty()) owned.emplace_back("group.instance.id", options.group_instance_id);
  return owned;
}

Status Validate(const ConsumerOptions& options) {
  if (options.topics.empty()) return ConfigError("a consumer needs at least one topic");
  if (options.assign_all && !options.assign.empty()) return ConfigError("`assign` and `assign_all` exclude each other");
  if (!options.assign_all && options.assign.empty() && options.group_id.empty()) {
    return ConfigError("a consumer needs a group id or pinned partitions");
  }
  if (options.queued_max_kbytes < 1 || options.queued_max_kbytes > 2'097'151) {
    return ConfigError("the prefetch bound must be between 1 KiB and 2 GiB");
  }
  return Status::Ok();
}

}  // namespace

Result<ConfPtr> MakeConf(const KafkaOptions& options, const Settings& tuned, const Settings& owned) {
  FRESHET_TRY(ValidateLibrdkafkaOptions(options.librdkafka_options));
  if (options.bootstrap_servers.empty()) return ConfigError("kafka.bootstrap_servers is empty");
  ConfPtr conf(rd_kafka_conf_new());
  rd_kafka_conf_set_log_cb(conf.get(), OnLog);
  const Settings common = {{"log.connection.close", "false"},
                           {"socket.nagle.disable", "true"},
                           {"reconnect.backoff.max.ms", "2000"},
                           {"client.id", options.client_id},
                           {"bootstrap.servers", options.bootstrap_servers}};
  for (const auto& [key, value] : common) FRESHET_TRY(Set(conf.get(), key, value));
  for (const auto& [key, value] : tuned) FRESHET_TRY(Set(conf.get(), key, value));
  for (const auto& [key, value] : options.librdkafka_options) {
    FRESHET_TRY(Set(conf.get(), key, value).Prefixed("librdkafka_options"));
  }
  for (const auto& [key, value] : owned) FRESHET_TRY(Set(conf.get(), key, value));
  return conf;
}

Result<ConfPtr> MakeConsumerConf(const ConsumerOptions& options) {
  FRESHET_TRY(Validate(options));
  return MakeConf(options.kafka, TunedSettings(), OwnedSettings(options));
}

Result<rd_kafka_t*> NewHandle(rd_kafka_type_t type, ConfPtr conf) {
  char error[512] = "";
  rd_kafka_t* rk = rd_kafka_new(type, conf.get(), error, sizeof(error));
  if (rk == nullptr) return ConfigError(StrCat("librdkafka: ", error));
  (void)conf.release();  // rd_kafka_new took it
  return rk;
}

bool RunBounded(std::function<void()> work, std::chrono::milliseconds timeout) {
  struct Done {
    std::mutex mu;
    std::condition_variable changed;
    bool done = false;
  };
  auto state = std::make_shared<Done>();
  std::thread worker([work = std::move(work), state] {
    work();
    const std::lock_guard lock(state->mu);
    state->done = true;
    state->changed.notify_all();
  });
  bool done = false;
  {
    std::unique_lock lock(state->mu);
    done = state->changed.wait_for(lock, timeout, [&] { return state->done; });
  }
  if (done) {
    worker.join();
  } else {
    worker.detach();
  }
  return done;
}

void DestroyBounded(rd_kafka_t* rk, int flags, std::chrono::milliseconds timeout) {
  if (RunBounded([rk, flags] { rd_kafka_destroy_flags(rk, flags); }, timeout)) return;
  LogWarning("kafka", "librdkafka did not close in time; its handle is left behind");
}

std::chrono::milliseconds MilliOption(rd_kafka_t* rk, const char* name) {
  char value[32] = "";
  std::size_t size = sizeof(value);
  const bool known = rd_kafka_conf_get(rd_kafka_conf(rk), name, value, &size) == RD_KAFKA_CONF_OK;
  return std::chrono::milliseconds(known ? ParseInt(value).value_or(0) : 0);
}

bool IsTransport(rd_kafka_resp_err_t error) {
  switch (error) {
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
    case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
      return true;
    default:
      return false;
  }
}

bool IsRefusal(rd_kafka_resp_err_t error) {
  return error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR__SSL ||
         error == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

bool IsUnknownTopic(rd_kafka_resp_err_t error) {
  return error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
         error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
}

Status ToStatus(rd_kafka_resp_err_t error, std::string_view what) {
  if (error == RD_KAFKA_RESP_ERR_NO_ERROR) return Status::Ok();
  const std::string text = StrCat(what, ": ", rd_kafka_err2str(error));
  if (IsUnknownTopic(error)) return InvalidArgument(text);
  switch (error) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
      return InvalidArgument(text);
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
      return DeadlineExceeded(text);
    default:
      return Unavailable(text);
  }
}

Result<std::int32_t> CountPartitions(rd_kafka_t* rk, const std::string& topic, std::chrono::milliseconds timeout) {
  const TopicPtr handle(rd_kafka_topic_new(rk, topic.c_str(), nullptr));
  if (handle == nullptr) return InvalidArgument(StrCat("`", topic, "` is no topic name"));
  const rd_kafka_metadata_t* raw = nullptr;
  const rd_kafka_resp_err_t error =
      rd_kafka_metadata(rk, 0, handle.get(), &raw, static_cast<int>(std::max<std::int64_t>(1, timeout.count())));
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return Unavailable(StrCat("metadata of topic ", topic, ": ", rd_kafka_err2str(error)));
  }
  const MetadataPtr metadata(raw);
  for (int i = 0; i < metadata->topic_cnt; ++i) {
    const rd_kafka_metadata_topic_t& found = metadata->topics[i];
    if (topic != found.topic) continue;
    if (IsUnknownTopic(found.err)) break;
    if (found.err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return Unavailable(StrCat("metadata of topic ", topic, ": ", rd_kafka_err2str(found.err)));
    }
    if (found.partition_cnt > 0) return static_cast<std::int32_t>(found.partition_cnt);
  }
  return NotFound(StrCat("the broker knows no topic ", topic));
}

}  // namespace kafka
}  // namespace freshet
