// `freshet replay`: files of events to Kafka, merged by time, at a rate or at recorded speed.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/queue.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/ingest/event_file.h"
#include "freshet/ingest/kafka.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kBatchRecords = 1000;
constexpr std::size_t kBatchBytes = std::size_t{4} << 20;
constexpr milliseconds kSendTimeout{35'000};  // a little above librdkafka's own message timeout
constexpr milliseconds kSlice{20};            // longest wait that ignores a stop signal

struct ReplayArguments {
  std::vector<std::string> files;
  std::string topic;
  std::string bootstrap_servers = KafkaOptions{}.bootstrap_servers;
  double rate = 0;
  double speed = 0;
  std::uint64_t limit = 0;
  bool keep_timestamps = false;
  std::vector<std::string> librdkafka_options;
  bool json = false;
};

// One line as it will be sent.
struct Line {
  OutRecord record;
  std::int64_t timestamp_ms = 0;
  double fraction = 0;  // of its file
};

// Reads one file on a thread of its own, ahead of the sender by a bounded queue.
class FileReader {
 public:
  FileReader(std::string path, std::string topic)
      : path_(std::move(path)), topic_(std::move(topic)), thread_([this] { Run(); }) {}
  ~FileReader() {
    lines_.Close();
    thread_.join();
  }
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // The next line without taking it; nullptr at the end, after which status() says how it came to be.
  const Line* Peek() {
    if (!next_) next_ = lines_.Pop();
    if (next_) fraction_ = next_->fraction;
    return next_ ? &*next_ : nullptr;
  }
  Line Take() {
    Line line = std::move(*next_);
    next_.reset();
    return line;
  }
  [[nodiscard]] double fraction() const { return fraction_; }
  // REQUIRES: Peek() returned nullptr.
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  void Run() {
    std::optional<TopicRole> role;
    std::size_t number = 0;
    status_ = ForEachLine(path_, [&](std::string_view text, double fraction) -> Status {
      ++number;
      if (Trim(text).empty()) return Status::Ok();
      const auto located = [&](const Status& s) { return s.Prefixed(StrCat(path_, ":", number)); };
      if (!role) {
        const Result<TopicRole> guessed = GuessRole(text);
        if (!guessed.ok()) return located(guessed.status());
        role = *guessed;
      }
      Result<EventLine> parsed = ParseEventLine(*role, text);
      if (!parsed.ok()) return located(parsed.status());
      Line line;
      line.record.topic = topic_;
      line.record.key = std::move(parsed->key);
      if (parsed->has_value) line.record.value = std::string(parsed->value);
      line.timestamp_ms = parsed->timestamp_ms;
      line.fraction = fraction;
      const std::size_t bytes = text.size();
      return lines_.Push(std::move(line), bytes) ? Status::Ok() : Cancelled("enough was read");
    });
    lines_.Close();
  }

  const std::string path_;
  const std::string topic_;
  BoundedQueue<Line> lines_{4096, std::size_t{8} << 20};
  Status status_;  // written before lines_ is closed
  // Sender's thread only:
  std::optional<Line> next_;
  double fraction_ = 0;
  std::thread thread_;  // last: uses the rest
};

struct Summary {
  std::uint64_t records = 0;
  std::uint64_t failed = 0;
  double seconds = 0;
};

class Replay {
 public:
  Replay(const ReplayArguments& arguments, KafkaProducer* producer, std::vector<std::unique_ptr<FileReader>>* readers)
      : arguments_(arguments), producer_(producer), readers_(readers), bar_("replay") {}

  Status Run(Summary* summary) {
    start_ = steady_clock::now();
    Status status;
    while (status.ok() && !StopRequested()) {
      const Result<bool> more = Gather(*summary);
      if (!more.ok()) status = more.status();
      if (!batch_.empty()) {  // also what was gathered before a broken line
        const Status sent = producer_->Send(batch_, kSendTimeout);
        (sent.ok() ? summary->records : summary->failed) += batch_.size();
        if (!sent.ok()) status = sent;
        batch_.clear();
        Draw(*summary);
      }
      if (more.ok() && !*more) break;
    }
    summary->seconds = std::chrono::duration<double>(steady_clock::now() - start_).count();
    return status;
  }

 private:
  // The file whose next line is the oldest; the first given among equals. Nothing: all are at their ends.
  Result<FileReader*> Oldest() {
    FileReader* oldest = nullptr;
    for (const auto& reader : *readers_) {
      const Line* line = reader->Peek();
      if (line == nullptr) {
        FRESHET_TRY(reader->status());
        continue;
      }
      if (oldest == nullptr || line->timestamp_ms < oldest->Peek()->timestamp_ms) oldest = reader.get();
    }
    return oldest;
  }

  // When the next record is to be sent.
  steady_clock::time_point DueAt(std::uint64_t index, std::int64_t timestamp_ms) {
    double seconds = 0;
    if (arguments_.rate > 0) seconds = static_cast<double>(index) / arguments_.rate;
    if (arguments_.speed > 0 && timestamp_ms > 0) {
      if (!first_timestamp_ms_) first_timestamp_ms_ = timestamp_ms;
      seconds = std::max(0.0, static_cast<double>(timestamp_ms - *first_timestamp_ms_) / 1000 / arguments_.speed);
    }
    return start_ + std::chrono::duration_cast<steady_clock::duration>(std::chrono::duration<double>(seconds));
  }

  // Fills batch_ with what is due, waiting for the first. False: there is nothing more.
  Result<bool> Gather(const Summary& summary) {
    std::size_t bytes = 0;
    while (batch_.size() < kBatchRecords && bytes < kBatchBytes) {
      const std::uint64_t index = summary.records + batch_.size();
      if (arguments_.limit > 0 && index >= arguments_.limit) return false;
      FRESHET_ASSIGN(FileReader * reader, Oldest());
      if (reader == nullptr) return false;
      const auto due = DueAt(index, reader->Peek()->timestamp_ms);
      if (due > steady_clock::now()) {
        if (!batch_.empty()) return true;
        WaitUntil(due);
        if (StopRequested()) return false;
      }
      Line line = reader->Take();
      if (arguments_.keep_timestamps) line.record.timestamp_ms = line.timestamp_ms;
      bytes += line.record.value ? line.record.value->size() : 0;
      batch_.push_back(std::move(line.record));
    }
    return true;
  }

  static void WaitUntil(steady_clock::time_point due) {
    while (!StopRequested()) {
      const auto left = due - steady_clock::now();
      if (left <= steady_clock::duration::zero()) return;
      std::this_thread::sleep_for(std::min<steady_clock::duration>(left, kSlice));
    }
  }

  void Draw(const Summary& summary) {
    double fraction = 0;
    for (const auto& reader : *readers_) fraction += reader->fraction() / static_cast<double>(readers_->size());
    if (arguments_.limit > 0) {
      fraction = std::max(fraction, static_cast<double>(summary.records) / static_cast<double>(arguments_.limit));
    }
    const double seconds = std::chrono::duration<double>(steady_clock::now() - start_).count();
    const double rate = seconds > 0 ? static_cast<double>(summary.records) / seconds : 0;
    bar_.Update(fraction, StrCat(summary.records, " records, ", static_cast<std::int64_t>(rate), "/s"));
  }

  const ReplayArguments& arguments_;
  KafkaProducer* const producer_;
  std::vector<std::unique_ptr<FileReader>>* const readers_;
  ProgressBar bar_;
  steady_clock::time_point start_;
  std::optional<std::int64_t> first_timestamp_ms_;
  std::vector<OutRecord> batch_;
};

Result<KafkaOptions> KafkaOf(const ReplayArguments& arguments) {
  KafkaOptions options;
  options.bootstrap_servers = arguments.bootstrap_servers;
  options.client_id = "freshet-replay";
  for (const std::string& text : arguments.librdkafka_options) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidArgument("--librdkafka-option wants KEY=VALUE, as in security.protocol=ssl");
    }
    options.librdkafka_options[text.substr(0, equals)] = text.substr(equals + 1);
  }
  FRESHET_TRY(ValidateLibrdkafkaOptions(options.librdkafka_options));
  return options;
}

