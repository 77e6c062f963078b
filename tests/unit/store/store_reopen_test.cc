// A store that a write has failed in is opened again, whoever it was that wrote and whatever the engine waits for; and
// nothing is lost or sent twice by it.
#include <atomic>
#include <chrono>
#include <mutex>

#include "fault_env.h"
#include "freshet/store/changelog.h"
#include "freshet/store/publisher.h"
#include "store_fixture.h"

namespace freshet::test {
namespace {

using Failure = FaultFileSystem::Failure;

std::string Name(int i) { return "item " + std::to_string(i); }

// Takes everything, and keeps what it took; or nothing.
class CountingSink final : public RecordSink {
 public:
  Status Send(const std::vector<OutRecord>& records, std::chrono::milliseconds /*timeout*/) override {
    if (corked) return Unavailable("corked");
    const std::lock_guard lock(mu_);
    for (const OutRecord& record : records) {
      if (record.key != std::string(kProgressKey)) keys_.push_back(*record.key);
    }
    return Status::Ok();
  }
  Result<std::int32_t> PartitionCount(const std::string& /*topic*/) override { return 1; }
  [[nodiscard]] std::vector<std::string> keys() const {
    const std::lock_guard lock(mu_);
    return keys_;
  }
  std::atomic<bool> corked{false};

