// A frozen index file, opened read-only: its pages are shared by every process that maps it, and read when a search
// touches them: it is ready once its chains and levels above were looked through, 4 bytes a row.
#include <algorithm>
#include <chrono>

#include "guarded.h"
#include "index_file.h"
#include "scoring.h"
#include "search_view.h"

namespace freshet {
namespace {

constexpr std::chrono::milliseconds kMapAhead{5};  // of the 10 that opening may take

Status ReadOnly() { return FailedPrecondition("a mapped index is read-only"); }

class MappedIndex final : public Index {
 public:
  explicit MappedIndex(std::unique_ptr<IndexFile> file)
      : file_(std::move(file)),
        dim_(static_cast<int>(file_->header().dim)),
        metric_(static_cast<Metric>(file_->header().metric)),
        codes_(metric_, dim_),
        reranker_(static_cast<Rerank>(file_->header().rerank), metric_, dim_) {
    const IndexFileHeader& header = file_->header();
    for (const std::uint32_t slot : file_->Items<std::uint32_t>(IndexSection::kFresh)) {
      if (slot < header.rows) fresh_.push_back(slot);
    }
    view_.graph.rows = {&codes_, file_->Items<std::int8_t>(IndexSection::kCodes).data(),
                        file_->Items<CodeHead>(IndexSection::kHeads).data()};
    view_.graph.base = {file_->Items<std::uint32_t>(IndexSection::kLinks).data(), 2 * header.m};
    view_.graph.upper = {file_->Items<std::uint32_t>(IndexSection::kUpperLinks).data(), header.m,
                         file_->upper_slots().data(), file_->upper_first().data(), 1};
    view_.graph.entry = {header.entry_upper, header.entry_level};
    view_.graph.nodes = header.rows;
    view_.graph.upper_nodes = header.uppers;
    view_.reranker = &reranker_;
    view_.rerank_rows = file_->Items<std::byte>(IndexSection::kRerank).data();
    view_.labels = file_->Items<Label>(IndexSection::kLabels).data();
    view_.attributes = file_->Items<std::uint64_t>(IndexSection::kAttributes).data();
    view_.attribute_words = header.attribute_words;
    view_.dead = file_->Items<std::uint64_t>(IndexSection::kDead).data();
    view_.nodes = file_->Items<std::uint64_t>(IndexSection::kNodes).data();
    view_.next_same = file_->Items<std::uint32_t>(IndexSection::kNextSame).data();
    view_.used = header.rows;
    view_.dead_count = header.rows - header.live;
    file_->MapAhead(kMapAhead);
  }

  [[nodiscard]] int dim() const override { return dim_; }
  [[nodiscard]] Metric metric() const override { return metric_; }
  [[nodiscard]] std::size_t attribute_words() const override { return view_.attribute_words; }
  Status Insert(std::span<const Label> /*labels*/, std::span<const float> /*vectors*/,
                std::span<const std::uint64_t> /*attributes*/) override {
    return ReadOnly();
  }
  void Tombstone(std::span<const Label> /*labels*/) override {}
  Status Maintain() override { return Status::Ok(); }

  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    FRESHET_TRY(CheckQuery(query, dim_));
    FRESHET_TRY(CheckMasks(options.attributes, view_.attribute_words));
    if (options.k == 0) return std::vector<Hit>{};
    return Guarded("to search",
                   [&]() -> Result<std::vector<Hit>> { return SearchGraph(view_, fresh_, query.data(), options); });
  }
  [[nodiscard]] Result<std::vector<std::vector<Hit>>> SearchMany(std::span<const float> queries,
                                                                 const SearchOptions& options) const override {
    FRESHET_TRY(CheckQueries(queries, dim_));
    FRESHET_TRY(CheckMasks(options.attributes, view_.attribute_words));
    const auto dim = static_cast<std::size_t>(dim_);
    return Guarded("to search", [&]() -> Result<std::vector<std::vector<Hit>>> {
      if (options.k == 0) return std::vector<std::vector<Hit>>(queries.size() / dim);
      return SearchGraphMany(view_, fresh_, queries, dim, options);
    });
  }

  [[nodiscard]] IndexStats Stats() const override {
    IndexStats stats;
    stats.live = file_->header().live;
    stats.tombstones = view_.dead_count;
    stats.fresh = fresh_.size();
    stats.slots = stats.capacity = file_->header().rows;
    stats.memory_bytes = (fresh_.size() + 2 * file_->header().uppers) * sizeof(std::uint32_t);
    return stats;
  }
  [[nodiscard]] std::vector<Label> LiveLabels() const override {
    std::vector<Label> labels;
    for (std::size_t slot = 0; slot < view_.used; ++slot) {
      if (!view_.IsDead(slot)) labels.push_back(view_.labels[slot]);
    }
    std::sort(labels.begin(), labels.end());
    return labels;
  }
  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override { return ReadOnly(); }

 private:
  const std::unique_ptr<IndexFile> file_;
  const int dim_;
  const Metric metric_;
  const Int8Codes codes_;
  const Reranker reranker_;
  std::vector<std::uint32_t> fresh_;
  SearchView view_;
};

}  // namespace

Result<std::unique_ptr<Index>> OpenMappedIndex(const std::string& path, bool verify) {
  return Guarded("for the index", [&]() -> Result<std::unique_ptr<Index>> {
    FRESHET_ASSIGN(std::unique_ptr<IndexFile> file, IndexFile::Open(path, verify));
    if (verify) FRESHET_TRY(file->CheckLabels());
    return std::unique_ptr<Index>(std::make_unique<MappedIndex>(std::move(file)));
  });
}

}  // namespace freshet
