#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "kafka_common.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;
using SteadyTime = std::chrono::steady_clock::time_point;

// What one Send() waits for. Shared with the messages in flight, which may outlive the call that sent them.
struct Pending {
  std::mutex mu;
  std::condition_variable changed;
  std::size_t outstanding = 0;
  rd_kafka_resp_err_t worst = RD_KAFKA_RESP_ERR_NO_ERROR;  // an input error wins over a transient one
  std::string topic;                                       // of `worst`
};

// The opaque of one message; owned by librdkafka's queue until its delivery report.
struct Delivery {
  std::shared_ptr<Pending> pending;  // nothing for Produce()
  std::atomic<std::uint64_t>* failed = nullptr;
};

// One librdkafka producer and the thread that serves its delivery reports. A producer that failed for good (a fenced or
// forgotten producer id) is replaced by a fresh one, hence a class of its own.
class Handle {
 public:
  static Result<std::shared_ptr<Handle>> Open(const KafkaOptions& options) {
    const kafka::Settings tuned = {
        {"linger.ms", "2"},
        {"compression.codec", "lz4"},
        // Bounds what a broker that is away can cost; then the record fails and is sent again.
        {"message.timeout.ms", "30000"},
        {"queue.buffering.max.messages", "100000"},
        {"queue.buffering.max.kbytes", "131072"},
        {"retry.backoff.ms", "50"},
        // The broker's own limit decides.
        {"message.max.bytes", "67108864"}};
    const kafka::Settings owned = {{"enable.idempotence", "true"}, {"acks", "all"}, {"partitioner", "murmur2_random"}};
    FRESHET_ASSIGN(kafka::ConfPtr conf, kafka::MakeConf(options, tuned, owned));
    rd_kafka_conf_set_dr_msg_cb(conf.get(), OnDelivery);
    rd_kafka_conf_set_error_cb(conf.get(), OnError);
    FRESHET_ASSIGN(rd_kafka_t * rk, kafka::NewHandle(RD_KAFKA_PRODUCER, std::move(conf)));
    return std::shared_ptr<Handle>(new Handle(rk));
  }

  ~Handle() {
    // Send() waited for its records; what is left belongs to calls that gave up. A moment's grace, then it is purged so
    // that every delivery report is served and nothing leaks.
    if (!Fatal()) (void)rd_kafka_flush(rk_, 2000);
    (void)rd_kafka_purge(rk_, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    (void)rd_kafka_flush(rk_, 1000);
    stop_ = true;
    poller_.join();
    while (rd_kafka_poll(rk_, 0) > 0) {
    }
    kafka::DestroyBounded(rk_, 0, milliseconds(10'000));
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  [[nodiscard]] rd_kafka_t* rk() const { return rk_; }
  [[nodiscard]] bool Fatal() const { return rd_kafka_fatal_error(rk_, nullptr, 0) != RD_KAFKA_RESP_ERR_NO_ERROR; }

  // Hands one record to librdkafka; waits for room until `deadline`.
  rd_kafka_resp_err_t Enqueue(const OutRecord& record, std::unique_ptr<Delivery> delivery, SteadyTime deadline) {
    for (;;) {
      const rd_kafka_resp_err_t error = Produce(record, delivery.get());
      if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        (void)delivery.release();  // OnDelivery deletes it
        return error;
      }
      if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL || std::chrono::steady_clock::now() >= deadline) return error;
      (void)rd_kafka_poll(rk_, 10);  // serves reports, which makes room
    }
  }

 private:
  explicit Handle(rd_kafka_t* rk) : rk_(rk), poller_([this] { Serve(); }) {}

  void Serve() {
    while (!stop_.load()) (void)rd_kafka_poll(rk_, 100);
  }

  // A null payload is a null value; an empty one needs an address.
  rd_kafka_resp_err_t Produce(const OutRecord& record, Delivery* delivery) {
    rd_kafka_headers_t* headers = nullptr;
    if (!record.headers.empty()) {
      headers = rd_kafka_headers_new(record.headers.size());
      for (const auto& [name, value] : record.headers) {
        (void)rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()), value.data(),
                                  static_cast<ssize_t>(value.size()));
      }
    }
    // The arrays of rd_kafka_produceva, because its errors are values and it takes all fields at once.
    std::vector<rd_kafka_vu_t> fields;
    const auto add = [&fields](rd_kafka_vtype_t type) -> rd_kafka_vu_t& {
      rd_kafka_vu_t& field = fields.emplace_back();
      std::memset(&field, 0, sizeof(field));
      field.vtype = type;
      return field;
    };
    add(RD_KAFKA_VTYPE_TOPIC).u.cstr = record.topic.c_str();
    add(RD_KAFKA_VTYPE_MSGFLAGS).u.i = RD_KAFKA_MSG_F_COPY;
    add(RD_KAFKA_VTYPE_PARTITION).u.i32 = record.partition < 0 ? RD_KAFKA_PARTITION_UA : record.partition;
    add(RD_KAFKA_VTYPE_OPAQUE).u.ptr = delivery;
    if (record.timestamp_ms > 0) add(RD_KAFKA_VTYPE_TIMESTAMP).u.i64 = record.timestamp_ms;
    rd_kafka_vu_t& value = add(RD_KAFKA_VTYPE_VALUE);
    if (record.value) {
      value.u.mem.ptr = const_cast<char*>(record.value->data());  // NOLINT: copied, see MSGFLAGS
      value.u.mem.size = record.value->size();
    }
    rd_kafka_vu_t& key = add(RD_KAFKA_VTYPE_KEY);
    if (record.key) {
      key.u.mem.ptr = const_cast<char*>(record.key->data());  // NOLINT: copied
      key.u.mem.size = record.key->size();
    }
    if (headers != nullptr) add(RD_KAFKA_VTYPE_HEADERS).u.headers = headers;
    const kafka::ErrorPtr error(rd_kafka_produceva(rk_, fields.data(), fields.size()));
    if (error == nullptr) return RD_KAFKA_RESP_ERR_NO_ERROR;
    if (headers != nullptr) rd_kafka_headers_destroy(headers);  // ours again after a failure
    return rd_kafka_error_code(error.get());
  }

