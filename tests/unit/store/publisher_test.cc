#include "freshet/store/publisher.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "fault_env.h"
#include "freshet/core/strings.h"
#include "freshet/store/applier.h"
#include "freshet/store/changelog.h"
#include "freshet_test/test_support.h"
#include "store_fixture.h"

namespace freshet {
namespace {

// A broker that can be corked; keeps what it acknowledged.
class FakeSink final : public RecordSink {
 public:
  Status Send(const std::vector<OutRecord>& records, std::chrono::milliseconds /*timeout*/) override {
    ++sends;
    if (corked) return Unavailable("corked");
    const std::lock_guard lock(mu);
    for (const OutRecord& record : records) {
      if (record.key == std::string(kProgressKey)) {
        ++progress;
      } else {
        keys.push_back(*record.key);
      }
    }
    return Status::Ok();
  }
  Result<std::int32_t> PartitionCount(const std::string& /*topic*/) override { return 2; }
  [[nodiscard]] std::size_t count() {
    const std::lock_guard lock(mu);
    return keys.size();
  }
  std::atomic<bool> corked{false};
  std::atomic<int> sends{0};
  std::atomic<int> progress{0};
  std::mutex mu;
  std::vector<std::string> keys;
};

class PublisherTest : public ::testing::Test {
 protected:
  PublisherTest() {
    store_options_.directory = dir_ / "data";
    store_options_.space_id = "s";
    store_options_.dim = 2;
    auto opened = Store::Open(store_options_);
    EXPECT_OK(opened);
    store_ = std::move(*opened);
    ApplierOptions options;
    options.outbox_max_bytes = 4'000;
    applier_ = std::make_unique<Applier>(options, store_options_, store_.get(), &clock_, &metrics_);
    EXPECT_OK(applier_->Rebuild([] { return MakeFlatIndex(2, Metric::kCosine); }));
    publisher_ =
        std::make_unique<Publisher>(PublisherOptions{}, store_.get(), applier_.get(), &sink_, &clock_, &metrics_);
  }
  EncodedBatch BatchOf(const std::string& id) {
    EncodedBatch batch;
    batch.space_id = "s";
    batch.as_of_ms = 1000;
    batch.progress.emplace_back();
    batch.progress[0].partition = {"items", 0};
    batch.progress[0].next_offset = offset_ + 1;
    batch.items.emplace_back();
    batch.items[0].update.item_id = id;
    batch.items[0].update.vector = {1, 0};
    batch.items[0].position.offset = offset_++;
    return batch;
  }
  void Put(const std::string& id) { ASSERT_OK(applier_->Apply(BatchOf(id))); }

