// What tests of the store share: a store with an exact index on it, and batches made by hand.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "freshet/store/applier.h"
#include "freshet/store/index_files.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

inline constexpr int kStoreDim = 3;

inline StoreOptions OptionsAt(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.space_id = "s";
  options.dim = kStoreDim;
  options.write_buffer_bytes = std::size_t{1} << 20;
  return options;
}

// Opened as an engine opens it: the index from the store's file where there is one.
struct OpenNode {
  explicit OpenNode(const StoreOptions& store_options, const ApplierOptions& options = {}) {
    auto opened = Store::Open(store_options);
    EXPECT_OK(opened);
    store = std::move(*opened);
    applier = std::make_unique<Applier>(options, store_options, store.get(), &clock, &metrics);
    EXPECT_OK(applier->Rebuild([&] {
      const auto [dim, metric] = std::pair(store_options.dim, store_options.metric);
      return IndexFiles(store.get())
          .Open([&](const std::string& path) { return OpenFlatIndex(path, dim, metric); },
                [&] { return MakeFlatIndex(dim, metric); });
    }));
  }
  explicit OpenNode(const std::string& directory) : OpenNode(OptionsAt(directory)) {}
  [[nodiscard]] std::vector<std::string> Ids() const {
    auto ids = applier->catalog().LiveIds();
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  void SaveIndex() {
    auto cut = applier->CutIndex();
    ASSERT_OK(cut);
    ASSERT_OK(IndexFiles(store.get()).Save(**cut, applier->sequence()));
  }
  ManualClock clock;
  Metrics metrics;
  std::unique_ptr<Store> store;
  std::unique_ptr<Applier> applier;
};

// One batch of one partition of `items`; each change at the next offset.
class Changes {
 public:
  explicit Changes(std::int64_t first_offset = 0, const std::string& topic = "items", std::int32_t partition = 0)
      : next_(first_offset) {
    batch_.space_id = "s";
    batch_.progress.emplace_back();
    batch_.progress[0].partition = {topic, partition};
  }
  Changes& Put(const std::string& id, float x = 1) {
    ItemChange change;
    change.update.item_id = id;
    change.update.attributes = {{"title", std::string("title of " + id)}};
    change.update.features = {{"price", 1.5}};
    change.update.vector = {x, 1, 0};
    return Add(std::move(change));
  }
  Changes& Delete(const std::string& id) {
    ItemChange change;
    change.update.item_id = id;
    change.update.deleted = true;
    return Add(std::move(change));
  }
  Changes& Buy(const std::string& user, const std::string& item) {
    UserChange change;
    change.body = Interaction{user, item, "purchase", 1, next_};
    change.position = {batch_.progress[0].partition.partition, next_};
    batch_.users.push_back(std::move(change));
    Cover();
    return *this;
  }
  [[nodiscard]] EncodedBatch Take() { return std::move(batch_); }

 private:
  Changes& Add(ItemChange change) {
    change.position = {batch_.progress[0].partition.partition, next_};
    batch_.items.push_back(std::move(change));
    Cover();
    return *this;
  }
  void Cover() { batch_.progress[0].next_offset = ++next_; }
  EncodedBatch batch_;
  std::int64_t next_;
};

}  // namespace freshet::test
