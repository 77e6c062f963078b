// What the Applier says of its index, by metrics and in the log.
#include <algorithm>

#include "freshet_test/test_support.h"
#include "node.h"

namespace freshet {
namespace {

// An exact index that has done and suffered what a test says.
class Telling final : public Index {
 public:
  explicit Telling(const IndexStats* told) : told_(told) {}
  [[nodiscard]] int dim() const override { return index_->dim(); }
  [[nodiscard]] Metric metric() const override { return index_->metric(); }
  Status Insert(std::span<const Label> labels, std::span<const float> vectors,
                std::span<const std::uint64_t> attributes) override {
    return index_->Insert(labels, vectors, attributes);
  }
  void Tombstone(std::span<const Label> labels) override { index_->Tombstone(labels); }
  Status Maintain() override { return index_->Maintain(); }
  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    return index_->Search(query, options);
  }
  [[nodiscard]] IndexStats Stats() const override { return *told_; }
  [[nodiscard]] std::vector<Label> LiveLabels() const override { return index_->LiveLabels(); }
  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override { return index_->Cut(); }

 private:
  const std::unique_ptr<Index> index_ = MakeFlatIndex(kDim, Metric::kCosine);
  const IndexStats* const told_;
};

class ApplierReport : public ::testing::Test {
 protected:
  // What is logged by the next report.
  std::string Reported() {
    node_.clock.AdvanceMs(10'000);
    testing::internal::CaptureStderr();
    EXPECT_OK(node_.applier->Apply(BatchBuilder().Put("a", offset_++).Take()));
    return testing::internal::GetCapturedStderr();
  }

  const test::TempDir dir_;
  IndexStats stats_;
  Node node_{dir_ / "data", {}, [this]() -> std::unique_ptr<Index> { return std::make_unique<Telling>(&stats_); }};
  std::int64_t offset_ = 0;
};

TEST_F(ApplierReport, WhatFailedInTheBackgroundIsCountedAndLoggedOnceForEachReason) {
  EXPECT_EQ(Reported().find("background"), std::string::npos);
  const auto fail = [&](const std::string& reason) {
    stats_.failures += 3;
    stats_.failure = reason;
    return Reported();
  };
  const std::string first = fail("no memory to link");
  EXPECT_NE(first.find("background"), std::string::npos) << first;
  EXPECT_NE(first.find("no memory to link"), std::string::npos) << first;
  EXPECT_EQ(fail("no memory to link").find("background"), std::string::npos) << "told already";
  EXPECT_NE(fail("no room for lists").find("no room for lists"), std::string::npos);
  EXPECT_EQ(Reported().find("background"), std::string::npos) << "nothing failed since";
  EXPECT_NE(fail("no room for lists").find("no room for lists"), std::string::npos) << "it began again";
  EXPECT_NE(node_.metrics.Text().find("\nfreshet_index_failures 12\n"), std::string::npos);
}

TEST_F(ApplierReport, TakingOutTheDeadIsLogged) {
  EXPECT_EQ(Reported().find("the dead"), std::string::npos);
  stats_.consolidations = 1;
  EXPECT_NE(Reported().find("the dead"), std::string::npos);
  EXPECT_EQ(Reported().find("the dead"), std::string::npos);
}

}  // namespace
}  // namespace freshet
