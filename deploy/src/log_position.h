// Whether a follower's state can go on in the changelog, and what to do where it cannot.
//
// Place in the flow: private to sidecar.cc, before it follows. A state is of no use where the log no longer holds what
// came after it (user-events is kept for a time), where it is another log than it was (made anew, or cut), or where it
// missed so much that tombstones may have been compacted away meanwhile: what they deleted would be answered for ever.
// Then the newest snapshot of the engine takes its place; where that does not help, what the log holds, read from its
// beginning. A state of another embedding space than the model package's is replaced likewise (space_move.h). Not
// thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/deploy/config.h"
#include "node.h"

namespace freshet {

struct LostPosition {
  enum class Cause {
    kUserEvents,  // some are gone that were not read
    kTombstones,  // deletes may be
    kOtherLog     // it is not the log that this state was made from
  } cause = Cause::kOtherLog;
  std::string why;
};

// Opens the node with a state that the log can be followed from. *forgotten: partitions that are to be read from where
// the log begins, whatever is stored of them. Errors: those of Node::Open(); kFailedPrecondition where the topics were
// made anew and no snapshot is newer: they may hold only what has changed since.
[[nodiscard]] Result<std::unique_ptr<Node>> OpenWhereTheLogIs(const Config& config,
                                                              const std::function<void(double)>& progress,
                                                              std::vector<TopicPartition>* forgotten);

// Nothing: the log can be followed, as far as can be told. While no broker answers, nothing can.
[[nodiscard]] std::optional<LostPosition> FindLoss(const Config& config, const Node& node);

// Where only reading showed it: leaves word in the data directory for the next OpenWhereTheLogIs().
void RememberLoss(const Config& config, const Node& node, const Status& status);

}  // namespace freshet
