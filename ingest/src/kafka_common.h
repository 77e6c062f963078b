// What consumer, producer and admin share of librdkafka: owned handles, configuration, errors, logs.
//
// Place in the flow: private to the Kafka adapters of ingest. Thread-safe.
#pragma once

#include <librdkafka/rdkafka.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/ingest/kafka.h"

namespace freshet::kafka {

template <auto destroy>
struct Destroyer {
  template <typename T>
  void operator()(T* p) const {
    destroy(p);
  }
};
using ConfPtr = std::unique_ptr<rd_kafka_conf_t, Destroyer<rd_kafka_conf_destroy>>;
using TopicPtr = std::unique_ptr<rd_kafka_topic_t, Destroyer<rd_kafka_topic_destroy>>;
using MessagePtr = std::unique_ptr<rd_kafka_message_t, Destroyer<rd_kafka_message_destroy>>;
using PartitionListPtr =
    std::unique_ptr<rd_kafka_topic_partition_list_t, Destroyer<rd_kafka_topic_partition_list_destroy>>;
using QueuePtr = std::unique_ptr<rd_kafka_queue_t, Destroyer<rd_kafka_queue_destroy>>;
using EventPtr = std::unique_ptr<rd_kafka_event_t, Destroyer<rd_kafka_event_destroy>>;
using ErrorPtr = std::unique_ptr<rd_kafka_error_t, Destroyer<rd_kafka_error_destroy>>;
using MetadataPtr = std::unique_ptr<const rd_kafka_metadata_t, Destroyer<rd_kafka_metadata_destroy>>;

using Settings = std::vector<std::pair<std::string, std::string>>;

// `tuned` may be overridden by the user's librdkafka_options, `owned` may not. Logs go to freshet's log.
// Errors: kConfig naming the key.
[[nodiscard]] Result<ConfPtr> MakeConf(const KafkaOptions& options, const Settings& tuned, const Settings& owned);

// The same for a consumer: no commits of its own, no silent resets, ends of partitions told.
// Errors: kConfig, also for options that contradict each other.
[[nodiscard]] Result<ConfPtr> MakeConsumerConf(const ConsumerOptions& options);

// Creates a handle; `conf` is consumed. Errors: kConfig for combinations that librdkafka refuses.
[[nodiscard]] Result<rd_kafka_t*> NewHandle(rd_kafka_type_t type, ConfPtr conf);

// Runs `work` on a thread of its own. False: it did not end in time and is left behind, with what it holds.
[[nodiscard]] bool RunBounded(std::function<void()> work, std::chrono::milliseconds timeout);

// Destroys the handle within about `timeout`; one that hangs is left behind, with a log line, rather than waited for.
void DestroyBounded(rd_kafka_t* rk, int flags, std::chrono::milliseconds timeout);

// Whether the network or the broker's availability is to blame, so that waiting may help.
[[nodiscard]] bool IsTransport(rd_kafka_resp_err_t error);

// An option of librdkafka as it stands; 0 where it is no number.
[[nodiscard]] std::chrono::milliseconds MilliOption(rd_kafka_t* rk, const char* name);

// Whether the broker, or its certificate, turns us away: asking again does not help.
[[nodiscard]] bool IsRefusal(rd_kafka_resp_err_t error);

// Whether the broker, or librdkafka by what a broker said, knows no such topic or partition.
[[nodiscard]] bool IsUnknownTopic(rd_kafka_resp_err_t error);

// input for what a record can never pass, transient for all else.
[[nodiscard]] Status ToStatus(rd_kafka_resp_err_t error, std::string_view what);

// Partitions of one topic. Errors: kNotFound when the broker does not know it; kUnavailable.
[[nodiscard]] Result<std::int32_t> CountPartitions(rd_kafka_t* rk, const std::string& topic,
                                                   std::chrono::milliseconds timeout);

}  // namespace freshet::kafka
