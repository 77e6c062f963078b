// The re-ranker of a package: what its script is given, what may be wrong with it, and that none of it gets out.
#include "freshet/encoder/reranker.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet_test/test_support.h"
#include "package_writer.h"
#include "tiny_model.h"
#include "torch_reranker.h"

namespace freshet {
namespace {

constexpr TowerShape kBare{0, 0, 0, 2};  // without features

std::string Script(const std::string& body) {
  return test::TinyReranker("def forward(self, x: Dict[str, Tensor]) -> Tensor:\n" + body);
}

RerankTensors Tensors(const std::vector<float>& similarity) {
  RerankTensors tensors;
  tensors.user_vector = {1, 0};
  tensors.item_vectors.assign(2 * similarity.size(), 0.5F);
  tensors.similarity = similarity;
  tensors.popularity.assign(similarity.size(), 0.0F);
  tensors.age_hours.assign(similarity.size(), -1.0F);
  tensors.user.rows = 1;
  tensors.items.rows = static_cast<std::int64_t>(similarity.size());
  return tensors;
}

class RerankerPackageTest : public ::testing::Test {
 protected:
  Status WriteAndLoad(PackageContents contents) {
    FRESHET_ASSIGN(space_id_, WritePackage(std::move(contents), directory_));
    return Load();
  }
  Status Load() {
    FRESHET_ASSIGN(package_, OpenModelPackage({directory_, "", 1}));
    FRESHET_ASSIGN(reranker_, package_->LoadReranker());
    return Status::Ok();
  }
  void ReplaceInManifest(const std::string& from, const std::string& to) {
    std::string yaml = *ReadFile(directory_ + "/model.yaml");
    const std::size_t at = yaml.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    yaml.replace(at, from.size(), to);
    std::ofstream(directory_ + "/model.yaml") << yaml;
    std::ofstream(directory_ + "/model.yaml.sha256") << Sha256Hex(yaml) << "  model.yaml\n";
  }
  static PackageContents Tiny() {
    PackageContents contents = test::TinyPackage();
    test::AddTinyReranker(&contents);
    return contents;
  }
  void ExpectRefusal(const Status& status, Code code, const std::string& what) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_NE(status.message().find(what), std::string::npos) << status.ToString();
  }

