#include "model_manifest.h"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"

namespace freshet {
namespace {

// Doubles as the hex digits of their bits, so that no two languages can print them differently.
std::string Bits(double value) {
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(std::bit_cast<std::uint64_t>(value)));
  return text;
}

void AppendCanonical(const char* tower, const FeatureSpec& spec, std::string* out) {
  for (const FeatureDef& def : spec.features) {
    *out +=
        StrCat(tower, " ", static_cast<int>(def.kind), " ", def.buckets, " ", def.max_values, " ", Bits(def.mean), " ",
               Bits(def.stddev), " ", def.log ? 1 : 0, " ", def.vocabulary.size(), " ", YamlQuote(def.name), "\n");
    for (const std::string& word : def.vocabulary) *out += YamlQuote(word) + "\n";
    // What format 1 has not is told apart from a feature and from a word by its `+`.
    if (!def.boundaries.empty()) {
      *out += StrCat("+boundaries ", def.boundaries.size());
      for (const double boundary : def.boundaries) *out += " " + Bits(boundary);
      *out += "\n";
    }
    if (def.kind == FeatureKind::kHistoryGaps) *out += StrCat("+to ", GapsToName(def.to), "\n");
    if (def.ReadsNgrams()) *out += StrCat("+ngrams ", def.word_ngrams, " ", def.char_min, " ", def.char_max, "\n");
  }
}

Status Bad(int line, std::string_view what) { return Corruption(StrCat(kManifestFile, ":", line, ": ", what)); }

Result<std::string> TextOf(const YamlNode& root, const char* key) {
  const YamlNode* node = root.Find(key);
  if (node == nullptr) return Bad(root.line, StrCat("`", key, "` is missing"));
  if (!node->IsScalar() || node->scalar.empty()) return Bad(node->line, StrCat("`", key, "` must be text"));
  return node->scalar;
}

Result<int> SmallNumberOf(const YamlNode& root, const char* key, int max) {
  FRESHET_ASSIGN(const std::string text, TextOf(root, key));
  const auto value = ParseInt(text);
  if (!value || *value < 1 || *value > max) {
    return Bad(root.Find(key)->line, StrCat("`", key, "` must be a number from 1 to ", max));
  }
  return static_cast<int>(*value);
}

Result<FeatureSpec> SpecOf(const YamlNode& root, const char* key) {
  const YamlNode* node = root.Find(key);
  if (node == nullptr) return Bad(root.line, StrCat("`", key, "` is missing"));
  Result<FeatureSpec> spec = FeatureSpec::FromYaml(*node, kManifestFile);
  if (!spec.ok()) return Corruption(spec.status().message());
  // Of format 1 such a history was let pass: it reads nothing.
  for (const FeatureDef& def : spec->features) {
    if (std::string_view(key) == "item_features" && IsOfHistory(def.kind) && def.kind != FeatureKind::kHistory) {
      return Bad(node->line, StrCat("`", def.name, "` is of a user's interactions: items have none"));
    }
  }
  return spec;
}

// REQUIRES of a package: the section and the file are there, or neither is.
Result<std::optional<RerankSpec>> RerankerOf(const YamlNode& root, bool has_file) {
  const YamlNode* node = root.Find("reranker");
  if ((node != nullptr) != has_file) {
    return Bad(node == nullptr ? root.line : node->line,
               StrCat("`reranker` and the file ", kRerankerFile, " go together"));
  }
  if (node == nullptr) return std::optional<RerankSpec>();
  if (!node->IsMapping()) return Bad(node->line, "`reranker` must be a mapping");
  FRESHET_ASSIGN(const std::string signature, TextOf(*node, "signature"));
  if (signature != kRerankSignature) {
    return FailedPrecondition(StrCat(kManifestFile, ": the re-ranker's signature `", signature,
                                     "` is not known to this version (it calls ", kRerankSignature, ")"));
  }
  RerankSpec spec;
  for (const auto& [key, value] : node->members) {
    if (key == "item_features") {
      FRESHET_ASSIGN(spec.item, SpecOf(*node, "item_features"));
    } else if (key == "user_features") {
      FRESHET_ASSIGN(spec.user, SpecOf(*node, "user_features"));
    } else if (key != "signature") {
      return Bad(value.line, StrCat("unknown key `", key, "` of `reranker`"));
    }
  }
  return std::optional(std::move(spec));
}

bool IsSha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

std::string SpaceIdOf(const ModelManifest& manifest) {
  std::string text =
      StrCat("freshet-space-v1\n", manifest.sha256.at(kItemTowerFile), "\n", manifest.sha256.at(kUserTowerFile), "\n",
             MetricName(manifest.metric), "\n", manifest.dim, "\n");
  AppendCanonical("item", manifest.item, &text);
  AppendCanonical("user", manifest.user, &text);
  return Sha256Hex(text).substr(0, 16);
}

int FormatOf(const ModelManifest& manifest) {
  int format = std::max(manifest.item.format(), manifest.user.format());
  if (manifest.reranker) {
    format = std::max({format, manifest.reranker->item.format(), manifest.reranker->user.format()});
  }
  return format;
}

std::string ManifestToYaml(const ModelManifest& manifest) {
  std::string out = "# A freshet model package. Layout and keys: encoder/README.md.\n";
  out += StrCat("format: ", manifest.format, "\n");
  out += StrCat("name: ", YamlQuote(manifest.name), "\nversion: ", YamlQuote(manifest.version), "\n");
  out += StrCat("embedding_space_id: ", YamlQuote(manifest.space_id), "\n");
  out += StrCat("dim: ", manifest.dim, "\nmetric: ", MetricName(manifest.metric), "\n");
  out += StrCat("signature: ", YamlQuote(manifest.signature), "\nlibrary: ", YamlQuote(manifest.library_version), "\n");
  out += "files:\n";
  for (const auto& [file, hash] : manifest.sha256) out += StrCat("  ", file, ": ", YamlQuote(hash), "\n");
  out += "item_features:\n" + manifest.item.ToYaml(2) + "user_features:\n" + manifest.user.ToYaml(2);
  if (!manifest.reranker) return out;
  out += StrCat("reranker:\n  signature: ", YamlQuote(kRerankSignature), "\n");
  for (const auto& [key, spec] :
       {std::pair("item_features", &manifest.reranker->item), std::pair("user_features", &manifest.reranker->user)}) {
    if (!spec->features.empty()) out += StrCat("  ", key, ":\n") + spec->ToYaml(4);
  }
  return out;
}

Result<ModelManifest> ManifestFromYaml(const std::string& text) {
  const Result<YamlNode> parsed = ParseYaml(text, kManifestFile);
  if (!parsed.ok()) return Corruption(parsed.status().message());
  const YamlNode& root = *parsed;
  if (!root.IsMapping()) return Bad(1, "a mapping is wanted");

  ModelManifest manifest;
  const YamlNode* format = root.Find("format");
  if (format == nullptr) return Bad(root.line, "`format` is missing");
  const auto number = ParseInt(format->scalar);
  if (number < 1 || number > kNewestFormat) {
    return FailedPrecondition(StrCat(kManifestFile, ": format `", format->scalar,
                                     "` is not known to this version (it reads 1 to ", kNewestFormat, ")"));
  }
  manifest.format = static_cast<int>(*number);
  FRESHET_ASSIGN(manifest.signature, TextOf(root, "signature"));
  if (manifest.signature != kSignature) {
    return FailedPrecondition(StrCat(kManifestFile, ": signature `", manifest.signature,
                                     "` is not known to this version (it calls ", kSignature, ")"));
  }
  FRESHET_ASSIGN(manifest.name, TextOf(root, "name"));
  FRESHET_ASSIGN(manifest.version, TextOf(root, "version"));
  FRESHET_ASSIGN(manifest.space_id, TextOf(root, "embedding_space_id"));
  FRESHET_ASSIGN(manifest.library_version, TextOf(root, "library"));
  FRESHET_ASSIGN(manifest.dim, SmallNumberOf(root, "dim", kMaxDim));
  FRESHET_ASSIGN(const std::string metric, TextOf(root, "metric"));
  const Result<Metric> parsed_metric = ParseMetric(metric);
  if (!parsed_metric.ok()) return Bad(root.Find("metric")->line, parsed_metric.status().message());
  manifest.metric = *parsed_metric;

  const YamlNode* files = root.Find("files");
  if (files == nullptr || !files->IsMapping()) return Bad(root.line, "`files` is missing");
  for (const auto& [file, hash] : files->members) {
    if (file != kItemTowerFile && file != kUserTowerFile && file != kRerankerFile && file != kGoldensFile) {
      return Bad(hash.line, StrCat("`", file, "` is no file of a package"));
    }
    if (!IsSha256(hash.scalar)) return Bad(hash.line, StrCat("the SHA-256 of ", file, " is not 64 hex digits"));
    manifest.sha256[file] = hash.scalar;
  }
  for (const char* file : {kItemTowerFile, kUserTowerFile, kGoldensFile}) {
    if (!manifest.sha256.contains(file)) {
      return Bad(files->line, "`files` must name both towers and goldens.json");
    }
  }

  FRESHET_ASSIGN(manifest.item, SpecOf(root, "item_features"));
  FRESHET_ASSIGN(manifest.user, SpecOf(root, "user_features"));
  FRESHET_ASSIGN(manifest.reranker, RerankerOf(root, manifest.sha256.contains(kRerankerFile)));
  // A reader of that format would have refused it.
  if (const int needed = FormatOf(manifest); needed > manifest.format) {
    return Bad(format->line, StrCat("format ", manifest.format, ", but its features are of format ", needed));
  }
  for (const auto& [key, node] : root.members) {
    static constexpr std::string_view kKeys[] = {"format", "name",          "version",       "embedding_space_id",
                                                 "dim",    "metric",        "signature",     "library",
                                                 "files",  "item_features", "user_features", "reranker"};
    if (std::find(std::begin(kKeys), std::end(kKeys), key) == std::end(kKeys)) {
      return Bad(node.line, StrCat("unknown key `", key, "`"));
    }
  }
  if (const std::string derived = SpaceIdOf(manifest); derived != manifest.space_id) {
    return Corruption(StrCat(kManifestFile, ": embedding_space_id is ", manifest.space_id,
                             ", but towers and features give ", derived));
  }
  return manifest;
}

}  // namespace freshet
