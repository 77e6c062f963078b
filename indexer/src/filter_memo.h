// What lasting filters allow, a bit a slot: so a search asks a filter of a million rows once, and then of what changes.
//
// Place in the flow: a part of the streaming index; its searches look at the bits first, and ask the filter itself only
// of what they are about to return. Entries do not change once they are made. Bounded by bytes: the one used longest
// ago goes first. Thread-safe. Errors: std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "freshet/indexer/index.h"
#include "segment.h"

namespace freshet {

class FilterMemo {
 public:
  // `max_bytes` 0: nothing is remembered.
  explicit FilterMemo(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  // Of live rows and all that died since: what the filter does not allow has no bit. Up to segment.used() as it was at
  // the call; rows that came later have none. It is this thread's until its next call. Null: there is no room for it.
  // REQUIRES: no slot is freed meanwhile (read_epoch.h).
  [[nodiscard]] const std::vector<std::uint64_t>* BitsOf(const Segment& segment, const LastingFilter& filter,
                                                         std::size_t used);
  [[nodiscard]] std::size_t bytes() const;

 private:
  struct Entry {
    std::uint64_t key = 0;
    std::uint64_t as_of = 0;  // changes up to this one are in it
    std::vector<std::uint64_t> words;
  };
  using Entries = std::list<std::shared_ptr<const Entry>>;

  [[nodiscard]] std::shared_ptr<const Entry> Find(std::uint64_t key);
  void Keep(std::shared_ptr<const Entry> entry);
  [[nodiscard]] static std::size_t BytesOf(const Entry& entry) { return sizeof(Entry) + 8 * entry.words.size() + 128; }

  const std::size_t max_bytes_;
  mutable std::mutex mu_;
  // Guarded by mu_:
  Entries entries_;  // the newest first
  std::unordered_map<std::uint64_t, Entries::iterator> by_key_;
  std::size_t bytes_ = 0;
};

}  // namespace freshet
