// Which features feed a tower, and how they become tensors. One implementation serves training and serving.
//
// Place in the flow: part of a model package; used by the trainer and by both encoders. Every feature becomes one bag
// of rows of the tower's single embedding table (categorical: one row; multi-valued: several, mean-pooled; text: its
// words, or runs of words and of characters; bucketised: the row of a number's interval; history: the item ids of
// recent interactions), or, for `dense`, one column. Missing values are values: an empty bag, a bucket of their own, or
// 0 after standardisation. Extraction is deterministic, thread-safe and allocation-light.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/slot_table.h"
#include "freshet/core/status.h"
#include "freshet/core/yaml.h"
#include "freshet/encoder/encoder.h"

namespace freshet {

// In the order of the numbers that the embedding space id is made of: new ones go to the end.
enum class FeatureKind {
  kCategorical,
  kMultiValued,
  kText,
  kDense,
  kHistory,
  kBucketised,
  kHistoryEvents,
  kHistoryGaps,
};
inline constexpr FeatureKind kAllFeatureKinds[] = {
    FeatureKind::kCategorical, FeatureKind::kMultiValued, FeatureKind::kText,          FeatureKind::kDense,
    FeatureKind::kHistory,     FeatureKind::kBucketised,  FeatureKind::kHistoryEvents, FeatureKind::kHistoryGaps};
// Of the user's interactions: features of these kinds bear the kind's name.
[[nodiscard]] constexpr bool IsOfHistory(FeatureKind kind) {
  return kind == FeatureKind::kHistory || kind == FeatureKind::kHistoryEvents || kind == FeatureKind::kHistoryGaps;
}
// As packages and configurations write it: "multi_valued".
[[nodiscard]] std::string_view FeatureKindName(FeatureKind kind);
[[nodiscard]] std::optional<FeatureKind> ParseFeatureKind(std::string_view name);

// What the time of an interaction is held against: neither knows when it is that somebody asks, so that a vector is the
// same whenever it is asked for, and what was trained is what is served.
enum class GapsTo {
  kNewest,    // the newest interaction that is read
  kPrevious,  // the one before it, of those that are read
};
[[nodiscard]] std::string_view GapsToName(GapsTo to);
[[nodiscard]] std::optional<GapsTo> ParseGapsTo(std::string_view name);

struct FeatureDef {
  // Of the feature in the event; "item_id", "user_id", "history" and the kinds beside it are the built-in sources.
  std::string name;
  FeatureKind kind = FeatureKind::kCategorical;
  std::int64_t buckets = 0;  // hash buckets: XXH3(value) % buckets; with a vocabulary, the out-of-vocabulary buckets
  std::vector<std::string> vocabulary;  // value -> row by position, before the buckets; may be empty
  int max_values = 64;                  // of a bag: the first ones (history: the newest)
  double mean = 0;                      // dense: (x - mean) / stddev, of log1p(max(x, 0)) when `log`
  double stddev = 1;
  bool log = false;
  // bucketised, and history_gaps in seconds: ascending. A number's row is how many of them are not above it; what is no
  // number, or not known, has the row after the last.
  std::vector<double> boundaries;
  GapsTo to = GapsTo::kNewest;  // history_gaps
  int word_ngrams = 1;          // text: runs of 1 to so many words; 0: none
  int char_min = 0;             // text: runs of so many to so many characters of a word between `<` and `>`; 0: none
  int char_max = 0;

  [[nodiscard]] std::int64_t rows() const {
    if (!boundaries.empty()) return static_cast<std::int64_t>(boundaries.size()) + 2;
    return static_cast<std::int64_t>(vocabulary.size()) + buckets;
  }
  [[nodiscard]] bool ReadsNgrams() const { return word_ngrams != 1 || char_max != 0; }
  // The format that a package needs to hold it; see encoder/README.md.
  [[nodiscard]] int format() const { return kind > FeatureKind::kHistory || ReadsNgrams() ? 2 : 1; }
};

inline constexpr std::size_t kMaxBoundaries = 10'000;
inline constexpr int kMaxWordNgrams = 5;
inline constexpr int kMaxCharNgrams = 10;

struct FeatureSpec {
  std::vector<FeatureDef> features;

