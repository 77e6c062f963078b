// The only file that names hnswlib.
#include "graph.h"

#include <hnswlib/hnswlib.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "buffer.h"

namespace freshet {
namespace {

class CodeSpace final : public hnswlib::SpaceInterface<float> {
 public:
  explicit CodeSpace(const Int8Codes* codes) : codes_(codes) {}
  size_t get_data_size() override { return codes_->row_bytes(); }
  hnswlib::DISTFUNC<float> get_dist_func() override {
    return [](const void* a, const void* b, const void* codes) {
      return static_cast<const Int8Codes*>(codes)->Distance(a, b);
    };
  }
  void* get_dist_func_param() override { return const_cast<Int8Codes*>(codes_); }

 private:
  const Int8Codes* codes_;
};

// hnswlib, with the level-0 nodes laid out for our search: a node begins on a cache line with its codes, so that a
// distance touches the fewest lines; then its links, then its slot.
class Hnsw final : public hnswlib::HierarchicalNSW<float> {
 public:
  Hnsw(CodeSpace* space, std::size_t capacity, const HnswOptions& options)
      : HierarchicalNSW(space, capacity, options.m, options.ef_construction, options.seed) {
    offsetData_ = 0;
    offsetLevel0_ = (data_size_ + 3) / 4 * 4;
    label_offset_ = offsetLevel0_ + size_links_level0_;
    size_data_per_element_ = (label_offset_ + sizeof(hnswlib::labeltype) + 63) / 64 * 64;
    std::free(data_level0_memory_);
    data_level0_memory_ = nullptr;
    // One more than asked for: addPoint clears a node's size from its links on, into the node after it.
    data_level0_memory_ = static_cast<char*>(AllocateHuge((capacity + 1) * size_data_per_element_));
  }
  [[nodiscard]] const char* Node(std::uint32_t id) const {
    return data_level0_memory_ + std::size_t{id} * size_data_per_element_;
  }
};

// A candidate as one number that sorts by distance: the float's bits made monotone, the node, whether it was expanded.
std::uint64_t Key(float distance, std::uint32_t node) {
  const auto bits = std::bit_cast<std::uint32_t>(distance);
  const std::uint32_t ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffU : 0x80000000U);
  return std::uint64_t{ordered} << 32 | std::uint64_t{node} << 1;
}
std::uint32_t NodeOf(std::uint64_t key) { return static_cast<std::uint32_t>(key) >> 1; }
float DistanceOf(std::uint64_t key) {
  const auto ordered = static_cast<std::uint32_t>(key >> 32);
  return std::bit_cast<float>(ordered ^ ((ordered >> 31) != 0 ? 0x80000000U : 0xffffffffU));
}

// Where `key` belongs in the sorted pool, without a branch that is guessed wrong half of the time.
std::size_t Place(const std::uint64_t* pool, std::size_t size, std::uint64_t key) {
  const std::uint64_t* base = pool;
  for (std::size_t left = size; left > 1;) {
    const std::size_t half = left / 2;
    base = base[half - 1] < key ? base + half : base;
    left -= half;
  }
  return static_cast<std::size_t>(base - pool) + (*base < key ? 1 : 0);
}

// What a search needs, kept by its thread: a search allocates nothing once this is warm.
struct Scratch {
  std::vector<std::uint64_t> visited;  // one bit a node, so that a million nodes fit into the processor's cache
  std::vector<std::uint32_t> touched;  // the words of `visited` to clear afterwards
  std::vector<std::uint64_t> pool;     // the best so far, sorted
  std::vector<std::uint32_t> fresh;    // neighbours that were not seen before
  std::vector<Candidate> found;
  std::vector<char> query;

  void Prepare(std::size_t nodes, std::size_t width, std::size_t row_bytes) {
    // A search that ran out of memory may have left bits behind.
    for (const std::uint32_t word : touched) visited[word] = 0;
    touched.clear();
    if (visited.size() * 64 < nodes) visited.resize((nodes + 63) / 64);
    if (pool.size() < width + 1) pool.resize(width + 1);
    if (query.size() < row_bytes) query.resize(row_bytes);
  }
  // Whether the node is new.
  [[gnu::always_inline]] bool Visit(std::uint32_t node) {
    std::uint64_t& word = visited[node / 64];
    const std::uint64_t bit = std::uint64_t{1} << (node % 64);
    if ((word & bit) != 0) return false;
    if (word == 0) touched.push_back(node / 64);
    word |= bit;
    return true;
  }
};

}  // namespace

struct Graph::Impl {
  Impl(const Int8Codes* wanted_codes, std::size_t capacity, const HnswOptions& wanted_options)
      : codes(wanted_codes), options(wanted_options), space(wanted_codes), hnsw(&space, capacity, wanted_options) {}

  const Int8Codes* codes;
  const HnswOptions options;
  CodeSpace space;
  Hnsw hnsw;
};

Graph::Graph(const Int8Codes* codes, std::size_t capacity, const HnswOptions& options)
    : impl_(std::make_unique<Impl>(codes, capacity, options)) {}
