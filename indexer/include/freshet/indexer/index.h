// The port of a searchable index of vectors.
//
// Place in the flow: fed by store's Applier, searched by the query path; knows labels, never item ids. Labels are fresh
// numbers, never reused; a new version of an item gets a new label and its old one a tombstone.
// Thread-safety: one writer thread calls Insert, Tombstone and Maintain; any number of threads search at the same time.
// Shapes: a vector is dim() floats, prepared (finite, non-zero, unit length for cosine) at the door, see
// PrepareVector(). Scores are higher-is-better whatever the metric: cosine and ip the inner product, l2 the negated
// squared distance. Free of graph terms, so that other kinds fit behind it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/metric.h"
#include "freshet/core/status.h"

namespace freshet {

using Label = std::uint64_t;

struct Hit {
  Label label = 0;
  float score = 0;
};

class LastingFilter;

// Which labels may be returned. Called from the searching thread, must be cheap and thread-safe. It has to return, and
// not to wait for who writes to the index: what a search looks at is kept until it ends, and an insert or a cut may
// wait for that (30 s at most, then it fails).
class LabelFilter {
 public:
  virtual ~LabelFilter() = default;
  [[nodiscard]] virtual bool Allows(Label label) const = 0;
  // The same of up to 64 labels, a bit for each, the first lowest: where asking for many at once is faster.
  [[nodiscard]] virtual std::uint64_t AllowsEach(std::span<const Label> labels) const {
    std::uint64_t allowed = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) allowed |= std::uint64_t{Allows(labels[i])} << i;
    return allowed;
  }
  // At most so many labels are refused, where that is known, as of a list of what a user has seen: behind them all
  // match.
  [[nodiscard]] virtual std::size_t RefusesAtMost() const { return kUnknown; }
  static constexpr std::size_t kUnknown = ~std::size_t{0};
  // What an index may remember of it, null: nothing. What that refuses, this one refuses too.
  [[nodiscard]] virtual const LastingFilter* lasting() const { return nullptr; }
};

// A filter that is asked with again and again: what it said of a label holds until the label is told to
// Index::Reconsider().
class LastingFilter : public LabelFilter {
 public:
  // Others of the same key say the same. REQUIRES: not 0.
  [[nodiscard]] virtual std::uint64_t key() const = 0;
  // Index::Changes() from before what it goes by was looked up.
  [[nodiscard]] virtual std::uint64_t as_of() const = 0;
};

// What a row's attributes must be: all bits of `all_of`, any bit of `any_of` unless that is empty, no bit of `none_of`.
// Each is Index::attribute_words() words, or empty; the words outlive the search.
struct AttributeMasks {
  std::span<const std::uint64_t> all_of;
  std::span<const std::uint64_t> any_of;
  std::span<const std::uint64_t> none_of;
  [[nodiscard]] bool empty() const { return all_of.empty() && any_of.empty() && none_of.empty(); }
};
inline constexpr std::size_t kMaxAttributeWords = 8;

struct SearchOptions {
  std::size_t k = 100;
  // Search effort: how many candidates a graph looks around, and at least k are found in any case; 0: DefaultEffort().
  // Below k it is faster than k, and misses a little more of the furthest.
  std::size_t ef = 0;
  bool exact = false;  // scan everything
  bool scan = false;  // all that may be returned, by what is coarse and fast; for a kind that has no such way, as usual
  const LabelFilter* filter = nullptr;
  AttributeMasks attributes{};  // beside the filter
  std::optional<float> score_threshold;
};

struct IndexStats {
  std::size_t live = 0;
  std::size_t tombstones = 0;  // dead entries that are still in the way of searches
  std::size_t fresh = 0;       // entries that are scanned until they are in the graph
  std::size_t slots = 0;       // rows that take room: live, dead, or free to be used again
  std::size_t capacity = 0;
  std::size_t filter_bytes = 0;  // of what is remembered of lasting filters; not in memory_bytes
  std::size_t memory_bytes = 0;  // without what lies in a file
  // More than the bound, HnswOptions::max_memory_bytes; and whether the living alone need more, which no repair
  // changes.
  bool over_memory = false;
  bool live_over_memory = false;
  double unreachable = 0;          // share of the nodes that the last audit could not reach
  std::size_t consolidations = 0;  // times the dead were taken out of the graph
  // Rebuilds, for callers to log when one begins and how it ended: begun, done, failed. One that failed has changed
  // nothing, and is tried again after a while where it is still due.
  std::size_t rebuilds_begun = 0;
  std::size_t rebuilds = 0;
  std::size_t rebuild_failures = 0;
  std::size_t rebuild_rests = 0;  // times one rested, to leave the processor to others
  bool rebuilding = false;
  std::string rebuild_reason;   // of the last one: why it was begun
  std::string rebuild_failure;  // of the last one that failed
  // What else the background work had no memory for; it tries again, and new rows wait in the fresh segment.
  std::size_t failures = 0;
  std::string failure;            // the last one
  std::size_t wait_timeouts = 0;  // times an insert or a cut waited for it in vain, and failed
};