  // Builds the lookup tables; call once after filling. Errors: kConfig (duplicate names, no buckets, ...).
  Status Finish();
  [[nodiscard]] int bag_count() const { return bag_count_; }
  [[nodiscard]] int dense_count() const { return dense_count_; }
  [[nodiscard]] std::int64_t table_rows() const { return table_rows_; }  // of the embedding table over all bags
  [[nodiscard]] int format() const;                                      // the largest of its features; 1 without any

  [[nodiscard]] std::string ToYaml(int indent) const;
  [[nodiscard]] static Result<FeatureSpec> FromYaml(const YamlNode& node, const std::string& file);

  // Set by Finish(): per feature, the first row of its range, its index among bags or dense columns, and its
  // vocabulary.
  std::vector<std::int64_t> row_base;
  std::vector<SlotTable> lookup;  // by XXH3, which is also what a value's bucket comes from
  int bag_count_ = 0;
  int dense_count_ = 0;
  std::int64_t table_rows_ = 0;
};

// Memory of the extraction, kept from one text to the next.
struct TextScratch {
  std::string lowered;
  std::string marked;  // a word between its marks
  std::string gram;
  struct Word {
    std::size_t begin = 0;  // in `lowered`
    std::size_t end = 0;
    std::size_t part = 0;  // of the list that the text is
  };
  std::vector<Word> words;
  std::vector<std::size_t> starts;  // of the characters of `marked`, and its end
};

// Which interactions of a history have a row, newest first: what lies beside them has as many, in the same order.
struct HistoryScratch {
  std::vector<std::size_t> kept;  // numbers in the user's history
  std::vector<std::int64_t> times_ms;
};

// The tensors of signature `bags-dense-v1`, for a batch of B rows: indices i64[n], offsets i64[B * bags] (bag (b, f)
// starts at offsets[b * bags + f]), dense f32[B, dense_count]. Cleared and refilled without giving memory back.
struct TowerInput {
  std::vector<std::int64_t> indices;
  std::vector<std::int64_t> offsets;
  std::vector<float> dense;
  std::int64_t rows = 0;
  TextScratch scratch;
  HistoryScratch history;
  void Clear();
};

// The row of a value in feature `f`, a bag: that of its word, else that of its bucket; -1: it is left out.
[[nodiscard]] std::int64_t RowOf(const FeatureSpec& spec, std::size_t f, std::string_view value);
// The row of its bucket, whether or not the vocabulary holds it: what a value that nobody knows gets; -1: none.
[[nodiscard]] std::int64_t BucketRowOf(const FeatureSpec& spec, std::size_t f, std::string_view value);

// Appends the rows of the gaps of feature `f` between interactions at these times, newest first; a time that is not
// above 0 is not known.
void AppendGaps(const FeatureSpec& spec, std::size_t f, std::span<const std::int64_t> times_ms,
                std::vector<std::int64_t>* indices);

void AppendItem(const FeatureSpec& spec, const ItemUpdate& item, TowerInput* input);
void AppendUser(const FeatureSpec& spec, const UserContext& user, TowerInput* input);

// A text in lower case (ASCII only), with a NUL for each byte that is no part of a word; keeps the memory of `lowered`.
void LowerWords(std::string_view text, std::string* lowered);

// The words of kText: lower-cased runs of letters and digits (bytes >= 0x80 count as letters). `token(word)` says
// whether to go on; its word stands in `lowered`, which is overwritten.
template <typename Token>
void ForEachToken(std::string_view text, std::string* lowered, const Token& token) {
  LowerWords(text, lowered);
  const char* at = lowered->data();
  const char* const end = at + lowered->size();
  while (at != end) {
    if (*at == '\0') {
      ++at;
      continue;
    }
    const char* const begin = at;
    while (at != end && *at != '\0') ++at;
    if (!token(std::string_view(begin, static_cast<std::size_t>(at - begin)))) return;
  }
}

}  // namespace freshet
