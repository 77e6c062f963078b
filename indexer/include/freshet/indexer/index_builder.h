// An index without Kafka and store: vectors or vector files in, an index, or its file, out.
//
// Place in the flow: `freshet index`, and C++ users who take indexer/ alone. Labels are the numbers of the rows, from
// 0, in the order in which they come. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "freshet/core/status.h"
#include "freshet/indexer/index.h"

namespace freshet {

enum class IndexKind { kHnsw, kFlat };
[[nodiscard]] const char* IndexKindName(IndexKind kind);  // "hnsw", "flat"

struct IndexBuilderOptions {
  IndexKind kind = IndexKind::kHnsw;
  HnswOptions hnsw;  // of flat, dim and metric; dim 0: that of the first vectors
  // Told after each piece how many rows are in the index, and of how many (0: not known). What it returns ends the
  // building when it is not ok: cancellation.
  std::function<Status(std::uint64_t rows, std::uint64_t of)> progress;
};

// HnswOptions::capacity for an index that is to hold so many: the default, or, where that is less, a quarter more.
[[nodiscard]] std::size_t CapacityFor(std::uint64_t rows);
// Of all these vector files together, at most `limit`. Errors: as VectorFile::Open(), of the first that is none.
[[nodiscard]] Result<std::uint64_t> CountRows(std::span<const std::string> paths,
                                              std::uint64_t limit = ~std::uint64_t{0});

class IndexBuilder {
 public:
  explicit IndexBuilder(IndexBuilderOptions options) : options_(std::move(options)) {}

  // Whole rows of floats, checked and, for cosine, normalised here. Errors: kInvalidArgument, naming the row, which
  // is then not in the index, nor those after it; kConfig (options); kResourceExhausted (also: more than
  // hnsw.capacity); kFailedPrecondition after Finish().
  Status Add(std::span<const float> vectors, int dim);
  // At most `limit` rows of a file (vector_file.h). Errors: also those of VectorFile.
  Status AddFile(const std::string& path, std::uint64_t limit = ~std::uint64_t{0});
  [[nodiscard]] std::uint64_t rows() const { return rows_; }
  // Waits until all of it is in the graph. Once. Errors: kInvalidArgument when nothing was added; kFailedPrecondition
  // after it succeeded; kResourceExhausted, and may be called again.
  [[nodiscard]] Result<std::unique_ptr<Index>> Finish();

 private:
  Status Start(int dim);
  Status AddRows(std::span<const float> vectors, int dim);
  Status Tell(std::uint64_t of);

  IndexBuilderOptions options_;
  std::unique_ptr<Index> index_;
  std::uint64_t rows_ = 0;
  std::uint64_t of_ = 0;
  bool finished_ = false;
};

// What the head of an index file says.
struct IndexFileInfo {
  IndexKind kind = IndexKind::kHnsw;
  int dim = 0;
  Metric metric = Metric::kCosine;
  std::size_t m = 0;                   // hnsw
  Rerank rerank = Rerank::kResidual8;  // hnsw
  std::size_t attribute_words = 0;
  std::uint64_t rows = 0;   // with tombstones
  std::uint64_t bytes = 0;  // of the file
};
// Errors: kNotFound, kCorruption, kFailedPrecondition (a format of another version).
[[nodiscard]] Result<IndexFileInfo> InspectIndexFile(const std::string& path);

enum class OpenAs {
  kMapped,  // read-only, where it lies (OpenMappedIndex); a flat index is read into memory all the same
  kMemory,  // read into memory; takes adds and tombstones
};
// Opens a file as the kind that it is. kMapped does not verify an hnsw file's checksums unless told to. `capacity`: of
// an hnsw index in memory, rows at most; 0: CapacityFor() those of the file. Errors: as InspectIndexFile(),
// kResourceExhausted.
[[nodiscard]] Result<std::unique_ptr<Index>> OpenIndexFile(const std::string& path, OpenAs as, bool verify = false,
                                                           std::size_t capacity = 0);

}  // namespace freshet
