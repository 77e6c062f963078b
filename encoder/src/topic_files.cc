#include "freshet/encoder/topic_files.h"

#include <chrono>
#include <fstream>
#include <variant>

#include "freshet/core/clock.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/encoder.h"
#include "freshet/ingest/record_codec.h"
#include "package_writer.h"

namespace freshet {
namespace {

constexpr std::chrono::milliseconds kPollWait{100};
constexpr std::int64_t kLookEveryUs = 100'000;
constexpr std::int64_t kTellEvery = 4096;  // records
constexpr std::size_t kMaxOffsetsBytes = std::size_t{1} << 24;
constexpr std::string_view kOffsets = "/offsets.json";

std::string PathOf(const std::string& directory, TopicRole role) {
  const char* name = role == TopicRole::kItems ? "items" : role == TopicRole::kInteractions ? "interactions" : "users";
  return StrCat(directory, "/", name, ".jsonl");
}

// A line of the default schema. Attributes stay behind: they do not feed the towers.
std::string LineOf(const Event& event) {
  JsonWriter out;
  out.BeginObject();
  std::int64_t timestamp_ms = event.record_timestamp_ms;
  if (const auto* item = std::get_if<ItemUpdate>(&event.body)) {
    out.Key("item_id").String(item->item_id);
    if (item->deleted) {
      out.Key("deleted").Bool(true);
    } else {
      out.Key("features").Raw(FeaturesToJson(item->features));
    }
  } else if (const auto* user = std::get_if<UserUpdate>(&event.body)) {
    out.Key("user_id").String(user->user_id);
    if (user->forgotten) {
      out.Key("deleted").Bool(true);
    } else {
      out.Key("features").Raw(FeaturesToJson(user->features));
    }
  } else {
    const auto& one = std::get<Interaction>(event.body);
    out.Key("user_id").String(one.user_id).Key("item_id").String(one.item_id).Key("event").String(one.event);
    out.Key("value").Double(one.value);
    timestamp_ms = TimeOf(one, event.record_timestamp_ms);  // as the engine keeps it
  }
  return out.Key("timestamp").Int(timestamp_ms).EndObject().Take() + "\n";
}

class Writer {
 public:
  Writer(RecordSource* source, const TopicFilesOptions& options, const std::function<bool(double)>& progress)
      : source_(source), options_(options), progress_(progress) {}

  Result<TopicFiles> Run() {
    FRESHET_TRY(CreateDirectories(options_.directory));
    FRESHET_TRY(RemoveOffsets());
    for (const auto& [name, topic] : options_.topics) {
      std::ofstream& file = files_[topic.role];
      file.open(PathOf(options_.directory, topic.role), std::ios::trunc);
      if (!file) return IoError(StrCat(PathOf(options_.directory, topic.role), ": cannot be written"));
    }
    if (files_.count(TopicRole::kItems) == 0 || files_.count(TopicRole::kInteractions) == 0) {
      return InvalidArgument("topics of items and of interactions are wanted");
    }
    for (const auto& [partition, until] : options_.until) {
      if (until > 0) open_.emplace(partition, until);
      all_ += until;
    }
    FRESHET_TRY(Read());
    for (auto& [role, file] : files_) {
      if (!file.flush()) return IoError(StrCat(PathOf(options_.directory, role), ": cannot be written"));
    }
    FRESHET_TRY(WriteOffsets());
    return FindTopicFiles(options_.directory);
  }

 private:
  Status RemoveOffsets() {
    const std::string path = StrCat(options_.directory, kOffsets);
    return FileExists(path) ? WriteFileAtomically(path, "") : Status::Ok();
  }

