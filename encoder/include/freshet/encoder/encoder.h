// The ports of the towers, and what the encode stage hands on.
//
// Place in the flow: events -> vectors. An ItemEncoder is called with one micro-batch at a time by the encode stage; a
// UserEncoder by the query path. Every vector belongs to exactly one embedding space, named by space_id(): vectors of
// different spaces are never compared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/metric.h"
#include "freshet/core/status.h"
#include "freshet/ingest/event.h"

namespace freshet {

class ItemEncoder {
 public:
  virtual ~ItemEncoder() = default;
  [[nodiscard]] virtual int dim() const = 0;
  [[nodiscard]] virtual Metric metric() const = 0;
  [[nodiscard]] virtual const std::string& space_id() const = 0;
  // Whether an item's vector comes from its record, not from its features alone.
  [[nodiscard]] virtual bool reads_vector() const { return false; }
  // `out` holds items.size() rows of dim() floats. All or nothing: one bad item fails the call (the stage bisects).
  // Errors: kInvalidArgument when an item cannot be embedded (missing vector, non-finite output, the model raised);
  // kResourceExhausted when memory does not suffice for so many items at once; permanent codes when the model itself is
  // broken. Not thread-safe: one caller.
  [[nodiscard]] virtual Status Encode(std::span<const ItemUpdate* const> items, std::span<float> out) = 0;
  // Whether the model still answers what it answered when it was loaded: asked before items are held to be at fault for
  // a refusal. Costs about one small call. Errors: permanent ones that name the model; kResourceExhausted. Same caller.
  [[nodiscard]] virtual Status Check() { return Status::Ok(); }
};

struct HistoryEntry {
  std::string item_id;
  std::string event;
  double value = 1.0;
  std::int64_t timestamp_ms = 0;
};

// A return or a thumb down is not what the towers should bring back: neither training nor a user tower reads it.
[[nodiscard]] constexpr bool IsTaken(double value) { return value > 0; }

// When it happened. What is said to be of the future is of when it was written.
[[nodiscard]] inline std::int64_t TimeOf(const Interaction& interaction, std::int64_t record_timestamp_ms) {
  return record_timestamp_ms > 0 ? std::min(interaction.timestamp_ms, record_timestamp_ms) : interaction.timestamp_ms;
}

// What is known of a user at query time. History is oldest first.
struct UserContext {
  std::string user_id;
  Features features;
  std::vector<HistoryEntry> history;
};

class UserEncoder {
 public:
  virtual ~UserEncoder() = default;
  [[nodiscard]] virtual int dim() const = 0;
  [[nodiscard]] virtual const std::string& space_id() const = 0;
  // Thread-safe. `out` holds dim() floats. Errors as ItemEncoder::Encode.
  [[nodiscard]] virtual Status Encode(const UserContext& user, std::span<float> out) const = 0;
};

// For people who bring their own embeddings: checks dimension, finiteness and non-zero length, and passes on
// (normalised for cosine). space_id is `passthrough-<dim>-<metric>` unless given.
[[nodiscard]] std::unique_ptr<ItemEncoder> MakePassthroughEncoder(int dim, Metric metric, std::string space_id = "");

}  // namespace freshet
