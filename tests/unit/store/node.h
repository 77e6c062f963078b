// A store, an exact index and the Applier over them; and batches as the encode stage makes them.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "freshet/store/applier.h"
#include "freshet_test/test_support.h"

namespace freshet {

inline constexpr int kDim = 3;

struct Node {
  explicit Node(
      const std::string& directory, ApplierOptions options = {},
      const IndexSource& index = [] { return MakeFlatIndex(kDim, Metric::kCosine); }) {
    store_options.directory = directory;
    store_options.space_id = "s";
    store_options.dim = kDim;
    auto opened = Store::Open(store_options);
    EXPECT_OK(opened);
    store = std::move(*opened);
    applier = std::make_unique<Applier>(options, store_options, store.get(), &clock, &metrics);
    EXPECT_OK(applier->Rebuild(index));
  }
  [[nodiscard]] std::vector<std::string> Ids() const {
    auto ids = applier->catalog().LiveIds();
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  ManualClock clock;
  Metrics metrics;
  StoreOptions store_options;
  std::unique_ptr<Store> store;
  std::unique_ptr<Applier> applier;
};

class BatchBuilder {
 public:
  explicit BatchBuilder(std::int32_t partition = 0, const std::string& topic = "items") {
    batch_.space_id = "s";
    batch_.progress.emplace_back();
    batch_.progress[0].partition = {topic, partition};
  }
  BatchBuilder& Put(const std::string& id, std::int64_t offset, float x = 1, std::uint64_t sequence = 0) {
    ItemChange change;
    change.update.item_id = id;
    change.update.vector = {x, 1, 0};
    return Add(std::move(change), offset, sequence);
  }
  BatchBuilder& Delete(const std::string& id, std::int64_t offset, std::uint64_t sequence = 0) {
    ItemChange change;
    change.update.item_id = id;
    change.update.deleted = true;
    return Add(std::move(change), offset, sequence);
  }
  BatchBuilder& Buy(const std::string& user, const std::string& item, std::int64_t offset) {
    UserChange change;
    change.body = Interaction{user, item, "purchase", 1, offset};
    change.position = {batch_.progress[0].partition.partition, offset};
    batch_.users.push_back(std::move(change));
    return Next(offset, 0);
  }
  BatchBuilder& Epoch(std::uint64_t epoch) {
    batch_.progress[0].epoch = epoch;
    return *this;
  }
  [[nodiscard]] EncodedBatch Take() { return std::move(batch_); }

 private:
  BatchBuilder& Add(ItemChange change, std::int64_t offset, std::uint64_t sequence) {
    change.position = {batch_.progress[0].partition.partition, offset};
    change.sequence = sequence;
    batch_.items.push_back(std::move(change));
    return Next(offset, sequence);
  }
  BatchBuilder& Next(std::int64_t offset, std::uint64_t sequence) {
    batch_.progress[0].next_offset = offset + 1;
    batch_.progress[0].sequence = std::max(batch_.progress[0].sequence, sequence);
    return *this;
  }
  EncodedBatch batch_;
};

}  // namespace freshet
