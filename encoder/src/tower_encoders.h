// The encoders of a model package: feature extraction in front of a TorchScript tower.
#pragma once

#include <memory>

#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/encoder/package.h"
#include "goldens.h"
#include "torch_tower.h"

namespace freshet {

[[nodiscard]] TowerShape ShapeOf(const FeatureSpec& spec, int dim);

// `tower` must have been loaded with ShapeOf(manifest.item / manifest.user, manifest.dim). Check() runs the first few
// of `goldens`; `name` is the package's, for its errors.
[[nodiscard]] std::unique_ptr<ItemEncoder> MakeTowerItemEncoder(const ModelManifest& manifest,
                                                                std::unique_ptr<Tower> tower, const Goldens& goldens,
                                                                std::string name);
[[nodiscard]] std::unique_ptr<UserEncoder> MakeTowerUserEncoder(const ModelManifest& manifest,
                                                                std::unique_ptr<Tower> tower);

}  // namespace freshet