  const test::TempDir dir_;
  const std::string directory_ = dir_ / "tiny";
  std::string space_id_;
  std::unique_ptr<ModelPackage> package_;
  std::unique_ptr<Reranker> reranker_;
};

TEST_F(RerankerPackageTest, GivesTheScriptWhatItsContractSays) {
  ASSERT_OK(WriteAndLoad(Tiny()));
  EXPECT_EQ(reranker_->space_id(), space_id_);
  EXPECT_EQ(reranker_->dim(), 2);
  EXPECT_TRUE(reranker_->reads_features());
  std::vector<RerankCandidate> candidates(3);
  candidates[0].item = {"a", false, {{"price", 2.0}}, {}, {1, 0}};
  candidates[1].item = {"new", false, {}, {}, {0, 1}};
  candidates[1].popularity = 1;
  candidates[2].item = {"b", false, {}, {}, {0, 0}};
  candidates[2].age_hours = 2;
  candidates[2].similarity = 3;
  std::vector<float> scores(3);
  ASSERT_OK(reranker_->Score({"u", {}, {{"b", "view", 1, 0}}}, std::vector<float>{1, 2}, candidates, scores));
  EXPECT_NEAR(scores[0], 2 - 100 + 1000 + 0.02 + 0.001, 1e-3);
  EXPECT_NEAR(scores[1], 10 - 100 + 2000 + 0.02 + 0.004, 1e-3);
  EXPECT_NEAR(scores[2], 200 + 0.3 + 0.02 + 0.002, 1e-3);
  // Nobody in particular, and nothing to score.
  ASSERT_OK(reranker_->Score({}, std::vector<float>{1, 2}, candidates, scores));
  EXPECT_NEAR(scores[2], 200 + 0.3 + 0.002, 1e-3);
  ASSERT_OK(reranker_->Score({}, std::vector<float>{1, 2}, {}, {}));
}

TEST_F(RerankerPackageTest, FeaturesAreOptional) {
  PackageContents bare = test::TinyPackage();
  test::AddTinyReranker(&bare,
                        "def forward(self, x: Dict[str, Tensor]) -> Tensor:\n"
                        "    return x[\"similarity\"] + x[\"item_dense\"].sum(1) + x[\"item_indices\"].sum()\n");
  bare.manifest.reranker.emplace();
  bare.goldens.reranks[0].scores = {0.5F};
  ASSERT_OK(WriteAndLoad(std::move(bare)));
  EXPECT_FALSE(reranker_->reads_features());
}

TEST_F(RerankerPackageTest, IsNoPartOfTheEmbeddingSpace) {
  ASSERT_OK(WriteAndLoad(Tiny()));
  const std::string with = space_id_;
  EXPECT_EQ(package_->files().count("reranker.pt"), 1U) << "a snapshot takes it along";
  ExpectRefusal(WriteAndLoad(test::TinyPackage()), Code::kNotFound, "has no re-ranker");
  EXPECT_EQ(space_id_, with) << "it can be changed without embedding anything again";
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/reranker.pt"));
}

TEST_F(RerankerPackageTest, RefusesADamagedOrMissingScript) {
  ASSERT_OK(WriteAndLoad(Tiny()));
  const std::string good = *ReadFile(directory_ + "/reranker.pt");
  for (const std::size_t at : {std::size_t{0}, good.size() / 2, good.size() - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    std::ofstream(directory_ + "/reranker.pt", std::ios::binary) << bad;
    ExpectRefusal(Load(), Code::kCorruption, "reranker.pt");
  }
  std::filesystem::remove(directory_ + "/reranker.pt");
  ExpectRefusal(Load(), Code::kCorruption, "reranker.pt");
}

TEST_F(RerankerPackageTest, RunsItsGoldensFirst) {
  PackageContents off = Tiny();
  off.goldens.reranks[0].scores[0] += 1;
  ExpectRefusal(WriteAndLoad(std::move(off)), Code::kCorruption, "the score of `b` is off by");
  PackageContents none = Tiny();
  none.goldens.reranks.clear();
  ExpectRefusal(WriteAndLoad(std::move(none)), Code::kCorruption, "nothing that the re-ranker must answer");
}

TEST_F(RerankerPackageTest, RefusesAManifestThatContradictsItself) {
  const std::pair<const char*, const char*> edits[] = {
      {"reranker:\n", "rerankers:\n"},
      {"reranker:\n", "reranker: 1\nextra:\n"},
      {"  signature: \"rerank-v1\"\n", ""},
      {"  signature: \"rerank-v1\"\n", "  signature: \"rerank-v1\"\n  depth: 2\n"},
  };
  for (const auto& [from, to] : edits) {
    ASSERT_OK(WriteAndLoad(Tiny()));
    ReplaceInManifest(from, to);
    ExpectRefusal(Load(), Code::kCorruption, "model.yaml");
  }
  ASSERT_OK(WriteAndLoad(Tiny()));
  ReplaceInManifest("rerank-v1", "rerank-v9");
  ExpectRefusal(Load(), Code::kFailedPrecondition, "rerank-v9");
  // The section without the file.
  (void)WriteAndLoad(test::TinyPackage());
  ReplaceInManifest("user_features:", "reranker: {signature: rerank-v1}\nuser_features:");
  ExpectRefusal(Load(), Code::kCorruption, "go together");
}

TEST(RerankScriptTest, RefusesWhatDoesNotFitWhenItIsLoaded) {
  const auto refusal = [](const std::string& bytes) { return RerankScript::Load(bytes, kBare, kBare).status().code(); };
  EXPECT_EQ(refusal("not a zip file"), Code::kCorruption);
  EXPECT_EQ(refusal(test::TinyReranker("def other(self, x: Dict[str, Tensor]) -> Tensor:\n    return x[\"a\"]\n")),
            Code::kCorruption);
  EXPECT_EQ(refusal(test::TinyReranker("def forward(self, x: Tensor, y: Tensor) -> Tensor:\n    return x\n")),
            Code::kCorruption);
  EXPECT_EQ(refusal(test::TinyReranker("def forward(self, x: Tensor) -> Tensor:\n    return x\n")), Code::kCorruption);
  EXPECT_EQ(refusal(Script("    return x[\"prices\"]\n")), Code::kCorruption) << "there is no such input";
  EXPECT_EQ(refusal(Script("    return x[\"item_vectors\"]\n")), Code::kCorruption) << "[n, dim]";
  EXPECT_EQ(refusal(Script("    return x[\"similarity\"].sum()\n")), Code::kCorruption) << "[]";
  EXPECT_EQ(refusal(Script("    return x[\"similarity\"][0:1]\n")), Code::kCorruption) << "[1]";
  EXPECT_EQ(refusal(test::TinyReranker("def forward(self, x: Dict[str, Tensor]) -> int:\n    return 1\n")),
            Code::kCorruption);
}

TEST(RerankScriptTest, ContainsWhatGoesWrongLater) {
  const auto script = RerankScript::Load(Script("    s = x[\"similarity\"]\n"
                                                "    assert bool((s < 5).all()), \"more than five\"\n"
                                                "    if bool((s == 4).any()):\n"
                                                "        return torch.cat([s, s])\n"
                                                "    return s / (s - 3.0)\n"),
                                         kBare, kBare);
  ASSERT_OK(script);
  std::vector<float> scores(2);
  const Status raised = (*script)->Run(Tensors({1, 6}), scores);
  EXPECT_EQ(raised.code(), Code::kInvalidArgument);
  EXPECT_NE(raised.message().find("the re-ranker raised: "), std::string::npos) << raised.message();
  EXPECT_NE(raised.message().find("more than five"), std::string::npos) << raised.message();
  EXPECT_EQ((*script)->Run(Tensors({1, 4}), scores).code(), Code::kInvalidArgument) << "another shape";
  EXPECT_EQ((*script)->Run(Tensors({1, 3}), scores).code(), Code::kInvalidArgument) << "not finite";
  ASSERT_OK((*script)->Run(Tensors({0, 2}), scores));
  EXPECT_EQ(scores, (std::vector<float>{0, -2}));
}

TEST(RerankScriptTest, TooLittleMemoryIsNobodysMistake) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer ends the process when memory does not suffice";
#endif
  const auto script = RerankScript::Load(Script("    if x[\"similarity\"].size(0) > 2:\n"
                                                "        return torch.empty([1 << 50])\n"
                                                "    return x[\"similarity\"]\n"),
                                         kBare, kBare);
  ASSERT_OK(script);
  std::vector<float> scores(3);
  EXPECT_EQ((*script)->Run(Tensors({1, 2, 3}), scores).code(), Code::kResourceExhausted);
}

TEST(RerankScriptTest, OneThatDoesNotComeBackEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string endless = Script(
      "    y = x[\"similarity\"].sum()\n"
      "    while bool(y == y):\n"
      "        y = y * 0.5\n"
      "    return x[\"similarity\"]\n");
  EXPECT_EXIT((void)RerankScript::Load(endless, kBare, kBare, {"shop/reranker.pt", std::chrono::milliseconds(300)}),
              ::testing::ExitedWithCode(1), "does not come back.*model=shop/reranker.pt");
}

TEST_F(RerankerPackageTest, AScriptThatWritesIntoItsInputsHarmsNobody) {
  PackageContents contents = Tiny();
  contents.reranker = Script("    return x[\"user_vector\"].zero_().sum() + x[\"item_vectors\"].zero_().sum(1)\n");
  contents.goldens.reranks[0].scores = {0};
  ASSERT_OK(WriteAndLoad(std::move(contents)));
  const std::vector<float> user_vector = {1, 2};
  std::vector<RerankCandidate> candidates(1);
  candidates[0].item.vector = {3, 4};
  std::vector<float> scores(1);
  ASSERT_OK(reranker_->Score({}, user_vector, candidates, scores));
  EXPECT_EQ(user_vector, (std::vector<float>{1, 2}));
  EXPECT_EQ(candidates[0].item.vector, (std::vector<float>{3, 4}));
}

TEST(RerankScriptTest, RunsOnSeveralThreadsAtOnce) {
  const auto script = RerankScript::Load(Script("    return x[\"similarity\"] * 2.0\n"), kBare, kBare);
  ASSERT_OK(script);
  std::vector<std::thread> threads;
  std::vector<int> right(4);
  for (std::size_t t = 0; t < right.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const auto value = static_cast<float>(i + static_cast<int>(t));
        std::vector<float> scores(2);
        if ((*script)->Run(Tensors({value, 1}), scores).ok() && scores[0] == 2 * value && scores[1] == 2) ++right[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(4, 200));
}

TEST(RerankerTest, AttributesBecomeFeatures) {
  const Attributes attributes = {{"in_stock", true},
                                 {"price", 2.5},
                                 {"sizes", std::vector<std::int64_t>{1, 2}},
                                 {"tags", std::vector<std::string>{"x"}},
                                 {"title", std::string("t")},
                                 {"year", std::int64_t{1999}}};
  const Features expected = {{"in_stock", 1.0},
                             {"price", 2.5},
                             {"tags", std::vector<std::string>{"x"}},
                             {"title", std::string("t")},
                             {"year", 1999.0}};
  EXPECT_EQ(FeaturesOfAttributes(attributes), expected);
}

}  // namespace
}  // namespace freshet
