// hnswlib 0.8.0 as its users have it: floats, its own distances, its own search.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace freshet::bench {

class PeerHnswlib {
 public:
  PeerHnswlib(bool l2, int dim, std::size_t capacity, std::size_t m, std::size_t ef_construction,
              bool replace_deleted = false);
  ~PeerHnswlib();
  void Add(std::uint64_t label, const float* vector);
  // Marks it; with replace_deleted its slot is taken by a later Add.
  void Delete(std::uint64_t label);
  void SetEf(std::size_t ef);
  // Labels, nearest first; those of the dead are left out.
  [[nodiscard]] std::vector<std::uint64_t> Search(const float* query, std::size_t k) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace freshet::bench