struct AuditOptions {
  std::size_t probes = 10;  // live rows that are searched for, beside an exact search; eight times as many in doubt
  std::size_t k = 10;
  std::uint64_t seed = 1;
  // Called between pieces of about a millisecond, when nothing is held that a search or an insert waits for. It may
  // wait, so that others come to run; false ends the audit, kCancelled. Not set: others are let run once.
  std::function<bool()> between{};
};
struct IndexHealth {
  std::size_t nodes = 0;        // live rows that a search must find its way to
  std::size_t unreachable = 0;  // of them, what it cannot: repair has begun
  double recall = 1;            // of the probes, at the default effort
  // Recall is under the bound, or linking again what cannot be reached did not help, and all is made anew. Not where
  // that was done for it before and did not help, or lately.
  bool rebuilding = false;
  std::string because;  // of that
};

// One moment of an index, to be written to a file while the index goes on. Holds memory of the index: write it soon.
// Any one thread.
class IndexCut {
 public:
  virtual ~IndexCut() = default;
  // Writes `path` (not there before), fsyncs it. `written` is told the bytes after each piece (flat: all of them,
  // before) and may wait: a rate limit, cancellation (an error of it ends the writing and is returned; no file is left
  // then). Errors: kResourceExhausted (disk full; flat: above 64 GiB), kIoError, kDeadlineExceeded (hnsw: changes of
  // the graph that were under way did not end in 30 s).
  virtual Status Write(const std::string& path,
                       const std::function<Status(std::uint64_t bytes)>& written = {}) const = 0;
};

class Index {
 public:
  virtual ~Index() = default;
  [[nodiscard]] virtual int dim() const = 0;
  [[nodiscard]] virtual Metric metric() const = 0;

  // u64 words of attributes that each row has: bits whose meaning is the caller's. 0: none.
  [[nodiscard]] virtual std::size_t attribute_words() const { return 0; }

  // Every label is searchable when this returns. REQUIRES: labels are new; vectors holds labels.size() rows. (One that
  // is live all the same is replaced: it keeps a row, its old or its new one, also when this fails.) `attributes` holds
  // as many rows of attribute_words(), or nothing: all bits zero.
  // Errors: kResourceExhausted (memory, room; also where none could be made in 30 s); nothing is then inserted.
  // kInvalidArgument (size of the attributes).
  // kInternal: the index takes no more rows.
  virtual Status Insert(std::span<const Label> labels, std::span<const float> vectors,
                        std::span<const std::uint64_t> attributes = {}) = 0;
  // The labels are in no result of a search that starts after this returns. Unknown labels are ignored.
  virtual void Tombstone(std::span<const Label> labels) = 0;
  // What filters say of these labels has changed (a new one came to be known to them, too). The writer says so once
  // they answer by it.
  virtual void Reconsider(std::span<const Label> /*labels*/) {}
  // Counts the changes that a LastingFilter may have to be asked again for. Any thread.
  [[nodiscard]] virtual std::uint64_t Changes() const { return 0; }
  // Starts compaction where it is due. Searches, inserts and tombstones go on meanwhile. Errors: only what the
  // background work cannot go on after; what it tries again, and a rebuild that failed, is in Stats().
  virtual Status Maintain() = 0;
  // Returns when everything is in its final place and no compaction is under way: for benchmarks, tests, bulk loads.
  // As long as there is work, and searches that it waits for end: without a bound. Errors: also kResourceExhausted,
  // when the background work is short of memory; it goes on trying.
  virtual Status Settle() { return Status::Ok(); }

  // Exactly min(k, live matching) hits, by descending score, ties by ascending label; fewer only under score_threshold.
  // Errors: kInvalidArgument (dimension, non-finite query, masks of another size than attribute_words()).
  [[nodiscard]] virtual Result<std::vector<Hit>> Search(std::span<const float> query,
                                                        const SearchOptions& options) const = 0;
  // The same for each row of `queries`. One thread; faster than one by one where a kind can overlap their waits.
  [[nodiscard]] virtual Result<std::vector<std::vector<Hit>>> SearchMany(std::span<const float> queries,
                                                                         const SearchOptions& options) const;
  [[nodiscard]] virtual IndexStats Stats() const = 0;
  // Live labels, ascending: for audits and tests, and to compare what a file held with the store. Throws
  // std::bad_alloc.
  [[nodiscard]] virtual std::vector<Label> LiveLabels() const = 0;
  // The lowest `max` of them that are not below `from`: a page, for audits that hold no more than one.
  [[nodiscard]] virtual std::vector<Label> LiveLabelsFrom(Label from, std::size_t max) const;
  // Looks for what searches cannot reach or miss, and repairs it in the background. Any thread; costs about a hundred
  // exact searches' time, in pieces. While it looks for the first, no slot is freed. Errors: kCancelled, see
  // AuditOptions; kResourceExhausted.
  [[nodiscard]] virtual Result<IndexHealth> Audit(const AuditOptions& /*options*/) { return IndexHealth{}; }
  // What is live now, once. Called by the writer thread; quick (no copy of vectors or graph). Errors:
  // kFailedPrecondition where this kind cannot be written.
  [[nodiscard]] virtual Result<std::unique_ptr<IndexCut>> Cut() = 0;
};

