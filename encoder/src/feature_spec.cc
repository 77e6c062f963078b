#include "freshet/encoder/feature_spec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::int64_t kMaxRows = std::int64_t{1} << 31;
constexpr std::size_t kMaxFeatures = 1024;

constexpr std::pair<FeatureKind, std::string_view> kKinds[] = {
    {FeatureKind::kCategorical, "categorical"},
    {FeatureKind::kMultiValued, "multi_valued"},
    {FeatureKind::kText, "text"},
    {FeatureKind::kDense, "dense"},
    {FeatureKind::kHistory, "history"},
};

std::string_view KindName(FeatureKind kind) {
  for (const auto& [value, name] : kKinds) {
    if (value == kind) return name;
  }
  return "unknown";
}

// A number as the text of a category: 3.0 is "3", 2.5 is "2.5".
std::string_view NumberText(double number, std::array<char, 32>* buffer) {
  const auto [end, error] = std::to_chars(buffer->data(), buffer->data() + buffer->size(), number);
  return error == std::errc{} ? std::string_view(buffer->data(), static_cast<std::size_t>(end - buffer->data()))
                              : std::string_view();
}

std::string_view CategoryText(double number, std::array<char, 32>* buffer) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (std::trunc(number) != number || std::abs(number) >= kExact) return NumberText(number, buffer);
  const auto [end, error] =
      std::to_chars(buffer->data(), buffer->data() + buffer->size(), static_cast<std::int64_t>(number));
  return error == std::errc{} ? std::string_view(buffer->data(), static_cast<std::size_t>(end - buffer->data()))
                              : std::string_view();
}

void AppendValue(const FeatureSpec& spec, std::size_t f, std::string_view value, TowerInput* input) {
  const FeatureDef& def = spec.features[f];
  const std::uint64_t hash = Xxh3(value);
  const std::uint32_t row = spec.lookup[f].Find(hash, [&](std::uint32_t at) { return def.vocabulary[at] == value; });
  if (row != SlotTable::kNone) {
    input->indices.push_back(spec.row_base[f] + row);
    return;
  }
  if (def.buckets == 0) return;
  const auto bucket = static_cast<std::int64_t>(hash % static_cast<std::uint64_t>(def.buckets));
  input->indices.push_back(spec.row_base[f] + static_cast<std::int64_t>(def.vocabulary.size()) + bucket);
}

void AppendText(const FeatureSpec& spec, std::size_t f, std::string_view text, int* left, TowerInput* input) {
  if (*left <= 0) return;
  ForEachToken(text, &input->lowered, [&](std::string_view token) {
    AppendValue(spec, f, token, input);
    return --*left > 0;
  });
}

void AppendBag(const FeatureSpec& spec, std::size_t f, const FeatureValue& value, TowerInput* input) {
  const FeatureDef& def = spec.features[f];
  int left = def.kind == FeatureKind::kCategorical ? 1 : def.max_values;
  std::array<char, 32> buffer{};
  if (const auto* number = std::get_if<double>(&value)) {
    AppendValue(spec, f, CategoryText(*number, &buffer), input);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    if (def.kind == FeatureKind::kText) {
      AppendText(spec, f, *text, &left, input);
    } else {
      AppendValue(spec, f, *text, input);
    }
  } else {
    for (const std::string& part : std::get<std::vector<std::string>>(value)) {
      if (left <= 0) break;
      if (def.kind == FeatureKind::kText) {
        AppendText(spec, f, part, &left, input);
      } else {
        --left;
        AppendValue(spec, f, part, input);
      }
    }
  }
}

// Missing, of another type, or not finite: the mean, which is 0 after standardisation.
float DenseValue(const FeatureDef& def, const FeatureValue* value) {
  const auto* number = value == nullptr ? nullptr : std::get_if<double>(value);
  if (number == nullptr || !std::isfinite(*number)) return 0;
  const double x = def.log ? std::log1p(std::max(*number, 0.0)) : *number;
  // Far outliers would drown every other feature.
  return static_cast<float>(std::clamp((x - def.mean) / def.stddev, -10.0, 10.0));
}

