// Exact search by scanning: the oracle of the tests, and right for small catalogues.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "flat_file.h"
#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index.h"
#include "guarded.h"
#include "scoring.h"

namespace freshet {
namespace {

// The second one's rows have attributes.
constexpr std::string_view kMagic = "freshet-flat-1\n";
constexpr std::string_view kMagic2 = "freshet-flat-2\n";
constexpr std::size_t kMostBytes = std::size_t{1} << 36;  // of a file

// A copy: this kind is small.
class FlatCut final : public IndexCut {
 public:
  FlatCut(int dim, Metric metric, std::size_t words, std::vector<Label> labels, std::vector<float> vectors,
          std::vector<std::uint64_t> attributes)
      : dim_(dim),
        metric_(metric),
        words_(words),
        labels_(std::move(labels)),
        vectors_(std::move(vectors)),
        attributes_(std::move(attributes)) {}

  // The format: indexer/README.md.
  Status Write(const std::string& path, const std::function<Status(std::uint64_t)>& written) const override {
    return Guarded("to write it to a file", [&] {
      constexpr std::size_t kAround = 128;  // the rows
      const std::size_t bytes =
          kAround + labels_.size() * sizeof(Label) + vectors_.size() * sizeof(float) + attributes_.size() * 8;
      if (bytes > kMostBytes) return ResourceExhausted(StrCat(path, ": larger than ", kMostBytes, " bytes"));
      ByteWriter out;
      out.PutString(words_ == 0 ? kMagic : kMagic2);
      out.Put(static_cast<std::uint32_t>(dim_)).PutString(MetricName(metric_));
      if (words_ > 0) out.Put(static_cast<std::uint32_t>(words_));
      out.Put(static_cast<std::uint64_t>(labels_.size()));
      for (const Label label : labels_) out.Put(label);
      out.PutFloats(vectors_);
      for (const std::uint64_t word : attributes_) out.Put(word);
      out.Put(Xxh3(out.bytes()));
      // In one piece: who wants it not to be written has to say so before.
      if (written) FRESHET_TRY(written(out.bytes().size()));
      return WriteFileAtomically(path, out.bytes());
    });
  }

 private:
  const int dim_;
  const Metric metric_;
  const std::size_t words_;
  const std::vector<Label> labels_;
  const std::vector<float> vectors_;
  const std::vector<std::uint64_t> attributes_;
};

// Rows one after the other, scanned by every search. Thread-safe by one lock, which searches share, and which they get
// in turn with writers.
class FlatIndex final : public Index {
 public:
  FlatIndex(int dim, Metric metric, std::size_t words)
      : dim_(dim), width_(static_cast<std::size_t>(dim)), words_(words), metric_(metric), score_(metric, dim) {}

  [[nodiscard]] int dim() const override { return dim_; }
  [[nodiscard]] Metric metric() const override { return metric_; }

  [[nodiscard]] std::size_t attribute_words() const override { return words_; }

  Status Insert(std::span<const Label> labels, std::span<const float> vectors,
                std::span<const std::uint64_t> attributes) override {
    FRESHET_TRY(CheckAttributes(attributes, labels.size(), words_));
    const std::unique_lock lock = Alone();
    const std::size_t before = labels_.size();
    const Status status = Guarded("for rows of the index", [&] {
      // All that may fail comes first, and is taken back then.
      Grow(&labels_, before + labels.size());
      Grow(&vectors_, (before + labels.size()) * width_);
      Grow(&attributes_, (before + labels.size()) * words_);
      for (const Label label : labels) {
        if (slots_.try_emplace(label, labels_.size()).second) labels_.push_back(label);
      }
    });
    if (!status.ok()) {
      for (; labels_.size() > before; labels_.pop_back()) slots_.erase(labels_.back());
      return status;
    }
    vectors_.resize(labels_.size() * width_);
    attributes_.resize(labels_.size() * words_);
    // A label that is there already gets its new vector and attributes.
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const std::size_t slot = slots_.find(labels[i])->second;
      std::copy_n(vectors.data() + i * width_, width_, vectors_.data() + slot * width_);
      std::uint64_t* row = attributes_.data() + slot * words_;
      if (attributes.empty()) {
        std::fill_n(row, words_, 0);
      } else {
        std::copy_n(attributes.data() + i * words_, words_, row);
      }
    }
    return Status::Ok();
  }

