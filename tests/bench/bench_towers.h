// Towers to measure with: a small training makes the package; its weights do not matter for speed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "freshet/core/status.h"
#include "freshet/encoder/package.h"

namespace freshet::bench {

struct TowerShape {
  int items = 4000;
  int dim = 64;
  int history = 50;
  std::uint64_t seed = 42;
};

// Titles, a category and a price: what a shop's items have. Its id is "i" and the number.
[[nodiscard]] ItemUpdate ShopItem(int number);
// items.jsonl and interactions.jsonl.
void WriteShopEvents(const TowerShape& shape, const std::string& directory);
// Of those files, into DIRECTORY/`pooling`.
[[nodiscard]] Result<std::unique_ptr<ModelPackage>> TrainTowers(const TowerShape& shape, const std::string& directory,
                                                                const std::string& pooling);

}  // namespace freshet::bench
