// Features become rows of the table and dense columns: the same for training and serving.
#include <algorithm>
#include <array>
#include <cmath>

#include "feature_values.h"
#include "freshet/core/checksum.h"
#include "freshet/encoder/feature_spec.h"

namespace freshet {
namespace {

std::int64_t BucketRow(const FeatureSpec& spec, std::size_t f, std::uint64_t hash) {
  const FeatureDef& def = spec.features[f];
  if (def.buckets == 0) return -1;
  const auto bucket = static_cast<std::int64_t>(hash % static_cast<std::uint64_t>(def.buckets));
  return spec.row_base[f] + static_cast<std::int64_t>(def.vocabulary.size()) + bucket;
}

void AppendValue(const FeatureSpec& spec, std::size_t f, std::string_view value, TowerInput* input) {
  if (const std::int64_t row = RowOf(spec, f, value); row >= 0) input->indices.push_back(row);
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
    const FeatureValue* value = FindFeature(features, def.name);
    if (def.kind == FeatureKind::kBucketised) {
      const double* number = value == nullptr ? nullptr : std::get_if<double>(value);
      input->indices.push_back(spec.row_base[f] + BucketOf(def.boundaries, number));
    } else if (value != nullptr) {
      ForEachValue(def, *value, &input->scratch, [&](std::string_view text) { AppendValue(spec, f, text, input); });
    }
  }
  ++input->rows;
}

}  // namespace

std::int64_t RowOf(const FeatureSpec& spec, std::size_t f, std::string_view value) {
  const FeatureDef& def = spec.features[f];
  const std::uint64_t hash = Xxh3(value);
  const std::uint32_t row = spec.lookup[f].Find(hash, [&](std::uint32_t at) { return def.vocabulary[at] == value; });
  return row != SlotTable::kNone ? spec.row_base[f] + row : BucketRow(spec, f, hash);
}

std::int64_t BucketRowOf(const FeatureSpec& spec, std::size_t f, std::string_view value) {
  return BucketRow(spec, f, Xxh3(value));
}

void CollectWords(const FeatureValue& value, std::size_t most, TextScratch* scratch) {
  std::string& lowered = scratch->lowered;
  lowered.clear();
  scratch->words.clear();
  std::size_t part = 0;
  const auto add = [&](std::string_view text) {
    const std::size_t begin = lowered.size();
    LowerWords(text, &scratch->gram);
    lowered += scratch->gram;
    for (std::size_t at = begin; at < lowered.size() && scratch->words.size() < most; ++at) {
      if (lowered[at] == '\0') continue;
      const std::size_t end = std::min(lowered.find('\0', at), lowered.size());
      scratch->words.push_back({at, end, part});
      at = end;
    }
    ++part;
  };
  if (const auto* number = std::get_if<double>(&value)) {
    std::array<char, 32> buffer{};
    lowered = CategoryText(*number, &buffer);
    if (most > 0) scratch->words.push_back({0, lowered.size(), part});
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    add(*text);
  } else {
    for (const std::string& one : std::get<std::vector<std::string>>(value)) {
      if (scratch->words.size() == most) break;
      add(one);
    }
  }
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

void AppendGaps(const FeatureSpec& spec, std::size_t f, std::span<const std::int64_t> times_ms,
                std::vector<std::int64_t>* indices) {
  constexpr std::int64_t kMaxMs = std::int64_t{1} << 53;  // beyond, a double would round
  const FeatureDef& def = spec.features[f];
  const auto known = [&](std::size_t i) { return i < times_ms.size() && times_ms[i] > 0 && times_ms[i] < kMaxMs; };
  for (std::size_t i = 0; i < times_ms.size(); ++i) {
    const std::size_t newer = def.to == GapsTo::kNewest ? 0 : i;
    const std::size_t older = def.to == GapsTo::kNewest ? i : i + 1;
    const bool both = known(newer) && known(older);
    const double seconds = both ? static_cast<double>(times_ms[newer] - times_ms[older]) / 1000 : 0;
    indices->push_back(spec.row_base[f] + BucketOf(def.boundaries, both ? &seconds : nullptr));
  }
}

void AppendUser(const FeatureSpec& spec, const UserContext& user, TowerInput* input) {
  HistoryScratch& read = input->history;
  AppendRow(spec, user.features, input, [&](std::size_t f) {
    const FeatureDef& def = spec.features[f];
    if (def.kind == FeatureKind::kHistory) {
      int left = def.max_values;
      read.kept.clear();
      read.times_ms.clear();
      for (std::size_t number = user.history.size(); number-- > 0 && left > 0;) {
        if (!IsTaken(user.history[number].value)) continue;
        --left;
        const std::int64_t row = RowOf(spec, f, user.history[number].item_id);
        if (row < 0) continue;
        input->indices.push_back(row);
        read.kept.push_back(number);
        read.times_ms.push_back(user.history[number].timestamp_ms);
      }
      return true;
    }
    // Behind `history` in every spec.
    if (def.kind == FeatureKind::kHistoryEvents) {
      for (const std::size_t number : read.kept) AppendValue(spec, f, user.history[number].event, input);
      return true;
    }
    if (def.kind == FeatureKind::kHistoryGaps) {
      AppendGaps(spec, f, read.times_ms, &input->indices);
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
