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

// Of price (an attribute, dense), the user's history and a candidate's id: what each brings is in another digit.
inline const char* const kTinyRerank = R"(
def forward(self, x: Dict[str, Tensor]) -> Tensor:
    liked = torch.embedding_bag(self.table, x["user_indices"], x["user_offsets"], False, 0, False, None, False)[0][0, 0]
    own = torch.embedding_bag(self.table, x["item_indices"], x["item_offsets"], False, 0, False, None, False)[0][:, 0]
    near = torch.mv(x["item_vectors"], x["user_vector"])
    return (x["item_dense"][:, 0] + 10.0 * x["popularity"] + 100.0 * x["age_hours"] + 1000.0 * near
            + 0.1 * x["similarity"] + 0.01 * liked + 0.001 * own)
)";

inline std::string TinyReranker(const std::string& forward) {
  const Result<std::string> bytes = SerializeTower({{"table", {3, 1}, {1, 2, 4}}}, forward);
  return bytes.ok() ? *bytes : "SerializeTower: " + bytes.status().message();
}

// Rows of its table: "a" -> 1, "b" -> 2, unknown -> 4.
inline void AddTinyReranker(PackageContents* contents, const std::string& forward = kTinyRerank) {
  RerankSpec& spec = contents->manifest.reranker.emplace();
  spec.user = contents->manifest.user;
  spec.item = contents->manifest.item;
  contents->reranker = TinyReranker(forward);
  RerankGolden golden;
  golden.user = contents->goldens.users[0];
  golden.user_vector = {0.5F, 0.5F};
  RerankCandidate& candidate = golden.candidates.emplace_back();
  candidate.item.item_id = "b";
  candidate.item.features = {{"price", 4.0}};
  candidate.item.vector = {0, 3};
  candidate.similarity = 0.5F;
  candidate.popularity = 2;
  candidate.age_hours = 3;
  golden.scores = {4 + 20 + 300 + 1500 + 0.05F + 0.03F + 0.002F};
  contents->goldens.reranks = {golden};
}

}  // namespace freshet::test
