// Which items must be live, with which vector and title: the whole truth in a few lines.
//
// A record is applied in the order of its partition's offsets; the last write of an item wins; poison changes nothing.
// An item id always goes to the same partition, so one map in the order of sending is enough.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "freshet/ingest/record_source.h"

namespace freshet::test {

class Oracle {
 public:
  struct Item {
    std::vector<float> vector;  // as sent, not normalised
    std::string title;
  };
  void Apply(const OutRecord& record, const std::optional<Item>& item, bool poison) {
    if (poison) {
      ++poison_;
    } else if (item) {
      live_[*record.key] = *item;
    } else {
      live_.erase(*record.key);
    }
  }
  [[nodiscard]] const std::map<std::string, Item>& live() const { return live_; }
  [[nodiscard]] std::size_t poison() const { return poison_; }

 private:
  std::map<std::string, Item> live_;
  std::size_t poison_ = 0;
};

// Random records on a topic of items: adds, updates, deletes, re-adds, repeats, poison. Few ids, so that they collide.
class ItemStream {
 public:
  // `null_keys`: poison without a key as well; a compacted topic of a real broker does not take it.
  ItemStream(std::uint64_t seed, std::string topic, int ids, int dim, bool null_keys = true)
      : random_(seed), topic_(std::move(topic)), ids_(ids), dim_(dim), null_keys_(null_keys) {}
  // One record, already told to the oracle.
  OutRecord Next(Oracle* oracle);

 private:
  std::mt19937_64 random_;
  const std::string topic_;
  const int ids_;
  const int dim_;
  const bool null_keys_;
  std::uint64_t count_ = 0;
  std::optional<std::pair<OutRecord, std::optional<Oracle::Item>>> last_;
};

}  // namespace freshet::test
