// What filters that are asked with again and again have matched, so that only what has changed since is looked at.
//
// Place in the flow: a part of the Catalog, which evaluates filters chunk by chunk and knows when each chunk changed
// last. Entries do not change once they are made; a filter that was met twice lately gets one. Bounded: by bytes, the
// one used longest ago goes first; and by the size of a filter. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "freshet/store/attribute_index.h"
#include "freshet/store/filter.h"

namespace freshet {

class FilterCache {
 public:
  // Which slots matched, and as of which change of each chunk.
  struct Entry {
    std::vector<std::uint64_t> words;
    std::vector<std::uint64_t> changed_at;  // by chunk
    std::uint64_t columns_version = 0;

    // The words of a chunk; null where they are not as of that change.
    [[nodiscard]] const std::uint64_t* Find(std::size_t chunk, std::uint64_t changed) const {
      const bool known = chunk < changed_at.size() && changed_at[chunk] == changed;
      return known ? words.data() + chunk * AttributeIndex::kChunkWords : nullptr;
    }
  };
  struct Found {
    std::shared_ptr<const Entry> entry;  // null: there is none
    std::string key;                     // empty: not to be kept
    std::uint64_t number = 0;            // of the filter, and no other's ever; 0 without an entry
  };
  struct Stats {
    std::size_t bytes = 0;
    std::uint64_t found = 0;   // filters that there was an entry for
    std::uint64_t missed = 0;  // others
  };

  // `max_bytes` 0: nothing is kept.
  explicit FilterCache(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  [[nodiscard]] Found Find(const Filter& filter);
  // In place of what there is for it. `key`: as Find() gave it, not empty. The filter keeps its number where the entry
  // is of the same columns.
  void Keep(const std::string& key, std::shared_ptr<const Entry> entry);
  // All filters get new numbers: for each of them other slots count now.
  void Renumber();
  [[nodiscard]] Stats stats() const;

 private:
  struct Kept {
    std::string key;
    std::shared_ptr<const Entry> entry;
    std::size_t bytes = 0;
    std::uint64_t number = 0;
  };
  static constexpr std::size_t kRecent = 4096;

  const std::size_t max_bytes_;

  mutable std::mutex mu_;
  // Guarded by mu_:
  std::list<Kept> kept_;  // the newest first
  std::unordered_map<std::string_view, std::list<Kept>::iterator> by_key_;
  std::uint64_t last_number_ = 0;
  std::array<std::uint64_t, kRecent> recent_{};  // hashes of filters that were met, each at its place
  Stats stats_;
};

// The same for filters that are written alike, and for no others.
[[nodiscard]] std::string FilterKey(const Filter& filter);

}  // namespace freshet
