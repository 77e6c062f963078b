// model.yaml, both ways, and the embedding space id. Stateless, thread-safe.
#pragma once

#include <string>

#include "freshet/core/status.h"
#include "freshet/encoder/package.h"

namespace freshet {

inline constexpr const char* kManifestFile = "model.yaml";
inline constexpr const char* kManifestSumFile = "model.yaml.sha256";
inline constexpr const char* kItemTowerFile = "item_tower.pt";
inline constexpr const char* kUserTowerFile = "user_tower.pt";
inline constexpr const char* kRerankerFile = "reranker.pt";  // may be missing
inline constexpr const char* kGoldensFile = "goldens.json";
inline constexpr const char* kSignature = "bags-dense-v1";
inline constexpr const char* kRerankSignature = "rerank-v1";
inline constexpr int kMaxDim = 4096;
inline constexpr int kNewestFormat = 2;

// The lowest format that can hold its features: what every version that can serve them reads.
[[nodiscard]] int FormatOf(const ModelManifest& manifest);

// First 16 hex digits of the SHA-256 of the canonical text (README.md): tower hashes, metric, dimension, feature specs.
// REQUIRES: manifest.sha256 holds both towers.
[[nodiscard]] std::string SpaceIdOf(const ModelManifest& manifest);

[[nodiscard]] std::string ManifestToYaml(const ModelManifest& manifest);
// Errors: kCorruption ("model.yaml:12: ..."), kFailedPrecondition for a format or a signature that we do not know.
[[nodiscard]] Result<ModelManifest> ManifestFromYaml(const std::string& text);

}  // namespace freshet