  void Tombstone(std::span<const Label> labels) override {
    const std::unique_lock lock = Alone();
    for (const Label label : labels) {
      const auto it = slots_.find(label);
      if (it == slots_.end()) continue;
      // The last row moves into the gap: nothing dead is kept.
      const std::size_t slot = it->second;
      const std::size_t last = labels_.size() - 1;
      if (slot != last) {
        labels_[slot] = labels_[last];
        slots_.find(labels_[slot])->second = slot;
        std::copy_n(vectors_.data() + last * width_, width_, vectors_.data() + slot * width_);
        std::copy_n(attributes_.data() + last * words_, words_, attributes_.data() + slot * words_);
      }
      labels_.pop_back();
      vectors_.resize(last * width_);
      attributes_.resize(last * words_);
      slots_.erase(label);
    }
  }

  Status Maintain() override { return Status::Ok(); }

  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    FRESHET_TRY(CheckQuery(query, dim_));
    FRESHET_TRY(CheckMasks(options.attributes, words_));
    return Guarded("to search", [&]() -> Result<std::vector<Hit>> {
      const std::shared_lock lock = Beside();
      // What may not be returned is asked for before it is scored: a label costs less to look at than a row.
      SearchOptions allowed = options;
      allowed.filter = nullptr;
      TopK top(allowed);
      for (std::size_t slot = 0; slot < labels_.size(); ++slot) {
        if (options.filter != nullptr && !options.filter->Allows(labels_[slot])) continue;
        if (!Fits(attributes_.data() + slot * words_, options.attributes)) continue;
        // Numbers that are too large to be multiplied are no number then, which cannot be sorted.
        const float score = score_(query.data(), vectors_.data() + slot * width_);
        top.Offer(labels_[slot], std::isnan(score) ? -std::numeric_limits<float>::infinity() : score);
      }
      return top.Take();
    });
  }

  [[nodiscard]] IndexStats Stats() const override {
    const std::shared_lock lock = Beside();
    IndexStats stats;
    stats.live = labels_.size();
    stats.capacity = labels_.capacity();
    stats.memory_bytes = vectors_.capacity() * sizeof(float) + labels_.capacity() * sizeof(Label) +
                         attributes_.capacity() * sizeof(std::uint64_t);
    return stats;
  }

  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override {
    return Guarded("for a cut of it", [&]() -> Result<std::unique_ptr<IndexCut>> {
      const std::shared_lock lock = Beside();
      return std::unique_ptr<IndexCut>(
          std::make_unique<FlatCut>(dim_, metric_, words_, labels_, vectors_, attributes_));
    });
  }

  [[nodiscard]] std::vector<Label> LiveLabels() const override {
    const std::shared_lock lock = Beside();
    std::vector<Label> labels = labels_;
    std::sort(labels.begin(), labels.end());
    return labels;
  }

 private:
  // A shared_mutex lets in who shares it while others do, so that a writer would never come between searches without a
  // pause: it takes the turn, for which new ones wait.
  [[nodiscard]] std::shared_lock<std::shared_mutex> Beside() const {
    { const std::lock_guard turn(turn_); }
    return std::shared_lock(mu_);
  }
  [[nodiscard]] std::unique_lock<std::shared_mutex> Alone() const {
    const std::lock_guard turn(turn_);
    return std::unique_lock(mu_);
  }

  // Never by as little as is asked for, or each row that is inserted would move all.
  template <typename T>
  static void Grow(std::vector<T>* values, std::size_t size) {
    if (size > values->capacity()) values->reserve(std::max(size, 2 * values->capacity()));
  }

  const int dim_;
  const std::size_t width_;
  const std::size_t words_;
  const Metric metric_;
  const Scorer score_;
  mutable std::mutex turn_;  // before mu_
  mutable std::shared_mutex mu_;
  // Guarded by mu_:
  std::vector<float> vectors_;
  std::vector<Label> labels_;
  std::vector<std::uint64_t> attributes_;
  std::unordered_map<Label, std::size_t> slots_;
};

}  // namespace

std::vector<Label> Index::LiveLabelsFrom(Label from, std::size_t max) const {
  std::vector<Label> labels = LiveLabels();
  labels.erase(labels.begin(), std::lower_bound(labels.begin(), labels.end(), from));
  if (labels.size() > max) labels.resize(max);
  return labels;
}

