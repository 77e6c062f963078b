#include "freshet/indexer/index_builder.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <system_error>
#include <vector>

#include "flat_file.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/vector_file.h"
#include "guarded.h"
#include "index_file.h"

namespace freshet {
namespace {

constexpr std::size_t kPiece = 1024;  // rows at a time
constexpr std::uint64_t kMostCapacity = 1'000'000'000;

}  // namespace

const char* IndexKindName(IndexKind kind) { return kind == IndexKind::kHnsw ? "hnsw" : "flat"; }

std::size_t CapacityFor(std::uint64_t rows) {
  return std::max<std::size_t>(HnswOptions().capacity, std::max(rows, std::min(rows + rows / 4, kMostCapacity)));
}

Result<std::uint64_t> CountRows(std::span<const std::string> paths, std::uint64_t limit) {
  return Guarded("for vector files", [&]() -> Result<std::uint64_t> {
    std::uint64_t rows = 0;
    for (const std::string& path : paths) {
      FRESHET_ASSIGN(const VectorFile file, VectorFile::Open(path));
      rows += std::min(limit - rows, file.rows());
    }
    return rows;
  });
}

Status IndexBuilder::Start(int dim) {
  if (finished_) return FailedPrecondition("the index was finished; another one takes a builder of its own");
  if (index_ != nullptr) {
    return dim == options_.hnsw.dim
               ? Status::Ok()
               : InvalidArgument(StrCat("vectors of dimension ", dim, " after others of ", options_.hnsw.dim));
  }
  if (options_.hnsw.dim != 0 && options_.hnsw.dim != dim) {
    return InvalidArgument(StrCat("vectors of dimension ", dim, ", not ", options_.hnsw.dim));
  }
  HnswOptions hnsw = options_.hnsw;
  hnsw.dim = dim;
  FRESHET_TRY(hnsw.Validate());
  if (options_.kind == IndexKind::kFlat) {
    index_ = MakeFlatIndex(dim, hnsw.metric);
  } else {
    FRESHET_ASSIGN(index_, MakeHnswIndex(hnsw));
  }
  options_.hnsw.dim = dim;  // what was refused binds nobody
  return Status::Ok();
}

Status IndexBuilder::Tell(std::uint64_t of) { return options_.progress ? options_.progress(rows_, of) : Status::Ok(); }

Status IndexBuilder::Add(std::span<const float> vectors, int dim) {
  return Guarded("for vectors to be added", [&] { return AddRows(vectors, dim); });
}

Status IndexBuilder::AddRows(std::span<const float> vectors, int dim) {
  FRESHET_TRY(Start(dim));
  const auto width = static_cast<std::size_t>(dim);
  if (vectors.size() % width != 0) return InvalidArgument(StrCat(vectors.size(), " floats are no whole rows of ", dim));
  std::vector<float> piece;
  std::vector<Label> labels;
  for (std::size_t begin = 0; begin < vectors.size(); begin += kPiece * width) {
    const std::span<const float> given = vectors.subspan(begin, std::min(kPiece * width, vectors.size() - begin));
    piece.assign(given.begin(), given.end());
    for (std::size_t i = 0; i < piece.size() / width; ++i) {
      const Status prepared = PrepareVector(options_.hnsw.metric, dim, std::span(piece).subspan(i * width, width));
      if (!prepared.ok()) return prepared.Prefixed(StrCat("row ", rows_ + i));
    }
    labels.resize(piece.size() / width);
    std::iota(labels.begin(), labels.end(), Label{rows_});
    FRESHET_TRY(index_->Insert(labels, piece));
    rows_ += labels.size();
    FRESHET_TRY(Tell(of_));
  }
  return Status::Ok();
}

Status IndexBuilder::AddFile(const std::string& path, std::uint64_t limit) {
  return Guarded("for a vector file", [&] {
    FRESHET_ASSIGN(VectorFile file, VectorFile::Open(path));
    const std::uint64_t wanted = std::min(limit, file.rows());
    of_ = rows_ + wanted;
    std::vector<float> piece;
    for (std::uint64_t done = 0; done < wanted;) {
      FRESHET_TRY(file.Read(static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, wanted - done)), &piece));
      if (const Status added = Add(piece, file.dim()); !added.ok()) return added.Prefixed(path);
      done += piece.size() / static_cast<std::size_t>(file.dim());
    }
    of_ = 0;
    return Status::Ok();
  });
}

Result<std::unique_ptr<Index>> IndexBuilder::Finish() {
  if (rows_ == 0) return InvalidArgument("there are no vectors");
  if (finished_) return FailedPrecondition("the index was finished before");
  FRESHET_TRY(index_->Settle());
  finished_ = true;
  return std::move(index_);
}

Result<IndexFileInfo> InspectIndexFile(const std::string& path) {
  return Guarded("for the index's head", [&]() -> Result<IndexFileInfo> {
    IndexFileInfo info;
    std::error_code error;
    info.bytes = std::filesystem::file_size(path, error);
    if (error) return NotFound(path + ": cannot be read");
    FRESHET_ASSIGN(const std::optional<FlatFileHead> flat, ReadFlatFileHead(path));
    if (flat) {
      info.kind = IndexKind::kFlat;
      info.dim = flat->dim;
      info.metric = flat->metric;
      info.rows = flat->rows;
      info.attribute_words = flat->attribute_words;
      return info;
    }
    FRESHET_ASSIGN(const auto file, IndexFile::Open(path, false));
    const IndexFileHeader& header = file->header();
    info.dim = static_cast<int>(header.dim);
    info.metric = static_cast<Metric>(header.metric);
    info.m = header.m;
    info.rerank = static_cast<Rerank>(header.rerank);
    info.rows = header.rows;
    info.attribute_words = header.attribute_words;
    return info;
  });
}

Result<std::unique_ptr<Index>> OpenIndexFile(const std::string& path, OpenAs as, bool verify, std::size_t capacity) {
  FRESHET_ASSIGN(const IndexFileInfo info, InspectIndexFile(path));
  if (info.kind == IndexKind::kFlat) {
    return OpenFlatIndex(path, info.dim, info.metric, info.attribute_words);
  }
  if (as == OpenAs::kMapped) return OpenMappedIndex(path, verify);
  HnswOptions options;
  options.dim = info.dim;
  options.metric = info.metric;
  options.m = info.m;
  options.ef_construction = std::max(options.ef_construction, info.m);
  options.rerank = info.rerank;
  options.attribute_words = info.attribute_words;
  options.capacity = capacity == 0 ? CapacityFor(info.rows) : capacity;
  return OpenHnswIndex(path, options);
}

}  // namespace freshet