struct Source {
  std::string topic;
  std::string path;
};

// "items.jsonl" goes to --topic; "items=items.jsonl" to the topic that it names.
Result<std::vector<Source>> SourcesOf(const ReplayArguments& arguments) {
  std::vector<Source> sources;
  for (const std::string& text : arguments.files) {
    std::error_code error;
    Source source{arguments.topic, text};
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos && equals > 0 && !std::filesystem::exists(text, error)) {
      source = {text.substr(0, equals), text.substr(equals + 1)};
    }
    if (!std::filesystem::exists(source.path, error)) return NotFound(source.path + ": no such file");
    if (source.topic.empty()) return InvalidArgument(StrCat(text, ": give --topic, or TOPIC=FILE"));
    sources.push_back(std::move(source));
  }
  return sources;
}

Status RunReplay(const ReplayArguments& arguments, const KafkaOptions& options) {
  FRESHET_ASSIGN(const std::vector<Source> sources, SourcesOf(arguments));
  InstallStopSignals();
  FRESHET_ASSIGN(const std::unique_ptr<KafkaProducer> producer, OpenKafkaProducer(options));
  std::set<std::string> topics;
  for (const Source& source : sources) {
    if (!topics.insert(source.topic).second) continue;
    const Result<std::int32_t> partitions = producer->PartitionCount(source.topic);
    if (!partitions.ok()) return partitions.status().Prefixed("Kafka at " + options.bootstrap_servers);
  }

  std::vector<std::unique_ptr<FileReader>> readers;
  for (const Source& source : sources) readers.push_back(std::make_unique<FileReader>(source.path, source.topic));
  Summary summary;
  Status status = [&] { return Replay(arguments, producer.get(), &readers).Run(&summary); }();
  const double per_second = summary.seconds > 0 ? static_cast<double>(summary.records) / summary.seconds : 0;
  std::fprintf(stderr, "sent %llu records in %.2f s (%.0f/s), %llu failed\n",
               static_cast<unsigned long long>(summary.records), summary.seconds, per_second,
               static_cast<unsigned long long>(summary.failed));
  if (arguments.json) {
    JsonWriter json;
    json.BeginObject().Key("records").Uint(summary.records).Key("seconds").Double(summary.seconds);
    json.Key("per_second").Double(per_second).Key("failed").Uint(summary.failed).EndObject();
    std::printf("%s\n", json.Take().c_str());
  }
  return status;
}

}  // namespace