  static void OnDelivery(rd_kafka_t*, const rd_kafka_message_t* message, void*) {
    const std::unique_ptr<Delivery> delivery(static_cast<Delivery*>(message->_private));
    if (delivery == nullptr) return;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR && delivery->failed != nullptr) ++*delivery->failed;
    if (delivery->pending == nullptr) return;
    Pending& pending = *delivery->pending;
    const std::lock_guard lock(pending.mu);
    --pending.outstanding;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      const bool input = kafka::ToStatus(message->err, "").category() == Category::kInput;
      if (pending.worst == RD_KAFKA_RESP_ERR_NO_ERROR || input) {
        pending.worst = message->err;
        pending.topic = message->rkt != nullptr ? rd_kafka_topic_name(message->rkt) : "";
      }
    }
    pending.changed.notify_all();
  }

  // librdkafka logged it already; the callback keeps it from logging it again as unhandled.
  static void OnError(rd_kafka_t*, int, const char*, void*) {}

  rd_kafka_t* const rk_;
  std::atomic<bool> stop_{false};
  std::thread poller_;
};

// Whether a topic that the broker does not know is missing. A broker that starts knows none for a moment, and
// librdkafka then fails what is queued for it (its issue 4401): so it is believed only when it has been said for
// `patience`. Thread-safe.
class UnknownTopics {
 public:
  explicit UnknownTopics(milliseconds patience) : patience_(patience) {}

  // `error`, of a record for `topic`: transient until the topic is believed to be missing.
  Status Judge(rd_kafka_resp_err_t error, const std::string& topic) {
    const Status status = kafka::ToStatus(error, StrCat("record for topic ", topic));
    return kafka::IsUnknownTopic(error) && !IsMissing(topic) ? Unavailable(status.message()) : status;
  }

  // True when `topic`, unknown once more, has been for long.
  bool IsMissing(const std::string& topic) {
    const auto now = std::chrono::steady_clock::now();
    const std::lock_guard lock(mu_);
    const auto [it, fresh] = since_.try_emplace(topic, Said{now, now});
    if (now - it->second.last > patience_) it->second.first = now;  // another time
    it->second.last = now;
    return now - it->second.first >= patience_;
  }

  void Forget(const std::vector<OutRecord>& sent) {
    const std::lock_guard lock(mu_);
    if (since_.empty()) return;
    for (const OutRecord& record : sent) since_.erase(record.topic);
  }

 private:
  struct Said {
    SteadyTime first, last;
  };
  const milliseconds patience_;
  std::mutex mu_;
  std::map<std::string, Said> since_;  // guarded by mu_
};

