#include "freshet/encoder/evaluation.h"

#include <algorithm>
#include <fstream>
#include <set>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"
#include "tiny_model.h"

namespace freshet {
namespace {

// Six items; a is what everybody takes, b goes with c; d is never seen before the test part.
class EvaluationTest : public ::testing::Test {
 protected:
  EvaluationTest() {
    std::string items;
    for (const char* id : {"a", "b", "c", "e", "f"})
      items += StrCat(R"({"item_id": ")", id, R"(", "timestamp": 1})", "\n");
    items += "{\"item_id\": \"d\", \"timestamp\": 100}\n";
    std::ofstream(dir_ / "items.jsonl") << items;
    const auto line = [](const std::string& user, const std::string& item, int time) {
      return StrCat(R"({"user_id": ")", user, R"(", "item_id": ")", item, R"(", "timestamp": )", time, "}\n");
    };
    std::ofstream(dir_ / "interactions.jsonl")
        << line("u1", "b", 10) << line("u1", "c", 11) << line("u2", "a", 12) << line("u3", "a", 13)
        << line("u4", "a", 14) << line("u5", "b", 15)
        << line("u3", "e", 21)  // validation
        // The test part: u5 knows b and takes c and b again, a stranger takes a, u2 takes what is new.
        << line("u5", "c", 100) << line("u5", "b", 101) << line("stranger", "a", 102) << line("u2", "d", 103);
    options_.items_file = dir_ / "items.jsonl";
    options_.interactions_file = dir_ / "interactions.jsonl";
    options_.split.kind = SplitKind::kTime;
    options_.split.validation_from_ms = 20;
    options_.split.test_from_ms = 100;
    options_.ks = {1, 3};
    options_.resamples = 50;
  }

  static const EvaluationSlice* Slice(const EvaluationTable& table, const std::string& name) {
    for (const EvaluationSlice& slice : table.slices) {
      if (slice.name == name) return &slice;
    }
    return nullptr;
  }

  static double Value(const EvaluationSlice& slice, const std::string& system, const std::string& metric) {
    const auto at = std::find(slice.metrics.begin(), slice.metrics.end(), metric) - slice.metrics.begin();
    for (const SystemResult& one : slice.systems) {
      if (one.name == system) return one.metrics.at(static_cast<std::size_t>(at)).value;
    }
    ADD_FAILURE() << "no system " << system;
    return -1;
  }

  const test::TempDir dir_;
  EvaluateOptions options_;
};

// Views are what a recommender reads; purchases what it is asked for.
TEST_F(EvaluationTest, AsksForSomeEventsWhileAllAreHistory) {
  const auto line = [](const std::string& user, const std::string& item, const char* event, int time) {
    return StrCat(R"({"user_id": ")", user, R"(", "item_id": ")", item, R"(", "event": ")", event,
                  R"(", "timestamp": )", time, "}\n");
  };
  std::ofstream(dir_ / "interactions.jsonl")
      << line("u1", "a", "view", 10) << line("u2", "a", "view", 11) << line("u3", "a", "view", 12)
      << line("u1", "b", "buy", 13) << line("u2", "c", "cart", 14) << line("u2", "b", "buy", 15)
      << line("u2", "e", "view", 16) << line("u2", "e", "view", 17)
      << line("u1", "e", "view", 21)
      // The test part: two views, a purchase, a cart.
      << line("u1", "c", "view", 100) << line("u2", "a", "view", 101) << line("u1", "f", "buy", 102)
      << line("u3", "b", "cart", 103);
  options_.split.events = {"buy", "cart"};
  const Result<EvaluationReport> report = Evaluate(options_, nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(report->judged_interactions, 2);
  EXPECT_EQ(report->history_interactions, 9) << "views are history";
  const EvaluationSlice* all = Slice(report->tables[0], "all");
  EXPECT_EQ(all->users, 2);
  // Of what u3 has not seen e is the most popular, and of what is asked for b.
  EXPECT_DOUBLE_EQ(Value(*all, "popularity", "recall_at_1"), 0);
  EXPECT_DOUBLE_EQ(Value(*all, "popularity (asked)", "recall_at_1"), 0.5);
  options_.split.events = {"buy"};
  const Result<EvaluationReport> bought = Evaluate(options_, nullptr);
  ASSERT_OK(bought);
  EXPECT_EQ(bought->judged_interactions, 1);
  EXPECT_EQ(Slice(bought->tables[0], "warm users")->users, 1) << "u1, who had viewed";
  options_.split.events = {"by"};
  const Status status = Evaluate(options_, nullptr).status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("is a `by`: did you mean `buy`?"), std::string::npos) << status.message();
  options_.split.events = {};
  ASSERT_OK(Evaluate(options_, nullptr));
}

