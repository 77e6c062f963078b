#include "training_report.h"

#include <cmath>

#include "embedding_map.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"
#include "report_svg.h"
#include "training_log.h"

namespace freshet {
namespace {

ItemUpdate Item(const std::string& id, const std::string& title, const std::string& kind) {
  ItemUpdate item;
  item.item_id = id;
  if (!kind.empty()) item.features.emplace_back("kind", std::vector<std::string>{kind});
  if (!title.empty()) item.features.emplace_back("title", title);
  return item;
}

TEST(EmbeddingMapTest, FindsNeighboursInOrder) {
  const std::vector<float> rows = {1, 0, 0, 1, 0.8F, 0.6F, 0.6F, 0.8F};
  const std::vector<Neighbour> near = NearestRows(rows, 2, 0, 2);
  ASSERT_EQ(near.size(), 2U);
  EXPECT_EQ(near[0].row, 2U);
  EXPECT_EQ(near[1].row, 3U);
  EXPECT_FLOAT_EQ(near[0].score, 0.8F);
  EXPECT_EQ(NearestRows(rows, 2, 0, 9).size(), 3U) << "never itself";
}

// Points of a plane in five dimensions come back with their distances.
TEST(EmbeddingMapTest, AMapOfAPlaneKeepsDistances) {
  const double a[] = {0.6, 0, 0.8, 0, 0};
  const double b[] = {0, 1, 0, 0, 0};
  std::vector<float> rows;
  std::vector<std::pair<double, double>> where;
  for (int i = 0; i < 40; ++i) {
    where.emplace_back(3 * std::sin(i), std::cos(2 * i));
    for (std::size_t d = 0; d < 5; ++d) {
      rows.push_back(static_cast<float>(2 + where.back().first * a[d] + where.back().second * b[d]));
    }
  }
  const PlaneMap map = PrincipalPlane(rows, 5);
  ASSERT_EQ(map.points.size(), 40U);
  EXPECT_NEAR(map.share, 1, 1e-6);
  for (std::size_t i = 1; i < 40; ++i) {
    const auto apart = [&](const auto& points) {
      return std::hypot(points[i].first - points[0].first, points[i].second - points[0].second);
    };
    EXPECT_NEAR(apart(map.points), apart(where), 1e-4);
  }
  const std::vector<float> same(15, 1);
  EXPECT_EQ(PrincipalPlane(same, 5).points[2], (std::pair<double, double>{0, 0})) << "nothing to tell apart";
  EXPECT_TRUE(PrincipalPlane({}, 5).points.empty());
}

TEST(ReportSvgTest, DrawsLinesLevelsAndTheMark) {
  const std::string chart = LineChart("recall", {{"model", {0.1, 0.3, 0.2}}, {"popularity", {0.15}}}, 2);
  EXPECT_NE(chart.find("epoch 2: 0.3000"), std::string::npos);
  EXPECT_NE(chart.find("stroke-dasharray"), std::string::npos) << "one value is a level";
  EXPECT_NE(chart.find("r=\"6\""), std::string::npos);
  EXPECT_EQ(chart.find("nan"), std::string::npos);
  for (const auto& values : std::vector<std::vector<double>>{{0.0}, {5, 5, 5}, {1e6, 2e6}, {1e-7, 2e-7}}) {
    const std::string one = LineChart("x", {{"x", values}}, 1);
    EXPECT_EQ(one.find("nan"), std::string::npos);
    EXPECT_EQ(one.find("inf"), std::string::npos);
  }
  EXPECT_EQ(LineChart("x", {{"x", {}}}, 0), "");
}

TEST(TrainingLogTest, TellsTheEndOfEachEpochAndTheMakingOfThePage) {
  const test::TempDir dir;
  TrainingLog log;
  ASSERT_OK(log.Open(dir / "log.jsonl", false));
  TrainProgress state;
  state.epoch = 2;
  state.epochs = 3;
  state.recall = 0.5;  // of the epoch before
  log.Progress(state);
  state.ended = true;
  state.recall = 0.75;
  log.Progress(state);
  state.refit = true;
  state.recall = -1;
  log.Progress(state);
  const std::string text = *ReadFile(dir / "log.jsonl");
  const std::vector<std::string> lines = Split(text, '\n');
  ASSERT_EQ(lines.size(), 4U) << text;
  EXPECT_NE(lines[0].find("\"progress\""), std::string::npos) << text;
  EXPECT_EQ(lines[0].find("\"recall\""), std::string::npos) << text;
  EXPECT_NE(lines[1].find("\"recall\":0.75"), std::string::npos) << text;
  EXPECT_NE(lines[2].find("\"epoch\""), std::string::npos) << "a refit's epoch ends too: " << text;
  EXPECT_EQ(lines[2].find("\"recall\""), std::string::npos) << text;

  TrainingLog page;
  ASSERT_OK(page.Open(dir / "page.jsonl", false));
  state.ended = false;
  state.reporting = "co-occurrence";
  page.Progress(state);
  EXPECT_NE(ReadFile(dir / "page.jsonl")->find("\"what\":\"report\""), std::string::npos);
}

TEST(TrainingReportTest, NamesItemsAsPeopleDo) {
  EXPECT_EQ(ItemName(Item("i1", "Toy Story", "Animation")), "Toy Story");
  EXPECT_EQ(ItemName(Item("i1", "", "Animation")), "i1");
  ItemUpdate other;
  other.item_id = "i2";
  other.features = {{"category", std::string("lamp")}, {"label", std::string("A lamp")}};
  EXPECT_EQ(ItemName(other), "A lamp");
}

TEST(TrainingReportTest, IsOnePageThatLoadsNothingAndTrustsNoText) {
  TrainOptions options;
  options.name = "<b>two</b> & \"towers\"";
  options.dim = 2;
  options.validation_k = 100;
  TrainReport training;
  training.space_id = "0123456789abcdef";
  training.epochs = {{1, 3, 0.1, 1}, {2, 2, 0.2, 2}};
  training.best_epoch = 2;
  training.popularity_recall = 0.15;
  TrainingData data;
  data.items = {Item("a", "<script>alert(1)</script>", "lamp"), Item("b", "Grüße", "lamp"), Item("c", "", "rug"),
                Item("d", std::string(200, 'x'), "")};
  data.item_counts = {5, 3, 0, 1};
  FeatureDef kind;
  kind.name = "kind";
  kind.kind = FeatureKind::kMultiValued;
  data.item_spec.features = {kind};
  EvaluationReport judged;
  judged.tables.resize(1);
  EvaluationSlice& slice = judged.tables[0].slices.emplace_back();
  slice.name = "all";
  slice.users = 3;
  slice.metrics = {"recall_at_10", "hit_rate_at_10", "ndcg_at_10", "accuracy_at_10", "mrr"};
  for (const char* name : {"model", "popularity"}) {
    SystemResult& system = slice.systems.emplace_back();
    system.name = name;
    system.metrics.assign(5, {0.25, 0.2, 0.3});
    system.ratio_to_popularity.assign(5, {1.5, 1.25, 1.75});
  }
  const ReportContents contents{&options, &training, &data, &judged, {1, 0, 0.6F, 0.8F, 0, 1, 0.8F, 0.6F}};
  const std::string page = TrainingReportHtml(contents);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("<b>two"), std::string::npos);
  for (const char* loads : {"http://", "https://", "src=", "url(", "@import", "<link"}) {
    EXPECT_EQ(page.find(loads), std::string::npos) << loads;
  }
  for (const char* wanted : {"&lt;script&gt;", "Grüße", "recall@10", "1.50", "never seen in training", "5 interactions",
                             "<tr class=\"model\"><td>model</td>", "popularity", "lamp", "0.2500", "All 4 items"}) {
    EXPECT_NE(page.find(wanted), std::string::npos) << wanted;
  }
  EXPECT_EQ(page.find(std::string(100, 'x')), std::string::npos) << "long names are cut";
}

}  // namespace
}  // namespace freshet
