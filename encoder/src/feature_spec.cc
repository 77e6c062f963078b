#include "freshet/encoder/feature_spec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::int64_t kMaxRows = std::int64_t{1} << 31;
constexpr std::size_t kMaxFeatures = 1024;

std::string_view NumberText(double number, std::array<char, 32>* buffer) {
  const auto [end, error] = std::to_chars(buffer->data(), buffer->data() + buffer->size(), number);
  return error == std::errc{} ? std::string_view(buffer->data(), static_cast<std::size_t>(end - buffer->data()))
                              : std::string_view();
}

Status BadFeature(const std::string& file, const YamlNode& node, std::string_view what) {
  return ConfigError(StrCat(file, ":", node.line, ": ", what));
}

Result<std::int64_t> IntegerOf(const YamlNode& node, const std::string& file) {
  const auto value = node.IsScalar() ? ParseInt(node.scalar) : std::nullopt;
  if (!value) return BadFeature(file, node, "a whole number is wanted");
  return static_cast<std::int64_t>(*value);
}

Result<double> NumberOf(const YamlNode& node, const std::string& file) {
  const auto value = node.IsScalar() ? ParseDouble(node.scalar) : std::nullopt;
  if (!value || !std::isfinite(*value)) return BadFeature(file, node, "a finite number is wanted");
  return *value;
}

Result<std::vector<double>> NumbersOf(const std::string& key, const YamlNode& node, const std::string& file) {
  if (!node.IsSequence()) return BadFeature(file, node, StrCat("`", key, "` must be a list of numbers"));
  std::vector<double> numbers;
  for (const YamlNode& one : node.items) {
    FRESHET_ASSIGN(const double number, NumberOf(one, file));
    numbers.push_back(number);
  }
  return numbers;
}

// What a kind has not is refused, so that nobody waits for what it would do. Keys of format 1 are let pass, as ever.
Status CheckKeysOfKind(const FeatureDef& def) {
  const bool gaps = def.kind == FeatureKind::kHistoryGaps;
  const bool bucketised = gaps || def.kind == FeatureKind::kBucketised;
  if (def.to != GapsTo::kNewest && !gaps) return ConfigError("`to` belongs to the kind history_gaps");
  // As many rows as the history has: what is not known has one too.
  if (def.kind == FeatureKind::kHistoryEvents && def.buckets < 1) {
    return ConfigError("needs at least one of `buckets`, for events that are not in its vocabulary");
  }
  if (def.ReadsNgrams() && def.kind != FeatureKind::kText) {
    return ConfigError("`word_ngrams` and `char_ngrams` belong to the kind text");
  }
  if (def.word_ngrams == 0 && def.char_max == 0) {
    return ConfigError("`word_ngrams: 0` leaves nothing of a text: give `char_ngrams`");
  }
  if (!def.boundaries.empty() && !bucketised)
    return ConfigError("`boundaries` belong to the kinds bucketised and history_gaps");
  if (!bucketised) return Status::Ok();
  if (!def.vocabulary.empty() || def.buckets != 0) {
    return ConfigError(StrCat("a ", FeatureKindName(def.kind),
                              " feature has neither vocabulary nor buckets: its boundaries make its rows"));
  }
  if (def.boundaries.empty() || def.boundaries.size() > kMaxBoundaries) {
    return ConfigError(StrCat("needs 1 to ", kMaxBoundaries, " `boundaries`"));
  }
  const auto falls =
      std::adjacent_find(def.boundaries.begin(), def.boundaries.end(), [](double a, double b) { return !(a < b); });
  return falls == def.boundaries.end() ? Status::Ok() : ConfigError("`boundaries` must ascend");
}

