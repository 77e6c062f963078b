#include "freshet/ingest/dead_letters.h"

#include <algorithm>
#include <map>
#include <thread>

#include "backoff.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSendTimeout{10'000};
// librdkafka looks for what has expired once a second, so by twice this all of it is reported.
constexpr milliseconds kExpiry = kSendTimeout / 2;
constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kMaxBackoff{5000};
constexpr milliseconds kStopCheck{50};

OutRecord MakeRecord(DeadLetter letter, const DeadLetterOptions& options) {
  OutRecord out;
  out.topic = options.topic;
  out.timestamp_ms = letter.timestamp_ms;
  if (letter.record.has_key) out.key = std::move(letter.record.key);
  if (letter.record.has_value) out.value = std::move(letter.record.value);
  out.headers = std::move(letter.record.headers);
  if (!options.context_headers) return out;
  const auto add = [&out](const char* name, std::string text) {
    out.headers.emplace_back(StrCat("__connect.errors.", name), std::move(text));
  };
  add("topic", letter.record.topic);
  add("partition", std::to_string(letter.position.partition));
  add("offset", std::to_string(letter.position.offset));
  add("connector.name", options.connector_name);
  add("task.id", "0");
  add("stage", letter.stage);
  add("class.name", letter.stage == "TRANSFORMATION" ? "freshet.Encoder" : "freshet.EventDecoder");
  add("exception.class.name", "freshet.InvalidArgument");
  add("exception.message", letter.reason);
  add("exception.stacktrace", StrCat("freshet.InvalidArgument: ", letter.reason));
  return out;
}

class Queue final : public DeadLetterQueue {
 public:
  Queue(const DeadLetterOptions& options, RecordSink* sink, Metrics* metrics, const std::atomic<bool>* stopping)
      : options_(options),
        sink_(sink),
        metrics_(metrics),
        stopping_(stopping),
        retries_(
            metrics->GetCounter("freshet_dead_letter_retries_total", "Attempts to write dead letters that failed")) {}

  Status Send(std::vector<DeadLetter> letters) override {
    if (letters.empty()) return Status::Ok();
    LogFirst(letters.front(), letters.size());
    if (!options_.tolerate) {
      const DeadLetter& first = letters.front();
      return FailedPrecondition(StrCat("errors.tolerance is none, and ", Where(first), " is poison: ", first.reason));
    }
    std::map<std::string, double> by_stage;
    for (const DeadLetter& letter : letters) by_stage[letter.stage] += 1;
    if (!options_.topic.empty()) FRESHET_TRY(Write(std::move(letters)));
    for (const auto& [stage, count] : by_stage) {
      metrics_->GetCounter("freshet_dead_letters_total", "Records that left the stream as poison", {{"stage", stage}})
          .Add(count);
    }
    return Status::Ok();
  }

 private:
  static std::string Where(const DeadLetter& letter) {
    return StrCat(letter.record.topic, "[", letter.position.partition, "]@", letter.position.offset);
  }

  // The first says what is wrong; how many there are is the metric's to say.
  void LogFirst(const DeadLetter& letter, std::size_t count) {
    const bool first = !logged_.exchange(true);
    Log(first ? LogLevel::kWarning : LogLevel::kDebug, "dead-letters",
        options_.topic.empty() ? "poison was skipped; no dead-letter topic is configured" : "poison leaves the stream",
        {{"record", Where(letter)}, {"stage", letter.stage}, {"reason", letter.reason}, {"records", StrCat(count)}});
  }

  Status Write(std::vector<DeadLetter> letters) {
    std::vector<OutRecord> records;
    records.reserve(letters.size());
    for (DeadLetter& letter : letters) records.push_back(MakeRecord(std::move(letter), options_));
    Backoff backoff(kFirstBackoff, kMaxBackoff);
    for (;;) {
      if (stopping_ != nullptr && stopping_->load()) return Cancelled("stopping before the dead letters were written");
      const Status sent = sink_->Send(records, kSendTimeout);
      if (sent.ok()) return sent;
      if (sent.category() != Category::kTransient) {
        return FailedPrecondition(
            StrCat("dead letters cannot be written to topic ", options_.topic, ": ", sent.message()));
      }
      retries_.Add();
      if (backoff.fresh()) {
        LogWarning("dead-letters", "the broker does not take dead letters; retrying", {{"reason", sent.message()}});
      }
      Wait(backoff.Next());
    }
  }

  void Wait(milliseconds wait) const {
    const auto until = std::chrono::steady_clock::now() + wait;
    while (std::chrono::steady_clock::now() < until && (stopping_ == nullptr || !stopping_->load())) {
      std::this_thread::sleep_for(std::min(kStopCheck, wait));
    }
  }

  const DeadLetterOptions options_;
  RecordSink* const sink_;
  Metrics* const metrics_;
  const std::atomic<bool>* const stopping_;
  Counter& retries_;
  std::atomic<bool> logged_{false};
};

}  // namespace

std::unique_ptr<DeadLetterQueue> MakeDeadLetterQueue(const DeadLetterOptions& options, RecordSink* sink,
                                                     Metrics* metrics, const std::atomic<bool>* stopping) {
  return std::make_unique<Queue>(options, sink, metrics, stopping);
}

Result<std::unique_ptr<KafkaProducer>> OpenDeadLetterProducer(const KafkaOptions& options) {
  KafkaOptions expiring = options;
  expiring.librdkafka_options.erase("delivery.timeout.ms");  // the same option by its other name
  expiring.librdkafka_options["message.timeout.ms"] = std::to_string(kExpiry.count());
  return OpenKafkaProducer(expiring);
}

}  // namespace freshet
