#include "sidecar_world.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/index_files.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kClusters = 256;
constexpr std::size_t kBatch = 512;

std::string ItemId(std::uint64_t item) { return StrCat("item-", 100'000'000 + item); }

float Dot(const float* a, const float* b, int dim) { return std::inner_product(a, a + dim, b, 0.0F); }

}  // namespace

Result<std::unique_ptr<SidecarWorld>> SidecarWorld::Make(const SidecarBenchOptions& options) {
  auto world = std::make_unique<SidecarWorld>();
  world->seed_ = options.seed;
  world->items_ = options.vectors;
  std::string directory = options.keep;
  if (directory.empty()) {
    world->own_directory_ = std::make_unique<Directory>(options.directory);
    directory = world->own_directory_->path;
  }
  world->rows_ = test::ClusteredVectors(options.seed, 0, options.vectors, options.dim, kClusters);
  world->queries_ = test::ClusteredVectors(options.seed, 1, options.queries, options.dim, kClusters);
  world->pivot_.assign(world->queries_.Row(0), world->queries_.Row(0) + options.dim);
  world->nearness_ = world->Nearness();

  StoreOptions store;
  store.directory = directory + "/data";
  store.space_id = "bench";
  store.dim = options.dim;
  FRESHET_ASSIGN(world->store_, Store::Open(store));
  ApplierOptions apply;
  apply.outbox = false;
  world->applier_ = std::make_unique<Applier>(apply, store, world->store_.get(), &world->clock_, &world->metrics_);
  HnswOptions index;
  index.dim = options.dim;
  index.link_threads = 2;
  FRESHET_TRY(world->applier_->Rebuild([&] {
    return IndexFiles(world->store_.get())
        .Open([&](const std::string& path) { return OpenHnswIndex(path, index); },
              [&] { return MakeHnswIndex(index); });
  }));
  FRESHET_TRY(world->Fill(options));
  world->service_ = std::make_unique<RecallService>(world->applier_.get(), nullptr, &world->clock_, &world->metrics_);
  return world;
}

SidecarWorld::~SidecarWorld() = default;

// By rank, so that a filter lets through exactly its share.
std::vector<std::int64_t> SidecarWorld::Nearness() const {
  std::vector<std::pair<float, std::size_t>> order(rows_.size);
  for (std::size_t i = 0; i < rows_.size; ++i) order[i] = {-Dot(rows_.Row(i), pivot_.data(), rows_.dim), i};
  std::sort(order.begin(), order.end());
  std::vector<std::int64_t> nearness(rows_.size);
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    nearness[order[rank].second] = static_cast<std::int64_t>(rank) * kScale / static_cast<std::int64_t>(rows_.size);
  }
  return nearness;
}

EncodedBatch SidecarWorld::BatchOf(std::size_t begin, std::size_t end) const {
  EncodedBatch batch;
  batch.space_id = "bench";
  batch.progress.push_back(PartitionProgress{{"items", 0}, static_cast<std::int64_t>(end), 0, 0, 0, 0});
  for (std::size_t i = begin; i < end; ++i) {
    const std::size_t item = i % items_;
    // Written again it gets another's vector: something changes.
    const std::size_t row_of = (item + i / items_) % rows_.size;
    ItemChange& change = batch.items.emplace_back();
    change.update.item_id = ItemId(item);
    std::mt19937_64 random(seed_ + item);
    change.update.attributes = {{kByChance, static_cast<std::int64_t>(random() % kScale)},
                                {kByNearness, nearness_[row_of]}};
    const float* row = rows_.Row(row_of);
    change.update.vector.assign(row, row + rows_.dim);
    change.position = {0, static_cast<std::int64_t>(i)};
  }
  return batch;
}

Status SidecarWorld::Fill(const SidecarBenchOptions& options) {
  const auto stored = applier_->StoredOffsets({{"items", 0}});
  next_offset_ = stored.empty() ? 0 : stored.begin()->second;
  if (next_offset_ > 0 && applier_->catalog().live() != items_) {
    return InvalidArgument(StrCat(options.keep, " holds ", applier_->catalog().live(), " items, not ", items_));
  }
  const bool filled = next_offset_ > 0;
  for (auto at = static_cast<std::size_t>(next_offset_); at < items_; at += kBatch) {
    FRESHET_TRY(applier_->Apply(BatchOf(at, std::min(items_, at + kBatch))));
  }
  next_offset_ = std::max(next_offset_, static_cast<std::int64_t>(items_));
  FRESHET_TRY(Settle());
  if (options.keep.empty() || filled) return Status::Ok();
  FRESHET_TRY(store_->Flush());
  FRESHET_ASSIGN(const std::unique_ptr<IndexCut> cut, applier_->CutIndex());
  return IndexFiles(store_.get()).Save(*cut, store_->sequence()).status();
}

Status SidecarWorld::Settle() { return const_cast<Index&>(applier_->index()).Settle(); }

Status SidecarWorld::AddUsers(std::size_t users, int history) {
  const auto stored = applier_->StoredOffsets({{"interactions", 0}});
  if (!stored.empty()) return Status::Ok();  // of a run before
  std::mt19937_64 random(seed_);
  EncodedBatch batch;
  batch.space_id = "bench";
  for (std::size_t user = 0; user < users; ++user) {
    for (int i = 0; i < history; ++i) {
      UserChange& change = batch.users.emplace_back();
      change.position = {0, static_cast<std::int64_t>(batch.users.size()) - 1};
      change.body = Interaction{StrCat("user-", user), ItemId(random() % items_), "view", 1.0, 1'700'000'000'000 + i};
    }
  }
  const auto end = static_cast<std::int64_t>(batch.users.size());
  batch.progress.push_back(PartitionProgress{{"interactions", 0}, end, 0, 0, 0, 0});
  return applier_->Apply(std::move(batch));
}

EncodedBatch SidecarWorld::Updates(std::size_t count) {
  const auto begin = static_cast<std::size_t>(next_offset_);
  next_offset_ += static_cast<std::int64_t>(count);
  return BatchOf(begin, begin + count);
}

}  // namespace freshet::bench