// `builtin` appends the bag of a built-in source and says whether `name` is one.
template <typename Builtin>
void AppendRow(const FeatureSpec& spec, const Features& features, TowerInput* input, const Builtin& builtin) {
  for (std::size_t f = 0; f < spec.features.size(); ++f) {
    const FeatureDef& def = spec.features[f];
    if (def.kind == FeatureKind::kDense) {
      input->dense.push_back(DenseValue(def, FindFeature(features, def.name)));
      continue;
    }
    input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
    if (builtin(f)) continue;
    if (const FeatureValue* value = FindFeature(features, def.name)) AppendBag(spec, f, *value, input);
  }
  ++input->rows;
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

Status ReadKey(const std::string& key, const YamlNode& value, const std::string& file, FeatureDef* def) {
  if (key == "name") {
    if (!value.IsScalar()) return BadFeature(file, value, "`name` must be text");
    def->name = value.scalar;
  } else if (key == "kind") {
    const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                     [&](const auto& kind) { return kind.second == value.scalar; });
    if (found == std::end(kKinds)) {
      return BadFeature(file, value, StrCat("`", value.scalar, "` is no kind of feature"));
    }
    def->kind = found->first;
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
  } else {
    return BadFeature(file, value, StrCat("unknown key `", key, "` of a feature"));
  }
  return Status::Ok();
}

}  // namespace

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
    if (def.kind == FeatureKind::kHistory && def.name != "history") {
      return ConfigError(where + "the kind `history` belongs to the feature of that name");
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

std::string FeatureSpec::ToYaml(int indent) const {
  const std::string pad(static_cast<std::size_t>(indent), ' ');
  std::string out;
  std::array<char, 32> buffer{};
  for (const FeatureDef& def : features) {
    out += StrCat(pad, "- name: ", YamlQuote(def.name), "\n", pad, "  kind: ", KindName(def.kind), "\n");
    if (def.kind == FeatureKind::kDense) {
      out += StrCat(pad, "  mean: ", NumberText(def.mean, &buffer), "\n");
      out += StrCat(pad, "  stddev: ", NumberText(def.stddev, &buffer), "\n");
      out += StrCat(pad, "  log: ", def.log ? "true" : "false", "\n");
      continue;
    }
    out += StrCat(pad, "  max_values: ", def.max_values, "\n", pad, "  buckets: ", def.buckets, "\n");
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

void TowerInput::Clear() {
  indices.clear();
  offsets.clear();
  dense.clear();
  rows = 0;
}

void AppendItem(const FeatureSpec& spec, const ItemUpdate& item, TowerInput* input) {
  AppendRow(spec, item.features, input, [&](std::size_t f) {
    if (spec.features[f].name != "item_id") return false;
    AppendValue(spec, f, item.item_id, input);
    return true;
  });
}

void AppendUser(const FeatureSpec& spec, const UserContext& user, TowerInput* input) {
  AppendRow(spec, user.features, input, [&](std::size_t f) {
    const FeatureDef& def = spec.features[f];
    if (def.kind == FeatureKind::kHistory) {
      const auto count = std::min(user.history.size(), static_cast<std::size_t>(def.max_values));
      for (std::size_t i = 1; i <= count; ++i) {
        AppendValue(spec, f, user.history[user.history.size() - i].item_id, input);
      }
      return true;
    }
    if (def.name != "user_id") return false;
    AppendValue(spec, f, user.user_id, input);
    return true;
  });
}

void LowerWords(std::string_view text, std::string* lowered) {
  static constexpr std::array<char, 256> kLower = [] {
    std::array<char, 256> lower{};
    for (std::size_t byte = 0; byte < lower.size(); ++byte) {
      const bool upper = byte >= 'A' && byte <= 'Z';
      const bool word = upper || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte >= 0x80;
      lower[byte] = word ? static_cast<char>(upper ? byte - 'A' + 'a' : byte) : '\0';
    }
    return lower;
  }();
  lowered->resize(text.size());
  std::transform(text.begin(), text.end(), lowered->begin(),
                 [](char c) { return kLower[static_cast<unsigned char>(c)]; });
}

}  // namespace freshet