// What candidates are scored by once more, and its bytes a dimension beside the code's one: the floats (4), IEEE half
// precision (2), or a second byte of the code, which makes 16 bits (1).
enum class Rerank : std::uint8_t { kFp32 = 0, kFp16 = 1, kResidual8 = 2 };

struct HnswOptions {
  int dim = 0;
  Metric metric = Metric::kCosine;
  std::size_t m = 16;  // links of a node; 2 m on the lowest level
  std::size_t ef_construction = 200;
  // DiskANN's alpha, not for ip. Above 1, lists fill with what is near: better where rows lie evenly, but links that
  // lead out of a cluster give way, and searches then miss whole clusters (figures in indexer/README.md).
  float slack = 1;
  Rerank rerank = Rerank::kResidual8;
  // Where the re-rank rows lie in a file, without a name and gone with the process, whose pages the system may drop
  // when memory is short; empty: in memory. What a query costs then, see indexer/README.md.
  std::string rerank_directory;
  std::size_t attribute_words = 0;    // u64 words of attributes a row, at most kMaxAttributeWords
  std::size_t capacity = 20'000'000;  // rows at most; their room is reserved as addresses, not as memory
  double min_live_fraction = 0.85;    // below it the dead are taken out of the graph, and their slots used again
  double min_recall = 0.9;            // of an audit's probes; below it, with all reachable, the index is rebuilt
  std::size_t filter_memo_bytes = std::size_t{32} << 20;  // what is remembered of lasting filters, a bit a row each
  // Share of the nodes that audits may find out of reach. With more, twice in a row although the first ones were linked
  // again in between, the index is rebuilt.
  double max_unreachable = 0.01;
  // What its rows and graph may take; 0: no bound. Above it, where that helps, the dead are taken out sooner and the
  // rest is rebuilt, which takes as much as the living need once more while it lasts. Rows are never refused for it;
  // and where the machine has no memory for the pages of their arrays, no call fails: the system ends a process.
  std::size_t max_memory_bytes = 0;
  // Of a core, for each linking thread, that a rebuild takes: it rests between slices. At .5 two cores keep three
  // quarters of their time for searches and adds, and it takes twice as long, which nothing waits for.
  double rebuild_cpu_share = 0.5;
  std::size_t max_fresh = 4096;  // rows that are not in the graph yet; one more waits
  std::size_t link_threads = 1;  // with one, the graph depends on the seed and the order of rows alone
  std::uint64_t seed = 42;
  Status Validate() const;
};
[[nodiscard]] Result<std::unique_ptr<Index>> MakeHnswIndex(const HnswOptions& options);
// Reads a file that IndexCut wrote and validates it whole; the index then takes adds and tombstones like any other.
// Errors: kNotFound, kCorruption (file and reason), kFailedPrecondition (dimension, metric, attributes' words or format
// of another), kResourceExhausted.
[[nodiscard]] Result<std::unique_ptr<Index>> OpenHnswIndex(const std::string& path, const HnswOptions& options);

// The same file read-only, where it lies: processes that open it share its pages, and it is ready when 4 bytes a row
// are read (some milliseconds a million rows that are in memory). It takes no adds or tombstones. `verify` reads and
// checks every byte first, as OpenHnswIndex() does; without, what a search follows is checked, and a damaged file can
// give wrong answers, but nothing worse. The file must not be changed while it is open (replace it by renaming another
// over it). Errors: as OpenHnswIndex().
[[nodiscard]] Result<std::unique_ptr<Index>> OpenMappedIndex(const std::string& path, bool verify);

// Exact: scans every live vector. The oracle of the tests. REQUIRES: at most kMaxAttributeWords.
[[nodiscard]] std::unique_ptr<Index> MakeFlatIndex(int dim, Metric metric, std::size_t attribute_words = 0);
// As OpenHnswIndex().
[[nodiscard]] Result<std::unique_ptr<Index>> OpenFlatIndex(const std::string& path, int dim, Metric metric,
                                                           std::size_t attribute_words = 0);

}  // namespace freshet
