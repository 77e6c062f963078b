// Event files as numbered entities, positives in time order, and their parts.
//
// Place in the flow: read by training and by judging, so that both see the same data cut in the same way. Nothing that
// lies behind the part to judge is in it: later items are no candidates, features are those that were known when that
// part began, and what is deleted later still stands. Of a user who was forgotten, whenever that was, nothing from
// before is there. Plain values, thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/encoder/split.h"
#include "freshet/ingest/event_file.h"

namespace freshet {

struct DatasetOptions {
  std::string items_file;
  std::string interactions_file;
  std::string users_file;     // may be empty
  std::int64_t until_ms = 0;  // only events before this time are seen at all; 0: all
  SplitOptions split;
  Part judged = Part::kValidation;  // kValidation or kTest
  EventFileSchemas schemas = {};    // of the files
};

struct Positive {
  std::int32_t user = 0;
  std::int32_t item = 0;
  std::int64_t timestamp_ms = 0;
  Part part = Part::kTrain;
  std::int32_t event = 0;  // of Dataset::event_names
  double value = 1;        // above 0
  bool asked = true;       // where its part is judged: its event is one of SplitOptions::events
};

struct Dataset {
  std::vector<ItemUpdate> items;  // candidates, as they were when the judged part began (later ones: at first)
  std::vector<std::int64_t> item_first_ms;  // when each was first seen
  std::vector<UserContext> users;           // who has positives up to the end of the judged part; history empty
  std::vector<Positive> positives;          // in time order, up to the end of the judged part
  std::vector<std::string> event_names;     // in the order of their appearance in the file
  std::int64_t judged_from_ms = 0;          // the largest number where the split is not one by time
  // Interactions left out: of items that are not in the file, or were deleted by then ...
  std::int64_t unknown_items = 0;
  std::string first_unknown;          // of those that are not in the file, or had been deleted; may be empty
  std::int64_t later_items = 0;       // ... and of items that are dated behind the judged part
  std::vector<std::string> warnings;  // of both: what it is and what to do
};

// The event names, for a message: what is nearest to `event`, or all of them.
[[nodiscard]] std::string EventsThatThereAre(const std::string& event, const std::vector<std::string>& names);

// Errors: kConfig (an event is asked for that never happens), kNotFound, kInvalidArgument (no items, no positives,
// files that do not belong together), kIoError.
[[nodiscard]] Result<Dataset> LoadDataset(const DatasetOptions& options);

}  // namespace freshet