  test::TempDir dir_;
  SystemClock clock_;
  Metrics metrics_;
  StoreOptions store_options_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Applier> applier_;
  FakeSink sink_;
  std::unique_ptr<Publisher> publisher_;
  std::int64_t offset_ = 0;
};

TEST_F(PublisherTest, PublishesInOrderTrimsAndTellsItsProgress) {
  for (int i = 0; i < 5; ++i) Put("i" + std::to_string(i));
  publisher_->Start();
  EXPECT_TRUE(test::WaitFor([&] { return store_->outbox_records() == 0; }));
  EXPECT_TRUE(test::WaitFor([&] { return sink_.progress >= 4; })) << "every partition of both topics";
  publisher_->Stop(1000);
  EXPECT_TRUE(publisher_->drained());
  EXPECT_EQ(sink_.keys, (std::vector<std::string>{"i0", "i1", "i2", "i3", "i4"}));
}

TEST_F(PublisherTest, ABrokerThatIsAwayLosesNothing) {
  sink_.corked = true;
  Put("a");
  publisher_->Start();
  EXPECT_TRUE(test::WaitFor([&] { return sink_.sends > 1; }));
  EXPECT_EQ(store_->outbox_records(), 1U);
  Put("b");
  sink_.corked = false;
  EXPECT_TRUE(test::WaitFor([&] { return sink_.count() == 2; }));
  publisher_->Stop(1000);
  EXPECT_EQ(store_->outbox_records(), 0U);
}

// However long it is away: the outbox stays within its bound, what would go above it waits in the log.
TEST_F(PublisherTest, ABrokerThatIsAwayForLongHoldsTheStreamBack) {
  sink_.corked = true;
  BoundedQueue<EncodedBatch> queue(2, std::size_t{1} << 20);
  applier_->Start(&queue, {});
  publisher_->Start();
  constexpr int kItems = 300;
  std::atomic<int> pushed{0};
  std::vector<std::string> ids;
  for (int i = 0; i < kItems; ++i) ids.push_back("i" + std::to_string(i));
  std::thread reading([&] {
    for (const std::string& id : ids) {
      if (!queue.Push(BatchOf(id), 1)) return;
      ++pushed;
    }
  });
  EXPECT_TRUE(test::WaitFor([&] { return store_->outbox_bytes() > 4'000 && queue.size() == 2; }));
  const int sends = sink_.sends;
  EXPECT_TRUE(test::WaitFor([&] { return sink_.sends > sends + 3; }));  // it goes on trying meanwhile
  EXPECT_LT(store_->outbox_bytes(), 4'500U) << "one batch above the bound";
  EXPECT_LT(pushed, kItems);
  sink_.corked = false;
  EXPECT_TRUE(test::WaitFor([&] { return sink_.count() == kItems; }));
  reading.join();
  queue.Close();
  applier_->Join();
  publisher_->Stop(1000);
  EXPECT_TRUE(publisher_->drained());
  EXPECT_EQ(sink_.keys, ids);
}

// A publisher on a store whose disk forgets, or fails to sync.
class PowerLoss : public ::testing::Test {
 protected:
  PowerLoss() { options.env = fault.env.get(); }
  const test::TempDir dir;
  test::FaultEnv fault;
  StoreOptions options = test::OptionsAt(dir / "data");
  FakeSink sink;
  const SystemClock clock;
};

// With `wal` a power loss takes commits back. None that followers know: their numbers would go to other records, which
// followers would drop.
TEST_F(PowerLoss, TakesBackNothingThatWasPublished) {
  const auto published = [&](const std::string& id) {
    const std::lock_guard lock(sink.mu);
    return std::count(sink.keys.begin(), sink.keys.end(), id) > 0;
  };
  {
    test::OpenNode node(options);
    Publisher publisher({}, node.store.get(), node.applier.get(), &sink, &clock, &node.metrics);
    publisher.Start();
    for (int i = 0; i < 5; ++i) ASSERT_OK(node.applier->Apply(test::Changes(i).Put(StrCat("i", i)).Take()));
    ASSERT_TRUE(test::WaitFor([&] { return published("i4"); }));
    publisher.Stop(0);
    ASSERT_OK(node.applier->Apply(test::Changes(5).Put("unpublished").Take()));
    fault.files->LosePower();
  }
  fault.files->DropUnsynced();
  options.env = nullptr;
  test::OpenNode node(options);
  EXPECT_EQ(node.store->sequence(), 5U);
  Publisher publisher({}, node.store.get(), node.applier.get(), &sink, &clock, &node.metrics);
  publisher.Start();
  ASSERT_OK(node.applier->Apply(test::Changes(5).Put("another").Take()));
  EXPECT_TRUE(test::WaitFor([&] { return published("another"); }));
  publisher.Stop(1'000);
  EXPECT_FALSE(published("unpublished"));
  EXPECT_EQ((**node.store->GetItem("another")).sequence, 6U);
}

// A log that cannot be synced is not published.
TEST_F(PowerLoss, WhatCannotBeSyncedIsNotPublished) {
  test::OpenNode node(options);
  Publisher publisher({}, node.store.get(), node.applier.get(), &sink, &clock, &node.metrics);
  fault.files->FailSyncs(true);
  ASSERT_OK(node.applier->Apply(test::Changes(0).Put("a").Take()));
  EXPECT_EQ(node.store->MakeDurable(1).code(), Code::kUnavailable);
  EXPECT_FALSE(node.store->writable());
  fault.files->FailSyncs(false);
  EXPECT_EQ(node.store->MakeDurable(1).code(), Code::kUnavailable) << "whatever the kernel says after a failed sync";
  publisher.Start();
  EXPECT_TRUE(test::WaitFor([&] {
    return node.metrics.GetCounter("freshet_changelog_retries_total", "Changelog sends that had to be repeated")
               .Value() > 0;
  }));
  EXPECT_EQ(sink.count(), 0U);
  ASSERT_OK(node.store->Reopen());
  EXPECT_TRUE(test::WaitFor([&] { return sink.count() == 1; }));
  publisher.Stop(1'000);
}

TEST_F(PublisherTest, StoppingWithoutABrokerKeepsTheOutboxForTheNextStart) {
  sink_.corked = true;
  Put("a");
  publisher_->Start();
  EXPECT_TRUE(test::WaitFor([&] { return sink_.sends > 0; }));
  publisher_->Stop(0);
  EXPECT_FALSE(publisher_->drained());
  EXPECT_EQ(store_->outbox_records(), 1U);
}

}  // namespace
}  // namespace freshet
