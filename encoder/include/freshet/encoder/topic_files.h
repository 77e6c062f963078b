// What topics hold, as the event files that training and judging read.
//
// Place in the flow: RecordSource -> the stream's own decoders -> items.jsonl, interactions.jsonl, users.jsonl; off the
// stream, before `freshet train`. Each partition is read to an offset that is fixed beforehand, so that the same call
// over the same log gives the same files. Stateless.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "freshet/core/status.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/record_source.h"

namespace freshet {

struct TopicReader {
  TopicRole role = TopicRole::kItems;
  const EventDecoder* decoder = nullptr;  // not owned
};

struct TopicFilesOptions {
  std::string directory;                         // made where it is missing; files there are replaced
  std::map<std::string, TopicReader> topics;     // by name
  std::map<TopicPartition, std::int64_t> until;  // of each partition the first offset that is not read
  int patience_seconds = 60;  // without a record before those offsets, until the topics count as unreadable
};

struct TopicFiles {
  std::string items_file;
  std::string interactions_file;
  std::string users_file;  // empty: no topic of users
  std::int64_t records = 0;
  std::int64_t poison = 0;  // records left out: they do not decode
};

// Reads until each partition has come to its offset. `offsets.json` in the directory says, once all is written, how far
// each was read. Errors: kInvalidArgument (a topic without items or interactions), kUnavailable (nothing comes any
// more), kCancelled when `progress` (fraction of the records) returns false, kIoError, and what the source says.
[[nodiscard]] Result<TopicFiles> WriteTopicFiles(RecordSource* source, const TopicFilesOptions& options,
                                                 const std::function<bool(double)>& progress);
// Where they lie for a training whose package becomes `out_directory`: beside it.
[[nodiscard]] std::string TopicFilesDirectory(const std::string& out_directory);
// What an earlier call left in the directory; kNotFound where none has ended there.
[[nodiscard]] Result<TopicFiles> FindTopicFiles(const std::string& directory);

}  // namespace freshet
