#include "bench_towers.h"

#include <fstream>
#include <random>

#include "freshet/core/strings.h"
#include "freshet/encoder/training.h"

namespace freshet::bench {

ItemUpdate ShopItem(int number) {
  ItemUpdate item;
  item.item_id = StrCat("i", number);
  item.features = {
      {"category", StrCat("kind", number % 20)},
      {"price", 1.0 + number % 50},
      {"title", StrCat("word", number % 300, " word", number % 170, " word", number % 90, " set of ", number % 12)}};
  return item;
}

void WriteShopEvents(const TowerShape& shape, const std::string& directory) {
  std::ofstream items(directory + "/items.jsonl");
  for (int i = 0; i < shape.items; ++i) {
    const ItemUpdate item = ShopItem(i);
    items << R"({"item_id": ")" << item.item_id << R"(", "features": {"category": ")"
          << std::get<std::string>(item.features[0].second) << R"(", "price": )"
          << std::get<double>(item.features[1].second) << R"(, "title": ")"
          << std::get<std::string>(item.features[2].second) << "\"}}\n";
  }
  std::mt19937_64 random(shape.seed);
  std::ofstream interactions(directory + "/interactions.jsonl");
  const auto count = static_cast<std::uint64_t>(shape.items);
  for (int time = 1; time <= 3 * shape.items; ++time) {
    interactions << R"({"user_id": "u)" << random() % 200 << R"(", "item_id": "i)" << random() % count
                 << R"(", "timestamp": )" << time << "}\n";
  }
}

Result<std::unique_ptr<ModelPackage>> TrainTowers(const TowerShape& shape, const std::string& directory,
                                                  const std::string& pooling) {
  TrainOptions train;
  train.items_file = directory + "/items.jsonl";
  train.interactions_file = directory + "/interactions.jsonl";
  train.out_directory = StrCat(directory, "/", pooling);
  train.pooling = pooling;
  train.dim = shape.dim;
  train.history = shape.history;
  train.epochs = 1;
  train.report = false;
  FRESHET_TRY(Train(train, nullptr).status());
  return OpenModelPackage({train.out_directory, "", 1});
}

}  // namespace freshet::bench
