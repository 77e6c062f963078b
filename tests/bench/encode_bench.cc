#include "encode_bench.h"

#include <algorithm>
#include <fstream>
#include <memory>
#include <random>

#include "freshet/core/strings.h"
#include "freshet/encoder/package.h"
#include "freshet/encoder/training.h"

namespace freshet::bench {
namespace {

const char* const kPoolings[] = {"mean", "attention", "gru", "self-attention"};
constexpr std::size_t kItemBatches[] = {16, 256};

struct Towers {
  std::string pooling;
  std::unique_ptr<UserEncoder> users;
  std::unique_ptr<ItemEncoder> items;
  std::vector<double> p50_us;  // of each round
  std::vector<double> p99_us;
};

// Titles, a category and a price: what a shop's items have.
ItemUpdate ItemOf(int number) {
  ItemUpdate item;
  item.item_id = StrCat("i", number);
  item.features = {
      {"category", StrCat("kind", number % 20)},
      {"price", 1.0 + number % 50},
      {"title", StrCat("word", number % 300, " word", number % 170, " word", number % 90, " set of ", number % 12)}};
  return item;
}

void WriteEvents(const EncodeBenchOptions& options, const std::string& directory) {
  std::ofstream items(directory + "/items.jsonl");
  for (int i = 0; i < options.items; ++i) {
    const ItemUpdate item = ItemOf(i);
    items << R"({"item_id": ")" << item.item_id << R"(", "features": {"category": ")"
          << std::get<std::string>(item.features[0].second) << R"(", "price": )"
          << std::get<double>(item.features[1].second) << R"(, "title": ")"
          << std::get<std::string>(item.features[2].second) << "\"}}\n";
  }
  std::mt19937_64 random(options.seed);
  std::ofstream interactions(directory + "/interactions.jsonl");
  const auto count = static_cast<std::uint64_t>(options.items);
  for (int time = 1; time <= 3 * options.items; ++time) {
    interactions << R"({"user_id": "u)" << random() % 200 << R"(", "item_id": "i)" << random() % count
                 << R"(", "timestamp": )" << time << "}\n";
  }
}

Result<Towers> MakeTowers(const EncodeBenchOptions& options, const std::string& directory, const std::string& pooling) {
  TrainOptions train;
  train.items_file = directory + "/items.jsonl";
  train.interactions_file = directory + "/interactions.jsonl";
  train.out_directory = StrCat(directory, "/", pooling);
  train.pooling = pooling;
  train.dim = options.dim;
  train.history = options.history;
  train.epochs = 1;
  train.report = false;
  FRESHET_TRY(Train(train, nullptr).status());
  FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package, OpenModelPackage({train.out_directory, "", 1}));
  Towers towers;
  towers.pooling = pooling;
  FRESHET_ASSIGN(towers.users, package->LoadUserEncoder());
  FRESHET_ASSIGN(towers.items, package->LoadItemEncoder());
  return towers;
}

Status QueryRound(const EncodeBenchOptions& options, std::mt19937_64* random, Towers* towers) {
  std::vector<double> took_us;
  std::vector<float> vector(static_cast<std::size_t>(options.dim));
  UserContext user;
  user.user_id = "u";
  for (int query = 0; query < options.queries; ++query) {
    user.history.clear();
    for (int i = 0; i < options.history; ++i) {
      user.history.push_back({StrCat("i", (*random)() % static_cast<std::uint64_t>(options.items)), "view", 1.0, i});
    }
    const double begin = Seconds();
    FRESHET_TRY(towers->users->Encode(user, vector));
    took_us.push_back((Seconds() - begin) * 1e6);
  }
  std::sort(took_us.begin(), took_us.end());
  towers->p50_us.push_back(took_us[took_us.size() / 2]);
  towers->p99_us.push_back(took_us[took_us.size() * 99 / 100]);
  return Status::Ok();
}

// Items a second of this thread, decoded events to vectors.
Result<double> ItemRate(const EncodeBenchOptions& options, std::size_t batch_size, ItemEncoder* encoder) {
  std::vector<ItemUpdate> items;
  for (int i = 0; i < options.items; ++i) items.push_back(ItemOf(i));
  std::vector<const ItemUpdate*> batch(batch_size);
  std::vector<float> out(batch_size * static_cast<std::size_t>(options.dim));
  std::size_t done = 0;
  const double begin = CpuSeconds();
  for (std::size_t at = 0; at + batch_size <= items.size(); at += batch_size) {
    for (std::size_t i = 0; i < batch_size; ++i) batch[i] = &items[at + i];
    FRESHET_TRY(encoder->Encode(batch, out));
    done += batch_size;
  }
  return static_cast<double>(done) / std::max(CpuSeconds() - begin, 1e-9);
}

}  // namespace

Result<Report> RunEncodeBench(const EncodeBenchOptions& given) {
  EncodeBenchOptions options = given;
  if (options.quick) {
    options.items = 600;
    options.queries = 100;
    options.rounds = 1;
  }
  const Directory directory(options.directory);
  WriteEvents(options, directory.path);
  std::vector<Towers> all;
  for (const char* pooling : kPoolings) {
    FRESHET_ASSIGN(Towers towers, MakeTowers(options, directory.path, pooling));
    all.push_back(std::move(towers));
  }
  std::mt19937_64 random(options.seed);
  std::vector<double> rates[std::size(kItemBatches)];
  for (std::size_t round = 0; round < options.rounds; ++round) {
    for (Towers& towers : all) FRESHET_TRY(QueryRound(options, &random, &towers));
    for (std::size_t i = 0; i < std::size(kItemBatches); ++i) {
      FRESHET_ASSIGN(const double rate, ItemRate(options, kItemBatches[i], all[0].items.get()));
      rates[i].push_back(rate);
    }
  }
  Report report;
  report.benchmark = "encode";
  for (const Towers& towers : all) {
    Row& row = report.rows.emplace_back();
    row.name = "user tower, one query";
    row.params = {{"pooling", towers.pooling}, {"history", StrCat(options.history)}, {"dim", StrCat(options.dim)}};
    row.metrics = {{"p50_us", Median(towers.p50_us)}, {"p99_us", Median(towers.p99_us)}};
    if (towers.pooling == "mean") report.goals.push_back({"mean: p99_us", 300, Median(towers.p99_us), true});
    if (towers.pooling == "self-attention") {
      report.goals.push_back({"self-attention: p99_us", 1000, Median(towers.p99_us), true});
    }
  }
  for (std::size_t i = 0; i < std::size(kItemBatches); ++i) {
    Row& row = report.rows.emplace_back();
    row.name = "item tower, one thread";
    row.params = {{"batch", StrCat(kItemBatches[i])}, {"dim", StrCat(options.dim)}};
    row.metrics = {{"items_per_cpu_second", Median(rates[i])}};
    if (kItemBatches[i] == 256) report.goals.push_back({"items_per_cpu_second at 256", 150'000, Median(rates[i])});
  }
  return report;
}

}  // namespace freshet::bench
