// A model small enough to reason about: an item's vector is its row of a table plus its price, a user's the mean of the
// history's rows. Rows: item "a" -> (1, 0), "b" -> (0, 1), unknown -> (1, 1); prices enter as price * (0, 0.5).
#pragma once

#include <string>

#include "package_writer.h"
#include "torch_tower.h"

namespace freshet::test {

inline const char* const kTinyForward = R"(
def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
    bags = torch.embedding_bag(self.table, indices, offsets, False, 1, False, None, False)[0]
    return bags + torch.mm(dense, self.weight)
)";

inline std::string TinyTower(const std::string& forward, std::int64_t dense) {
  std::vector<float> weight(static_cast<std::size_t>(dense * 2));
  if (dense == 1) weight = {0, 0.5F};
  const Result<std::string> bytes =
      SerializeTower({{"table", {3, 2}, {1, 0, 0, 1, 1, 1}}, {"weight", {dense, 2}, weight}}, forward);
  return bytes.ok() ? *bytes : "SerializeTower: " + bytes.status().message();
}

inline PackageContents TinyPackage() {
  PackageContents contents;
  contents.manifest.name = "tiny";
  contents.manifest.version = "1";
  contents.manifest.library_version = "LibTorch " + TorchVersion();
  contents.manifest.dim = 2;
  contents.manifest.metric = Metric::kL2;
  FeatureDef id;
  id.name = "item_id";
  id.vocabulary = {"a", "b"};
  id.buckets = 1;
  FeatureDef price;
  price.name = "price";
  price.kind = FeatureKind::kDense;
  contents.manifest.item.features = {id, price};
  FeatureDef history = id;
  history.name = "history";
  history.kind = FeatureKind::kHistory;
  contents.manifest.user.features = {history};
  (void)contents.manifest.item.Finish();
  (void)contents.manifest.user.Finish();
  contents.item_tower = TinyTower(kTinyForward, 1);
  contents.user_tower = TinyTower(kTinyForward, 0);

  ItemUpdate item;
  item.item_id = "b";
  item.features = {{"price", 4.0}};
  item.vector = {0, 3};
  contents.goldens.items = {item};
  UserContext user;
  user.user_id = "u";
  user.history = {{"a", "view", 1.0, 1}, {"b", "view", 1.0, 2}};
  contents.goldens.users = {user};
  contents.goldens.user_vectors = {{0.5F, 0.5F}};
  return contents;
}

}  // namespace freshet::test