TEST_F(EvaluationTest, CountsByHand) {
  const Result<EvaluationReport> report = Evaluate(options_, nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(report->items, 6);
  EXPECT_EQ(report->cold_items, 3) << "d, e (only in validation) and f";
  EXPECT_EQ(report->judged_interactions, 4);
  ASSERT_EQ(report->tables.size(), 2U);

  const EvaluationTable& masked = report->tables[0];
  ASSERT_TRUE(masked.seen_masked);
  const EvaluationSlice* all = Slice(masked, "all");
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(all->users, 3);
  EXPECT_EQ(all->interactions, 3) << "what u5 bought again is not asked for";
  // Popularity: the stranger gets a first (hit); u5 (b masked) a, then c or e; u2 never d at 1.
  EXPECT_DOUBLE_EQ(Value(*all, "popularity", "recall_at_1"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(Value(*Slice(masked, "cold users"), "popularity", "mrr"), 1);
  EXPECT_EQ(Slice(masked, "cold users")->users, 1);
  EXPECT_EQ(Slice(masked, "warm users")->users, 2);
  EXPECT_EQ(Slice(masked, "cold items")->interactions, 1);
  // Who took b also took c; the stranger falls back to popularity.
  EXPECT_DOUBLE_EQ(Value(*all, "co-occurrence", "recall_at_1"), 2.0 / 3);
  // e is the newest before the test part.
  EXPECT_DOUBLE_EQ(Value(*all, "recent popularity", "hit_rate_at_1"), 0);

  const EvaluationSlice* kept = Slice(report->tables[1], "all");
  EXPECT_EQ(kept->interactions, 4);
  // u5 gets a, b, then c or e at 3: b counts where seen items are kept.
  EXPECT_GE(Value(*kept, "popularity", "accuracy_at_3"), 0.5);
}

// e was taken in the validation part: cold to a model that was trained before it, not new to one that was refitted.
TEST_F(EvaluationTest, TellsNewItemsFromColdOnes) {
  std::ofstream(dir_ / "interactions.jsonl", std::ios::app) << R"({"user_id": "u1", "item_id": "e", "timestamp": 104})"
                                                            << "\n";
  const Result<EvaluationReport> report = Evaluate(options_, nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(Slice(report->tables[0], "cold items")->interactions, 2);
  EXPECT_EQ(Slice(report->tables[0], "new items")->interactions, 1);
}

TEST_F(EvaluationTest, ReportsWhatWasLeftOut) {
  std::ofstream(dir_ / "interactions.jsonl", std::ios::app)
      << "{\"user_id\": \"u1\", \"item_id\": \"missing\", \"timestamp\": 104}\n"
      << "{\"user_id\": \"u1\", \"item_id\": \"late\", \"timestamp\": 12}\n";
  std::ofstream(dir_ / "items.jsonl", std::ios::app) << "{\"item_id\": \"late\", \"timestamp\": 300}\n";
  options_.split.test_until_ms = 200;
  const Result<EvaluationReport> report = Evaluate(options_, nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(report->judged_interactions, 4);
  EXPECT_EQ(report->unknown_items, 1);
  EXPECT_EQ(report->later_items, 1);
  EXPECT_EQ(report->warnings.size(), 2U);
}

TEST_F(EvaluationTest, JudgesListsAndModelsWithTheSameCode) {
  std::ofstream(dir_ / "lists.jsonl") << R"({"user_id": "u5", "items": ["b", "unknown", "c"]})"
                                      << "\n"
                                      << R"({"user_id": "stranger", "scores": {"b": 1, "a": 2.5}})"
                                      << "\n{\"user_id\": \"nobody\", \"items\": [\"a\"]}\n";
  ASSERT_OK(WritePackage(test::TinyPackage(), dir_ / "tiny"));
  options_.models = {{"tiny", dir_ / "tiny"}};
  options_.lists = {{"other", dir_ / "lists.jsonl"}};
  options_.write_lists = dir_ / "written.jsonl";
  const Result<EvaluationReport> report = Evaluate(options_, nullptr);
  ASSERT_OK(report);
  const EvaluationSlice* all = Slice(report->tables[0], "all");
  // u5's b is masked, so c comes first; the stranger gets a; u2 has no line.
  EXPECT_DOUBLE_EQ(Value(*all, "other", "recall_at_1"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(Value(*all, "other", "mrr"), 2.0 / 3);

  EXPECT_DOUBLE_EQ(Value(*Slice(report->tables[0], "cold users"), "tiny", "mrr"), 0) << "its tower refuses strangers";

  // The model's own lists, read back, are judged as the model was.
  options_.lists = {{"again", dir_ / "written.jsonl"}};
  options_.mask_seen = {true};
  options_.write_lists.clear();
  const Result<EvaluationReport> second = Evaluate(options_, nullptr);
  ASSERT_OK(second);
  const EvaluationSlice* again = Slice(second->tables[0], "all");
  for (const char* metric : {"recall_at_1", "recall_at_3", "ndcg_at_3", "accuracy_at_3"}) {
    EXPECT_DOUBLE_EQ(Value(*again, "again", metric), Value(*again, "tiny", metric)) << metric;
  }
}

// Of the tiny model: a is (1, 0), b (0, 1), all others (1, 1); u2's vector is a's, u5's is b's, the stranger is
// refused.
TEST_F(EvaluationTest, AnnRecallIsOfTheIndexAndStandsApart) {
  ASSERT_OK(WritePackage(test::TinyPackage(), dir_ / "tiny"));
  options_.models = {{"tiny", dir_ / "tiny"}};
  std::vector<std::vector<std::int32_t>> answers;  // to every query the same
  const SearchIndex search = [&](std::span<const float> items, std::span<const float> queries, int dim, Metric metric,
                                 int k) -> Result<std::vector<std::vector<std::int32_t>>> {
    EXPECT_EQ(items.size(), 12U);
    EXPECT_EQ(dim, 2);
    EXPECT_EQ(metric, Metric::kL2);
    EXPECT_EQ(k, 3) << "the largest K";
    return std::vector(queries.size() / 2, answers.at(0));
  };
  const auto judge = [&](const std::vector<std::int32_t>& answer) {
    answers = {answer};
    return Evaluate(options_, nullptr, search);
  };
  Result<EvaluationReport> report = judge({0, 1, 2});
  ASSERT_OK(report);
  ASSERT_EQ(report->ann.size(), 1U);
  EXPECT_EQ(report->ann[0].system, "tiny");
  EXPECT_EQ(report->ann[0].users, 2) << "serving refuses the stranger";
  // Right for u2 at 1, wrong for u5; at 3 each has its own and one of the equals, and the other's own is the worst of
  // all.
  EXPECT_EQ(report->ann[0].recall, (std::vector<double>{0.5, 2.0 / 3}));
  EXPECT_EQ(report->ann[0].lowest, (std::vector<double>{0, 2.0 / 3}));
  const double recommended = Value(*Slice(report->tables[1], "all"), "tiny", "recall_at_3");
  report = judge({4, 3, 5});
  ASSERT_OK(report);
  EXPECT_EQ(report->ann[0].recall, (std::vector<double>{0, 1})) << "of equals any is right, but each lacks its best";
  EXPECT_EQ(Value(*Slice(report->tables[1], "all"), "tiny", "recall_at_3"), recommended);
  report = judge({0});
  ASSERT_OK(report);
  EXPECT_NEAR(report->ann[0].recall[1], (1.0 / 3 + 0) / 2, 1e-12) << "what is not found is missing";

  options_.ann_users = 1;
  report = judge({0, 1, 2});
  ASSERT_OK(report);
  EXPECT_TRUE(report->ann.empty() || report->ann[0].users == 1) << "one of three, of whom the stranger is refused";
  options_.ann_users = 0;
  EXPECT_TRUE(judge({0, 1, 2})->ann.empty());
  options_.ann_users = 1000;
  EXPECT_TRUE(Evaluate(options_, nullptr)->ann.empty()) << "no index was given";
  const Status beyond = judge({6}).status();
  EXPECT_EQ(beyond.code(), Code::kInternal);
  EXPECT_NE(beyond.message().find("index of tiny"), std::string::npos) << beyond.message();
  options_.ann_users = -1;
  EXPECT_EQ(judge({0}).status().code(), Code::kConfig);
}

// As in serving, where it becomes a dead letter.
TEST_F(EvaluationTest, AnItemThatTheModelRefusesIsRecommendedToNobody) {
  PackageContents contents = test::TinyPackage();
  contents.item_tower = test::TinyTower(R"(
def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
    if bool((dense > 9).any()):
        dense = torch.mm(dense, torch.ones([7, 7]))
    bags = torch.embedding_bag(self.table, indices, offsets, False, 1, False, None, False)[0]
    return bags + torch.mm(dense, self.weight)
)",
                                        1);
  ASSERT_FALSE(contents.item_tower.starts_with("SerializeTower")) << contents.item_tower;
  ASSERT_OK(WritePackage(std::move(contents), dir_ / "tiny"));
  options_.models = {{"tiny", dir_ / "tiny"}};
  options_.mask_seen = {false};
  options_.write_lists = dir_ / "written.jsonl";
  const auto listed = [&](const std::string& id) {
    const Result<EvaluationReport> report = Evaluate(options_, nullptr);
    EXPECT_OK(report);
    return ReadFile(options_.write_lists)->find("\"" + id + "\"") != std::string::npos;
  };
  options_.ks = {6};
  EXPECT_TRUE(listed("b"));
  const auto price = [&](const std::string& ids) {
    std::ofstream items(dir_ / "items.jsonl");
    for (const char id : std::string("abcefd")) {
      items << R"({"item_id": ")" << id << R"(", "features": {"price": )"
            << (ids.find(id) == std::string::npos ? 1 : 99) << "}}\n";
    }
  };
  price("b");
  EXPECT_FALSE(listed("b"));
  EXPECT_TRUE(listed("a"));
  price("abcefd");
  const Status status = Evaluate(options_, nullptr).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("none of the items (the first is `a`)"), std::string::npos) << status.message();
}

TEST_F(EvaluationTest, SaysWhatIsWrong) {
  const auto refusal = [&](const std::string& content) {
    std::ofstream(dir_ / "lists.jsonl") << content;
    options_.lists = {{"other", dir_ / "lists.jsonl"}};
    const Status status = Evaluate(options_, nullptr).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_NE(refusal("{\"user_id\": \"u5\"}\n").find("lists.jsonl:1: a `user_id` and either"), std::string::npos);
  EXPECT_NE(refusal(R"({"user_id": "u5", "scores": {"a": "x"}})").find("the score of `a`"), std::string::npos);
  EXPECT_NE(refusal("{\"user_id\": \"u5\", \"items\": [\"a\"]}\n{\"user_id\": \"u5\", \"items\": [\"b\"]}\n")
                .find("two lines"),
            std::string::npos);
  EXPECT_NE(refusal("{\"user_id\": \"u5\", \"items\": [\"x\"]}\n{\"user_id\": \"u5\", \"items\": [\"b\"]}\n")
                .find("lists.jsonl:2: user `u5` has two lines"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"user_id": "u5", "items": ["a", "c", "a"]})").find("lists.jsonl:1: item `a` is listed twice"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"user_id": "u5", "scores": {"c": 1, "c": 2}})").find("item `c` is listed twice"),
            std::string::npos);
  EXPECT_NE(refusal("\n").find("lists.jsonl: holds no lists"), std::string::npos);
  EXPECT_NE(
      refusal(R"({"user_id": "U5", "items": ["a"]})").find("none of its users has interactions (the first is `U5`"),
      std::string::npos);
  EXPECT_NE(refusal(R"({"user_id": "u5", "items": ["A", "C"]})").find("is a candidate (the first is `A`)"),
            std::string::npos);
  options_.lists.clear();
  options_.models = {{"m", dir_ / "missing"}};
  EXPECT_EQ(Evaluate(options_, nullptr).status().code(), Code::kNotFound);
  options_.models.clear();
  options_.split.test_from_ms = 0;
  EXPECT_EQ(Evaluate(options_, nullptr).status().code(), Code::kConfig);
  options_.judge_validation = true;
  EXPECT_OK(Evaluate(options_, nullptr));
  options_.split.validation_from_ms = 1'000;
  EXPECT_EQ(Evaluate(options_, nullptr).status().code(), Code::kInvalidArgument) << "an empty part";
}

TEST_F(EvaluationTest, JudgesByAsManyUsersAsAreWanted) {
  options_.mask_seen = {false};
  options_.max_users = 2;
  std::set<double> recalls;
  for (options_.seed = 1; options_.seed <= 20; ++options_.seed) {
    const Result<EvaluationReport> report = Evaluate(options_, nullptr);
    ASSERT_OK(report);
    EXPECT_EQ(report->judged_users, 3);
    EXPECT_EQ(report->drawn_users, 2);
    EXPECT_EQ(Slice(report->tables[0], "all")->users, 2);
    recalls.insert(Value(*Slice(report->tables[0], "all"), "popularity", "recall_at_1"));
    EXPECT_EQ(Value(*Slice(Evaluate(options_, nullptr)->tables[0], "all"), "popularity", "recall_at_1"),
              Value(*Slice(report->tables[0], "all"), "popularity", "recall_at_1"));
  }
  EXPECT_GT(recalls.size(), 1U) << "another seed draws others";
  options_.max_users = 3;
  EXPECT_EQ(Evaluate(options_, nullptr)->drawn_users, 3);
  options_.max_users = -1;
  EXPECT_EQ(Evaluate(options_, nullptr).status().code(), Code::kConfig);
}

TEST_F(EvaluationTest, IsDeterministicBySeed) {
  const auto values = [&] {
    std::vector<double> all;
    const Result<EvaluationReport> report = Evaluate(options_, nullptr);
    EXPECT_OK(report);
    for (const SystemResult& system : report->tables[1].slices[0].systems) {
      for (const Measured& one : system.metrics) all.insert(all.end(), {one.value, one.low, one.high});
    }
    return all;
  };
  EXPECT_EQ(values(), values());
}

}  // namespace
}  // namespace freshet