void AddReplayCommand(CLI::App* app, CommandRunner* run) {
  auto arguments = std::make_shared<ReplayArguments>();
  CLI::App* command = app->add_subcommand(
      "replay", "Send files of events to Kafka, merged by their timestamps, and wait until all are acknowledged");
  command->add_option("FILE", arguments->files, "Event files (JSON lines, plain or zstd), or TOPIC=FILE")->required();
  command->add_option("--topic", arguments->topic, "Topic of the files that do not name one");
  command->add_option("--bootstrap-servers", arguments->bootstrap_servers, "host:port of the broker")
      ->capture_default_str();
  CLI::Option* rate =
      command->add_option("--rate", arguments->rate, "Records per second (default: as fast as they are taken)")
          ->check(CLI::PositiveNumber);
  command->add_option("--speed", arguments->speed, "Recorded gaps divided by this: 3600 plays an hour in a second")
      ->check(CLI::PositiveNumber)
      ->excludes(rate);
  command->add_option("--limit", arguments->limit, "Send at most so many records")->check(CLI::PositiveNumber);
  command->add_flag("--keep-timestamps", arguments->keep_timestamps,
                    "Record time = the line's timestamp, not now (freshness is measured from the record time)");
  command->add_option("--librdkafka-option", arguments->librdkafka_options,
                      "KEY=VALUE for librdkafka; may be repeated");
  command->add_flag("--json", arguments->json, "Print the counts as one JSON object");
  command->footer(
      "Examples:\n"
      "  freshet replay /tmp/shop/items.jsonl --topic items --bootstrap-servers \"$(cat /tmp/broker.address)\"\n"
      "  freshet replay interactions=/tmp/shop/interactions.jsonl users=/tmp/shop/users.jsonl --limit 20000 \\\n"
      "    --bootstrap-servers \"$(cat /tmp/broker.address)\"\n"
      "Exit codes: 0 all acknowledged (or ended by a signal), 1 a file is broken, 69 the broker is away.");
  command->callback([arguments, run] {
    Result<KafkaOptions> options = KafkaOf(*arguments);
    if (!options.ok()) throw CLI::ValidationError("--librdkafka-option", options.status().message());
    *run = [arguments, options = std::move(*options)] { return ExitCode(RunReplay(*arguments, options)); };
  });
}

}  // namespace freshet