Result<std::vector<std::vector<Hit>>> Index::SearchMany(std::span<const float> queries,
                                                        const SearchOptions& options) const {
  FRESHET_TRY(CheckQueries(queries, dim()));
  const auto width = static_cast<std::size_t>(dim());
  return Guarded("to search", [&]() -> Result<std::vector<std::vector<Hit>>> {
    std::vector<std::vector<Hit>> answers;
    for (std::size_t begin = 0; begin < queries.size(); begin += width) {
      FRESHET_ASSIGN(std::vector<Hit> hits, Search(queries.subspan(begin, width), options));
      answers.push_back(std::move(hits));
    }
    return answers;
  });
}

std::unique_ptr<Index> MakeFlatIndex(int dim, Metric metric, std::size_t attribute_words) {
  return std::make_unique<FlatIndex>(dim, metric, attribute_words);
}

namespace {

// 0: of no format that is known.
int VersionOf(std::string_view magic) { return magic == kMagic ? 1 : magic == kMagic2 ? 2 : 0; }

Result<std::unique_ptr<Index>> OpenFlat(const std::string& path, int dim, Metric metric, std::size_t words) {
  FRESHET_ASSIGN(const std::string bytes, ReadFile(path, kMostBytes));
  ByteReader sum(bytes);
  const std::string_view body = sum.GetBytes(bytes.size() < 8 ? bytes.size() + 1 : bytes.size() - 8);
  if (sum.Get<std::uint64_t>() != Xxh3(body) || !sum.finished()) return Corruption(path + ": the checksum differs");
  ByteReader in(body);
  const int version = VersionOf(in.GetString());
  if (version == 0) return FailedPrecondition(path + ": not an index file of this format");
  if (in.Get<std::uint32_t>() != static_cast<std::uint32_t>(dim) || in.GetString() != MetricName(metric) ||
      (version == 2 ? in.Get<std::uint32_t>() : 0) != words) {
    return FailedPrecondition(path + ": of another dimension, metric or attributes");
  }
  // Without attributes it is written as version 1.
  if ((version == 2) != (words > 0)) return Corruption(path + ": attributes of no words");
  const auto count = in.Get<std::uint64_t>();
  const std::size_t row_bytes = sizeof(Label) + static_cast<std::size_t>(dim) * sizeof(float) + words * 8;
  // Divided, because a product of what a damaged file says may be any number.
  if (!in.ok() || count != in.remaining() / row_bytes || in.remaining() % row_bytes != 0) {
    return Corruption(StrCat(path, ": ", count, " vectors do not fit its size"));
  }
  std::vector<Label> labels(count);
  for (Label& label : labels) label = in.Get<Label>();
  std::vector<float> vectors(count * static_cast<std::size_t>(dim));
  in.GetFloats(vectors);
  if (!std::all_of(vectors.begin(), vectors.end(), [](float x) { return std::isfinite(x); })) {
    return Corruption(path + ": a number that is not finite");
  }
  std::vector<std::uint64_t> attributes(count * words);
  for (std::uint64_t& word : attributes) word = in.Get<std::uint64_t>();
  std::unique_ptr<Index> index = MakeFlatIndex(dim, metric, words);
  FRESHET_TRY(index->Insert(labels, vectors, attributes));
  if (index->Stats().live != count) return Corruption(path + ": a label twice");
  return index;
}

}  // namespace

Result<std::unique_ptr<Index>> OpenFlatIndex(const std::string& path, int dim, Metric metric,
                                             std::size_t attribute_words) {
  return Guarded("for the index", [&] { return OpenFlat(path, dim, metric, attribute_words); });
}

Result<std::optional<FlatFileHead>> ReadFlatFileHead(const std::string& path) {
  constexpr std::size_t kEnough = 64;
  std::ifstream file(path, std::ios::binary);
  std::string bytes(kEnough, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  ByteReader in(bytes);
  const int version = VersionOf(in.GetString());
  if (version == 0) return std::optional<FlatFileHead>();
  FlatFileHead head;
  const auto dim = in.Get<std::uint32_t>();
  const Result<Metric> metric = ParseMetric(in.GetString());
  head.attribute_words = version == 2 ? in.Get<std::uint32_t>() : 0;
  head.rows = in.Get<std::uint64_t>();
  if (!in.ok() || !metric.ok() || dim < 1 || dim > 4096 || head.attribute_words > kMaxAttributeWords)
    return Corruption(path + ": the head of a flat index is damaged");
  head.dim = static_cast<int>(dim);
  head.metric = *metric;
  return std::optional(head);
}

}  // namespace freshet