  Status Read() {
    std::int64_t heard_us = clock_.MonotonicUs();
    std::int64_t looked_us = heard_us;
    while (!open_.empty()) {
      FRESHET_ASSIGN(const PollResult polled, source_->Poll(kPollWait));
      const std::int64_t before = records_;
      const bool record = polled.kind == PollResult::Kind::kRecord;
      if (record) FRESHET_TRY(Take(polled.record));
      const std::int64_t now_us = clock_.MonotonicUs();
      if (records_ != before) {
        heard_us = now_us;
        if (records_ % kTellEvery != 0) continue;
      } else {
        // Other partitions may go on for ever behind their ends.
        const bool over = now_us - heard_us > std::int64_t{1'000'000} * options_.patience_seconds;
        if (record && !over && now_us - looked_us < kLookEveryUs) continue;
        looked_us = now_us;
        // The last offsets before an end may hold nothing to read: marks of transactions, what was compacted away.
        for (const PartitionProgress& at : source_->Positions()) {
          const auto open = open_.find(at.partition);
          if (open != open_.end() && at.next_offset >= open->second) open_.erase(open);
        }
        if (!open_.empty() && over) {
          return Unavailable(StrCat("topic ", open_.begin()->first.topic, ": partition ",
                                    open_.begin()->first.partition, " does not come to offset ",
                                    open_.begin()->second));
        }
      }
      const double share = all_ == 0 ? 1 : static_cast<double>(records_) / static_cast<double>(all_);
      if (progress_ && !progress_(std::min(share, 1.0))) return Cancelled("stopped");
    }
    return Status::Ok();
  }

  Status Take(const RawRecord& record) {
    const TopicPartition partition{std::string(record.topic), record.partition};
    const auto until = options_.until.find(partition);
    const auto topic = options_.topics.find(partition.topic);
    if (until == options_.until.end() || topic == options_.topics.end()) return Status::Ok();
    if (record.offset + 1 >= until->second) open_.erase(partition);
    if (record.offset >= until->second) return Status::Ok();
    ++records_;
    Event event;
    event.record_timestamp_ms = record.timestamp_ms;
    if (const Status status = topic->second.decoder->Decode(record, &event); !status.ok()) {
      if (status.code() != Code::kInvalidArgument) return status;
      ++poison_;
      return Status::Ok();
    }
    if (std::holds_alternative<Skipped>(event.body)) return Status::Ok();
    files_[topic->second.role] << LineOf(event);
    return Status::Ok();
  }

  Status WriteOffsets() {
    JsonWriter out;
    out.BeginObject().Key("records").Int(records_).Key("poison").Int(poison_);
    out.Key("users").Bool(files_.count(TopicRole::kUsers) > 0).Key("partitions").BeginArray();
    for (const auto& [partition, until] : options_.until) {
      out.BeginObject().Key("topic").String(partition.topic).Key("partition").Int(partition.partition);
      out.Key("until").Int(until).EndObject();
    }
    return WriteFileAtomically(StrCat(options_.directory, kOffsets), out.EndArray().EndObject().Take() + "\n");
  }

  RecordSource* const source_;
  const TopicFilesOptions& options_;
  const std::function<bool(double)>& progress_;
  const SystemClock clock_;
  std::map<TopicRole, std::ofstream> files_;
  std::map<TopicPartition, std::int64_t> open_;  // not yet read to their offsets
  std::int64_t all_ = 0;
  std::int64_t records_ = 0;
  std::int64_t poison_ = 0;
};

}  // namespace

Result<TopicFiles> WriteTopicFiles(RecordSource* source, const TopicFilesOptions& options,
                                   const std::function<bool(double)>& progress) {
  return Writer(source, options, progress).Run();
}

std::string TopicFilesDirectory(const std::string& out_directory) { return PathBeside(out_directory, ".events"); }

Result<TopicFiles> FindTopicFiles(const std::string& directory) {
  const std::string path = StrCat(directory, kOffsets);
  if (!FileExists(path)) return NotFound(StrCat(path, ": there is none"));
  FRESHET_ASSIGN(const std::string text, ReadFile(path, kMaxOffsetsBytes));
  if (text.empty()) return NotFound(StrCat(path, ": the files beside it are not complete"));
  FRESHET_ASSIGN(const auto json, ParseJson(text));
  const JsonValue* records = JsonFind(*json, "records");
  const JsonValue* poison = JsonFind(*json, "poison");
  const JsonValue* users = JsonFind(*json, "users");
  if (records == nullptr || poison == nullptr || users == nullptr || !records->IsInt64() || !poison->IsInt64() ||
      !users->IsBool()) {
    return Corruption(StrCat(path, ": is not what was written"));
  }
  TopicFiles files;
  files.items_file = PathOf(directory, TopicRole::kItems);
  files.interactions_file = PathOf(directory, TopicRole::kInteractions);
  if (users->GetBool()) files.users_file = PathOf(directory, TopicRole::kUsers);
  files.records = records->GetInt64();
  files.poison = poison->GetInt64();
  return files;
}

}  // namespace freshet