 private:
  mutable std::mutex mu_;
  std::vector<std::string> keys_;
};

// An engine whose changelog holds it back: the outbox is full, and more is waiting.
class HeldBackTest : public ::testing::Test {
 protected:
  static constexpr int kItems = 60;
  static constexpr std::uint64_t kOutboxBytes = 4'000;
  void Begin(StoreOptions options) {
    options.env = fault_.env.get();
    ApplierOptions apply;
    apply.outbox_max_bytes = kOutboxBytes;
    node_ = std::make_unique<OpenNode>(options, apply);
    publisher_ = std::make_unique<Publisher>(PublisherOptions{}, node_->store.get(), node_->applier.get(), &sink_,
                                             &clock_, &node_->metrics);
    sink_.corked = true;
    node_->applier->Start(&queue_, {});
    publisher_->Start();
    for (int i = 0; i < kItems; ++i) {
      names_.push_back(Name(i));
      ASSERT_TRUE(queue_.Push(Changes(i).Put(Name(i)).Take(), 1));
    }
    ASSERT_TRUE(WaitFor([&] { return node_->store->outbox_bytes() > kOutboxBytes; }));
    ASSERT_LT(node_->applier->sequence(), std::uint64_t{kItems});
  }
  // Everything is applied and published, each record once: nothing of it was sent again because it could not be
  // trimmed.
  void ExpectItRecovers() {
    EXPECT_TRUE(WaitFor([&] { return node_->applier->sequence() == kItems && node_->store->outbox_records() == 0; }));
    EXPECT_EQ(node_->applier->blocked(), "");
    EXPECT_OK(node_->applier->status());
    EXPECT_OK(publisher_->status());
    EXPECT_EQ(sink_.keys(), names_);
    queue_.Close();
    node_->applier->Join();
    publisher_->Stop(1'000);
    EXPECT_TRUE(publisher_->drained());
    EXPECT_OK(node_->applier->Audit());
    EXPECT_EQ(node_->store->Check({})->differences, 0U);
  }
  TempDir dir_;
  FaultEnv fault_;
  SystemClock clock_;
  CountingSink sink_;
  BoundedQueue<EncodedBatch> queue_{1'000, std::size_t{1} << 20};
  std::vector<std::string> names_;
  std::unique_ptr<OpenNode> node_;
  std::unique_ptr<Publisher> publisher_;
};

TEST_F(HeldBackTest, AFailedTrimOpensTheStoreAgain) {
  ASSERT_NO_FATAL_FAILURE(Begin(OptionsAt(dir_ / "data")));
  fault_.files->Fail(Failure::kIoError);
  sink_.corked = false;
  ASSERT_TRUE(WaitFor([&] { return !node_->applier->blocked().empty(); }));
  EXPECT_NE(node_->applier->blocked().find("nothing can be committed"), std::string::npos);
  fault_.files->Fail(Failure::kNone);
  ExpectItRecovers();
}

TEST_F(HeldBackTest, AFailedSyncOpensTheStoreAgain) {
  StoreOptions options = OptionsAt(dir_ / "data");
  options.durability = Durability::kInterval;
  options.sync_interval_ms = 1'000;  // far longer than filling the outbox takes
  fault_.files->FailSyncs(false);
  ASSERT_NO_FATAL_FAILURE(Begin(options));
  fault_.files->FailSyncs(true);
  ASSERT_TRUE(WaitFor([&] { return !node_->applier->blocked().empty(); }));
  fault_.files->FailSyncs(false);
  EXPECT_TRUE(WaitFor([&] { return node_->applier->blocked().empty(); })) << "though nothing can be applied yet";
  sink_.corked = false;
  ExpectItRecovers();
}

TEST_F(HeldBackTest, AnOutboxThatCannotBeReadForAWhileIsPublishedAfterwards) {
  ASSERT_NO_FATAL_FAILURE(Begin(OptionsAt(dir_ / "data")));
  ASSERT_OK(node_->store->Flush());  // out of memory: it has to be read
  Counter& retries =
      node_->metrics.GetCounter("freshet_changelog_retries_total", "Changelog sends that had to be repeated");
  fault_.files->FailReads(true);
  const double before = retries.Value();
  sink_.corked = false;
  EXPECT_TRUE(WaitFor([&] { return fault_.files->reads_failed() > 1 && retries.Value() > before + 1; }));
  EXPECT_OK(publisher_->status());
  fault_.files->FailReads(false);
  ExpectItRecovers();
}

// What a batch comes to is read from the store: a disk that fails to for a moment holds it back, and ends nothing.
TEST(UnreadableStore, IsReadAgain) {
  const TempDir dir;
  FaultEnv fault;
  StoreOptions options = OptionsAt(dir / "data");
  options.env = fault.env.get();
  BoundedQueue<EncodedBatch> queue(10, 1 << 20);
  OpenNode node(options);
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Put("b").Take()));
  ASSERT_OK(node.store->Flush());  // out of memory, and into no cache: it has to be read
  Counter& retries = node.metrics.GetCounter("freshet_store_read_retries_total",
                                             "Reads of the store, for what a batch comes to, that had to be repeated");
  node.applier->Start(&queue, {});
  fault.files->FailReads(true);
  ASSERT_TRUE(queue.Push(Changes(2).Put("c").Put("a", 7).Delete("b").Take(), 1));
  EXPECT_TRUE(WaitFor([&] { return retries.Value() > 0; }));
  EXPECT_NE(node.applier->blocked(), "");
  EXPECT_OK(node.applier->status());
  EXPECT_EQ(node.applier->sequence(), 2U);
  fault.files->FailReads(false);
  EXPECT_TRUE(WaitFor([&] { return node.applier->sequence() == 5; }));
  EXPECT_EQ(node.applier->blocked(), "");
  queue.Close();
  node.applier->Join();
  EXPECT_OK(node.applier->status());
  EXPECT_EQ(node.Ids(), (std::vector<std::string>{"a", "c"}));
  EXPECT_OK(node.applier->Audit());
  EXPECT_EQ(node.store->Check({})->differences, 0U);
}

// Every attempt replays the log: they become rare.
TEST(IdleStore, IsOpenedAgainLessAndLessOften) {
  const TempDir dir;
  FaultEnv fault;
  StoreOptions options = OptionsAt(dir / "data");
  options.env = fault.env.get();
  OpenNode node(options);
  BoundedQueue<EncodedBatch> queue(10, 1 << 20);
  node.applier->Start(&queue, {});
  ASSERT_TRUE(queue.Push(Changes().Put("a").Take(), 1));
  ASSERT_TRUE(WaitFor([&] { return node.applier->sequence() == 1; }));
  Counter& failures = node.metrics.GetCounter("freshet_store_reopen_failures_total",
                                              "Attempts to open the store after a failed write that failed too");
  fault.files->Fail(Failure::kIoError);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(node.store->TrimOutbox(1).code(), Code::kUnavailable);
  EXPECT_EQ(node.store->failure().code(), Code::kIoError);
  ASSERT_TRUE(WaitFor([&] { return failures.Value() >= 5; }));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(50 + 100 + 200 + 400));
  EXPECT_NE(node.applier->blocked(), "");
  fault.files->Fail(Failure::kNone);
  EXPECT_TRUE(WaitFor([&] { return node.store->writable(); }));
  EXPECT_TRUE(WaitFor([&] { return node.applier->blocked().empty(); }));
  EXPECT_OK(node.store->failure());
  EXPECT_OK(node.store->TrimOutbox(1));
  queue.Close();
  node.applier->Join();
}

// A disk that says yes and keeps nothing: what is gone is not written over by what comes next.
TEST(LostTail, IsNoticedWhenTheStoreIsOpenedAgain) {
  const TempDir dir;
  FaultEnv fault;
  StoreOptions options = OptionsAt(dir / "data");
  options.env = fault.env.get();
  OpenNode node(options);
  BoundedQueue<EncodedBatch> queue(10, 1 << 20);
  node.applier->Start(&queue, {});
  ASSERT_TRUE(queue.Push(Changes(0).Put("kept").Take(), 1));
  ASSERT_TRUE(WaitFor([&] { return node.applier->sequence() == 1; }));
  fault.files->LosePower();
  ASSERT_TRUE(queue.Push(Changes(1).Put("gone").Take(), 1));
  ASSERT_TRUE(WaitFor([&] { return node.applier->sequence() == 2; }));
  fault.files->Fail(Failure::kIoError);
  EXPECT_FALSE(node.store->TrimOutbox(1).ok());
  fault.files->RestorePower();
  fault.files->Fail(Failure::kNone);
  EXPECT_TRUE(WaitFor([&] { return !node.applier->status().ok(); }));
  EXPECT_EQ(node.applier->status().code(), Code::kCorruption) << node.applier->status().ToString();
  queue.Close();
  node.applier->Join();
}

// What the store says of itself is read, or the store is not opened: never taken for not being there.
TEST(OpeningAStore, AReadThatFailsIsNoRowThatIsMissing) {
  const TempDir dir;
  std::uint64_t renumbered = 0;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
    ASSERT_OK(node.store->Flush());
    ASSERT_OK(node.store->BecomeRestored({/*sequence_at_least=*/1'000, std::nullopt, std::nullopt}));
    ASSERT_OK(node.store->Flush());  // a table of its own: what it says is read from there
    renumbered = node.store->renumbered();
    ASSERT_EQ(renumbered, 1'000U);
  }
  int refused = 0;
  for (int n = 1;; ++n) {
    SCOPED_TRACE(n);
    FaultEnv fault;
    StoreOptions options = OptionsAt(dir / "data");
    options.env = fault.env.get();
    fault.files->FailRead(n);
    const auto store = Store::Open(options);
    if (fault.files->reads_failed() == 0) break;
    if (!store.ok()) {
      ++refused;
      continue;
    }
    EXPECT_EQ((*store)->renumbered(), renumbered);
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace freshet::test