Status ReadKey(const std::string& key, const YamlNode& value, const std::string& file, FeatureDef* def) {
  if (key == "name") {
    if (!value.IsScalar()) return BadFeature(file, value, "`name` must be text");
    def->name = value.scalar;
  } else if (key == "kind") {
    const auto kind = ParseFeatureKind(value.scalar);
    if (!kind) return BadFeature(file, value, StrCat("`", value.scalar, "` is no kind of feature"));
    def->kind = *kind;
  } else if (key == "buckets") {
    FRESHET_ASSIGN(def->buckets, IntegerOf(value, file));
  } else if (key == "max_values") {
    FRESHET_ASSIGN(const std::int64_t max_values, IntegerOf(value, file));
    if (max_values < 1 || max_values > 65536) return BadFeature(file, value, "`max_values` must be 1 to 65536");
    def->max_values = static_cast<int>(max_values);
  } else if (key == "vocabulary") {
    if (!value.IsSequence()) return BadFeature(file, value, "`vocabulary` must be a list");
    def->vocabulary.reserve(value.items.size());
    for (const YamlNode& word : value.items) {
      if (!word.IsScalar()) return BadFeature(file, word, "a word of `vocabulary` must be text");
      def->vocabulary.push_back(word.scalar);
    }
  } else if (key == "mean") {
    FRESHET_ASSIGN(def->mean, NumberOf(value, file));
  } else if (key == "stddev") {
    FRESHET_ASSIGN(def->stddev, NumberOf(value, file));
  } else if (key == "log") {
    if (value.scalar != "true" && value.scalar != "false")
      return BadFeature(file, value, "`log` must be true or false");
    def->log = value.scalar == "true";
  } else if (key == "boundaries") {
    FRESHET_ASSIGN(def->boundaries, NumbersOf(key, value, file));
  } else if (key == "to") {
    const auto to = ParseGapsTo(value.scalar);
    if (!to) return BadFeature(file, value, "`to` must be newest or previous");
    def->to = *to;
  } else if (key == "word_ngrams") {
    FRESHET_ASSIGN(const std::int64_t words, IntegerOf(value, file));
    if (words < 0 || words > kMaxWordNgrams) {
      return BadFeature(file, value, StrCat("`word_ngrams` must be 0 to ", kMaxWordNgrams));
    }
    def->word_ngrams = static_cast<int>(words);
  } else if (key == "char_ngrams") {
    FRESHET_ASSIGN(const std::vector<double> range, NumbersOf(key, value, file));
    if (range.size() != 2 || !(range[0] >= 1 && range[0] <= range[1] && range[1] <= kMaxCharNgrams) ||
        std::trunc(range[0]) != range[0] || std::trunc(range[1]) != range[1]) {
      return BadFeature(
          file, value,
          StrCat("`char_ngrams` must be two whole numbers, [shortest, longest], from 1 to ", kMaxCharNgrams));
    }
    def->char_min = static_cast<int>(range[0]);
    def->char_max = static_cast<int>(range[1]);
  } else {
    return BadFeature(file, value, StrCat("unknown key `", key, "` of a feature"));
  }
  return Status::Ok();
}

}  // namespace

std::string_view FeatureKindName(FeatureKind kind) {
  switch (kind) {
    case FeatureKind::kCategorical:
      return "categorical";
    case FeatureKind::kMultiValued:
      return "multi_valued";
    case FeatureKind::kText:
      return "text";
    case FeatureKind::kDense:
      return "dense";
    case FeatureKind::kHistory:
      return "history";
    case FeatureKind::kBucketised:
      return "bucketised";
    case FeatureKind::kHistoryEvents:
      return "history_events";
    case FeatureKind::kHistoryGaps:
      return "history_gaps";
  }
  return "unknown";
}

std::optional<FeatureKind> ParseFeatureKind(std::string_view name) {
  for (const FeatureKind kind : kAllFeatureKinds) {
    if (FeatureKindName(kind) == name) return kind;
  }
  return std::nullopt;
}

std::string_view GapsToName(GapsTo to) { return to == GapsTo::kNewest ? "newest" : "previous"; }

std::optional<GapsTo> ParseGapsTo(std::string_view name) {
  for (const GapsTo to : {GapsTo::kNewest, GapsTo::kPrevious}) {
    if (GapsToName(to) == name) return to;
  }
  return std::nullopt;
}