Graph::Graph(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Graph::~Graph() = default;

std::size_t Graph::size() const { return impl_->hnsw.cur_element_count; }
std::size_t Graph::bytes_per_node() const {
  return impl_->hnsw.size_data_per_element_ + sizeof(std::mutex) + sizeof(int) + sizeof(void*) + 2;
}

void Graph::Add(std::uint32_t slot, const float* vector) {
  std::vector<char> row(impl_->codes->row_bytes());
  impl_->codes->Encode(vector, row.data());
  impl_->hnsw.addPoint(row.data(), slot);
  impl_->hnsw.label_lookup_.clear();  // 40 bytes a node, for a look-up that is not used: slots are given once
}

const std::vector<Candidate>& Graph::Search(const float* query_vector, std::size_t width) const {
  thread_local Scratch scratch;
  const Hnsw& hnsw = impl_->hnsw;
  const Int8Codes codes = *impl_->codes;
  scratch.found.clear();
  const std::size_t nodes = hnsw.cur_element_count;
  if (nodes == 0 || width == 0) return scratch.found;
  scratch.Prepare(nodes, width, codes.row_bytes());
  const char* query = scratch.query.data();
  codes.Encode(query_vector, scratch.query.data());

  std::uint32_t entry = hnsw.enterpoint_node_;
  float entry_distance = codes.Distance(query, hnsw.Node(entry));
  for (int level = hnsw.maxlevel_; level > 0; --level) {
    for (bool nearer = true; nearer;) {
      nearer = false;
      const auto* links = reinterpret_cast<const std::uint32_t*>(
          hnsw.linkLists_[entry] + static_cast<std::size_t>(level - 1) * hnsw.size_links_per_element_);
      const std::size_t count = *reinterpret_cast<const std::uint16_t*>(links);
      for (std::size_t i = 1; i <= count; ++i) __builtin_prefetch(hnsw.Node(links[i]));
      for (std::size_t i = 1; i <= count; ++i) {
        const float distance = codes.Distance(query, hnsw.Node(links[i]));
        if (distance < entry_distance) {
          entry_distance = distance;
          entry = links[i];
          nearer = true;
        }
      }
    }
  }

  // Best first over level 0. The pool is sorted: what is inserted moves the rest by one, which for the widths that
  // people ask for costs less than two heaps.
  std::uint64_t* pool = scratch.pool.data();
  pool[0] = Key(entry_distance, entry);
  std::size_t size = 1;
  scratch.Visit(entry);
  const std::size_t row_bytes = codes.row_bytes();
  std::vector<std::uint32_t>& fresh = scratch.fresh;
  if (fresh.size() < hnsw.maxM0_) fresh.resize(hnsw.maxM0_);
  for (std::size_t next = 0; next < size;) {
    if ((pool[next] & 1) != 0) {
      ++next;
      continue;
    }
    const std::uint32_t node = NodeOf(pool[next]);
    pool[next] |= 1;
    const auto* links = reinterpret_cast<const std::uint32_t*>(hnsw.Node(node) + hnsw.offsetLevel0_);
    const std::size_t count = *reinterpret_cast<const std::uint16_t*>(links);
    std::size_t fresh_count = 0;
    for (std::size_t i = 1; i <= count; ++i) {
      if (!scratch.Visit(links[i])) continue;
      fresh[fresh_count++] = links[i];
      const char* row = hnsw.Node(links[i]);
      for (std::size_t at = 0; at < row_bytes; at += 64) __builtin_prefetch(row + at);
    }
    std::size_t lowest = ++next;
    for (std::size_t i = 0; i < fresh_count; ++i) {
      const std::uint64_t key = Key(codes.Distance(query, hnsw.Node(fresh[i])), fresh[i]);
      if (size == width && key > pool[size - 1]) continue;
      const std::size_t at = Place(pool, size, key);
      std::memmove(pool + at + 1, pool + at, (size - at) * sizeof(*pool));
      pool[at] = key;
      if (size < width) ++size;
      lowest = std::min(lowest, at);
    }
    next = lowest;
  }

  scratch.found.reserve(size);
  for (std::size_t i = 0; i < size; ++i) {
    const auto slot = hnsw.getExternalLabel(NodeOf(pool[i]));
    scratch.found.push_back({DistanceOf(pool[i]), static_cast<std::uint32_t>(slot)});
  }
  return scratch.found;
}

std::unique_ptr<Graph> Graph::Copy(std::size_t capacity) const {
  const Hnsw& from = impl_->hnsw;
  auto impl = std::make_unique<Impl>(impl_->codes, capacity, impl_->options);
  Hnsw& to = impl->hnsw;
  const std::size_t nodes = from.cur_element_count;
  std::memcpy(to.data_level0_memory_, from.data_level0_memory_, nodes * from.size_data_per_element_);
  for (std::size_t i = 0; i < nodes; ++i) {
    to.element_levels_[i] = from.element_levels_[i];
    if (from.element_levels_[i] > 0) {
      const std::size_t bytes = static_cast<std::size_t>(from.element_levels_[i]) * from.size_links_per_element_ + 1;
      to.linkLists_[i] = static_cast<char*>(std::malloc(bytes));
      if (to.linkLists_[i] == nullptr) throw std::bad_alloc();
      std::memcpy(to.linkLists_[i], from.linkLists_[i], bytes);
    }
    to.cur_element_count = i + 1;  // what its destructor frees
  }
  to.enterpoint_node_ = from.enterpoint_node_;
  to.maxlevel_ = from.maxlevel_;
  to.level_generator_ = from.level_generator_;
  to.update_probability_generator_ = from.update_probability_generator_;
  return std::unique_ptr<Graph>(new Graph(std::move(impl)));
}

}  // namespace freshet
