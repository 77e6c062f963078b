// The re-ranker of a model package: feature extraction in front of its script.
#pragma once

#include <memory>

#include "freshet/encoder/package.h"
#include "freshet/encoder/reranker.h"
#include "torch_reranker.h"

namespace freshet {

// REQUIRES: manifest.reranker; `script` was loaded with the ShapeOf() (tower_encoders.h) its specs.
[[nodiscard]] std::unique_ptr<Reranker> MakePackageReranker(const ModelManifest& manifest,
                                                            std::unique_ptr<RerankScript> script);

}  // namespace freshet