Status FeatureSpec::Finish() {
  row_base.clear();
  lookup.clear();
  bag_count_ = 0;
  dense_count_ = 0;
  table_rows_ = 0;
  if (features.empty()) return ConfigError("a feature spec needs at least one feature");
  if (features.size() > kMaxFeatures) return ConfigError(StrCat("more than ", kMaxFeatures, " features"));
  std::set<std::string_view> names;
  for (const FeatureDef& def : features) {
    const std::string where = StrCat("feature `", def.name, "`: ");
    if (def.name.empty()) return ConfigError("a feature has no name");
    if (!names.insert(def.name).second) return ConfigError(where + "named twice");
    FRESHET_TRY(CheckKeysOfKind(def).Prefixed(StrCat("feature `", def.name, "`")));
    row_base.push_back(table_rows_);
    auto& words = lookup.emplace_back();
    if (def.kind == FeatureKind::kDense) {
      if (def.rows() != 0) return ConfigError(where + "a dense feature has neither vocabulary nor buckets");
      if (!std::isfinite(def.mean) || !std::isfinite(def.stddev) || def.stddev <= 0) {
        return ConfigError(where + "`mean` must be finite, `stddev` finite and above 0");
      }
      ++dense_count_;
      continue;
    }
    if (IsOfHistory(def.kind) && def.name != FeatureKindName(def.kind)) {
      return ConfigError(
          StrCat(where, "the kind `", FeatureKindName(def.kind), "` belongs to the feature of that name"));
    }
    if (IsOfHistory(def.kind) && !names.contains("history")) {
      return ConfigError(where + "it lies beside `history`, which must come before it");
    }
    if (def.buckets < 0 || def.buckets > kMaxRows) return ConfigError(where + "`buckets` is out of range");
    if (def.rows() == 0) return ConfigError(where + "needs a vocabulary or buckets");
    if (def.max_values < 1) return ConfigError(where + "`max_values` must be at least 1");
    const auto hash_of = [&](std::uint32_t at) { return Xxh3(def.vocabulary[at]); };
    words.Reserve(def.vocabulary.size(), hash_of);
    for (std::uint32_t row = 0; row < def.vocabulary.size(); ++row) {
      const std::string& word = def.vocabulary[row];
      const std::uint64_t hash = Xxh3(word);
      if (words.Find(hash, [&](std::uint32_t at) { return def.vocabulary[at] == word; }) != SlotTable::kNone) {
        return ConfigError(StrCat(where, "`", word, "` is in the vocabulary twice"));
      }
      words.Add(hash, row, hash_of);
    }
    ++bag_count_;
    table_rows_ += def.rows();
    if (table_rows_ > kMaxRows) return ConfigError("the embedding table is larger than 2^31 rows");
  }
  return Status::Ok();
}

int FeatureSpec::format() const {
  int format = 1;
  for (const FeatureDef& def : features) format = std::max(format, def.format());
  return format;
}

std::string FeatureSpec::ToYaml(int indent) const {
  const std::string pad(static_cast<std::size_t>(indent), ' ');
  std::string out;
  std::array<char, 32> buffer{};
  for (const FeatureDef& def : features) {
    out += StrCat(pad, "- name: ", YamlQuote(def.name), "\n", pad, "  kind: ", FeatureKindName(def.kind), "\n");
    if (def.kind == FeatureKind::kDense) {
      out += StrCat(pad, "  mean: ", NumberText(def.mean, &buffer), "\n");
      out += StrCat(pad, "  stddev: ", NumberText(def.stddev, &buffer), "\n");
      out += StrCat(pad, "  log: ", def.log ? "true" : "false", "\n");
      continue;
    }
    if (!def.boundaries.empty()) {
      if (def.kind == FeatureKind::kHistoryGaps) out += StrCat(pad, "  to: ", GapsToName(def.to), "\n");
      out += StrCat(pad, "  boundaries: [");
      for (std::size_t i = 0; i < def.boundaries.size(); ++i) {
        out += StrCat(i == 0 ? "" : i % 10 == 0 ? ",\n" + pad + "    " : ", ", NumberText(def.boundaries[i], &buffer));
      }
      out += "]\n";
      continue;
    }
    out += StrCat(pad, "  max_values: ", def.max_values, "\n", pad, "  buckets: ", def.buckets, "\n");
    if (def.word_ngrams != 1) out += StrCat(pad, "  word_ngrams: ", def.word_ngrams, "\n");
    if (def.char_max != 0) out += StrCat(pad, "  char_ngrams: [", def.char_min, ", ", def.char_max, "]\n");
    if (def.vocabulary.empty()) continue;
    out += pad + "  vocabulary: [";
    std::size_t column = 0;
    for (std::size_t i = 0; i < def.vocabulary.size(); ++i) {
      const std::string word = YamlQuote(def.vocabulary[i]);
      if (i > 0) out += ",";
      if (i == 0 || column + word.size() > 110) {
        out += "\n" + pad + "    ";
        column = pad.size() + 4;
      } else {
        out += " ";
      }
      out += word;
      column += word.size() + 2;
    }
    out += "]\n";
  }
  return out;
}

Result<FeatureSpec> FeatureSpec::FromYaml(const YamlNode& node, const std::string& file) {
  if (!node.IsSequence()) return BadFeature(file, node, "features must be a list");
  FeatureSpec spec;
  for (const YamlNode& entry : node.items) {
    if (!entry.IsMapping()) return BadFeature(file, entry, "a feature must be a mapping");
    FeatureDef def;
    for (const auto& [key, value] : entry.members) FRESHET_TRY(ReadKey(key, value, file, &def));
    if (entry.Find("name") == nullptr || entry.Find("kind") == nullptr) {
      return BadFeature(file, entry, "a feature needs `name` and `kind`");
    }
    spec.features.push_back(std::move(def));
  }
  if (const Status status = spec.Finish(); !status.ok()) return status.Prefixed(StrCat(file, ":", node.line));
  return spec;
}

}  // namespace freshet