class Producer final : public KafkaProducer {
 public:
  Producer(KafkaOptions options, std::shared_ptr<Handle> handle)
      : options_(std::move(options)),
        unknown_(kafka::MilliOption(handle->rk(), "topic.metadata.propagation.max.ms")),
        handle_(std::move(handle)) {}

  Status Send(const std::vector<OutRecord>& records, milliseconds timeout) override {
    if (records.empty()) return Status::Ok();
    const SteadyTime deadline = std::chrono::steady_clock::now() + timeout;
    FRESHET_ASSIGN(const std::shared_ptr<Handle> handle, Current());
    auto pending = std::make_shared<Pending>();
    Status queued;
    for (const OutRecord& record : records) {
      auto delivery = std::make_unique<Delivery>();
      delivery->pending = pending;
      {
        const std::lock_guard lock(pending->mu);
        if (pending->worst != RD_KAFKA_RESP_ERR_NO_ERROR) break;  // what follows must not overtake what failed
        ++pending->outstanding;
      }
      const rd_kafka_resp_err_t error = handle->Enqueue(record, std::move(delivery), deadline);
      if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {  // nor this one
        queued = unknown_.Judge(error, record.topic);
        const std::lock_guard lock(pending->mu);
        --pending->outstanding;
        break;
      }
    }
    std::unique_lock lock(pending->mu);
    const bool answered = pending->changed.wait_until(lock, deadline, [&] { return pending->outstanding == 0; });
    if (!queued.ok()) return queued;
    if (pending->worst != RD_KAFKA_RESP_ERR_NO_ERROR) return unknown_.Judge(pending->worst, pending->topic);
    if (!answered) {
      return DeadlineExceeded(StrCat("the broker did not acknowledge ", pending->outstanding, " of ", records.size(),
                                     " records within ", timeout.count(), " ms"));
    }
    unknown_.Forget(records);
    return Status::Ok();
  }

  Status Produce(const OutRecord& record) override {
    FRESHET_ASSIGN(const std::shared_ptr<Handle> handle, Current());
    auto delivery = std::make_unique<Delivery>();
    delivery->failed = &failed_;
    // A full queue empties within message.timeout.ms, by delivery or by failure; twice the default is a bound that
    // holds.
    const auto deadline = std::chrono::steady_clock::now() + milliseconds(60'000);
    return unknown_.Judge(handle->Enqueue(record, std::move(delivery), deadline), record.topic);
  }

  Status Flush(milliseconds timeout) override {
    std::shared_ptr<Handle> handle;
    {
      const std::lock_guard lock(mu_);
      handle = handle_;
    }
    const rd_kafka_resp_err_t error = rd_kafka_flush(handle->rk(), static_cast<int>(timeout.count()));
    const std::uint64_t failed = failed_.exchange(0);
    if (failed > 0) return Unavailable(StrCat(failed, " records were not taken by the broker"));
    return kafka::ToStatus(error, "waiting for acknowledgements");
  }

  Result<std::int32_t> PartitionCount(const std::string& topic) override {
    FRESHET_ASSIGN(const std::shared_ptr<Handle> handle, Current());
    auto count = kafka::CountPartitions(handle->rk(), topic, milliseconds(5000));
    if (count.status().code() == Code::kNotFound && !unknown_.IsMissing(topic)) {
      return Unavailable(count.status().message());
    }
    return count;
  }

 private:
  Result<std::shared_ptr<Handle>> Current() {
    const std::lock_guard lock(mu_);
    if (!handle_->Fatal()) return handle_;
    char text[256] = "";
    (void)rd_kafka_fatal_error(handle_->rk(), text, sizeof(text));
    LogWarning("kafka", "the producer failed for good and is replaced", {{"reason", text}});
    FRESHET_ASSIGN(handle_, Handle::Open(options_));
    return handle_;
  }

  const KafkaOptions options_;
  UnknownTopics unknown_;
  std::atomic<std::uint64_t> failed_{0};  // outlives the handle, whose reports count into it
  std::mutex mu_;
  std::shared_ptr<Handle> handle_;  // guarded by mu_
};

}  // namespace

Result<std::unique_ptr<KafkaProducer>> OpenKafkaProducer(const KafkaOptions& options) {
  FRESHET_ASSIGN(std::shared_ptr<Handle> handle, Handle::Open(options));
  return std::unique_ptr<KafkaProducer>(new Producer(options, std::move(handle)));
}

}  // namespace freshet
