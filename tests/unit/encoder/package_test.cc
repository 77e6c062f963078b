#include "freshet/encoder/package.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "freshet/core/checksum.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"
#include "goldens.h"
#include "model_manifest.h"
#include "package_writer.h"
#include "tiny_model.h"

namespace freshet {
namespace {

namespace fs = std::filesystem;

const char* const kFiles[] = {"model.yaml", "model.yaml.sha256", "item_tower.pt", "user_tower.pt", "goldens.json"};

class PackageTest : public ::testing::Test {
 protected:
  PackageTest() : directory_(dir_ / "models/tiny"), root_(dir_ / "models") {}

  void Write(PackageContents contents = test::TinyPackage()) {
    const Result<std::string> written = WritePackage(std::move(contents), directory_);
    ASSERT_OK(written);
    space_id_ = *written;
  }

  Result<std::unique_ptr<ModelPackage>> Open() { return OpenModelPackage({directory_, root_, 1}); }

  // The first error of opening the package and loading both towers.
  Status OpenAndLoad() {
    FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package, Open());
    FRESHET_TRY(package->LoadItemEncoder().status());
    return package->LoadUserEncoder().status();
  }

  std::string Bytes(const std::string& file) { return *ReadFile(directory_ + "/" + file); }
  void Put(const std::string& file, const std::string& bytes) {
    std::ofstream(directory_ + "/" + file, std::ios::binary) << bytes;
  }
  // Rewrites model.yaml and its checksum, as somebody would who means it.
  void PutManifest(const std::string& yaml) {
    Put("model.yaml", yaml);
    Put("model.yaml.sha256", Sha256Hex(yaml) + "  model.yaml\n");
  }
  void ReplaceInManifest(const std::string& from, const std::string& to) {
    std::string yaml = Bytes("model.yaml");
    const std::size_t at = yaml.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    PutManifest(yaml.replace(at, from.size(), to));
  }

  const test::TempDir dir_;
  const std::string directory_;
  const std::string root_;
  std::string space_id_;
};

void ExpectRefusal(const Status& status, Code code, const std::string& what) {
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_NE(status.message().find(what), std::string::npos) << status.ToString();
}

TEST_F(PackageTest, RoundTrips) {
  Write();
  const auto package = Open();
  ASSERT_OK(package);
  const ModelManifest& manifest = (*package)->manifest();
  EXPECT_EQ(manifest.name, "tiny");
  EXPECT_EQ(manifest.space_id, space_id_);
  EXPECT_EQ(manifest.space_id.size(), 16U);
  EXPECT_EQ(manifest.metric, Metric::kL2);
  EXPECT_EQ(manifest.item.features.size(), 2U);

  const auto items = (*package)->LoadItemEncoder();
  ASSERT_OK(items);
  EXPECT_EQ((*items)->space_id(), space_id_);
  ItemUpdate item;
  item.item_id = "a";
  item.features = {{"price", 2.0}};
  const ItemUpdate* const batch[] = {&item};
  std::vector<float> out(2);
  ASSERT_OK((*items)->Encode(batch, out));
  EXPECT_EQ(out, (std::vector<float>{1, 1}));

  const auto users = (*package)->LoadUserEncoder();
  ASSERT_OK(users);
  EXPECT_EQ((*users)->space_id(), space_id_);
  ASSERT_OK((*users)->Encode({"u", {}, {{"a", "view", 1.0, 0}}}, out));
  EXPECT_EQ(out, (std::vector<float>{1, 0}));
  // Nobody knows anything of this one: the tower says zero, which has no direction.
  EXPECT_EQ((*users)->Encode({"stranger", {}, {}}, out).code(), Code::kInvalidArgument);
}

TEST_F(PackageTest, IsReplacedInOneStepAndLeavesNothingBehind) {
  Write();
  const std::string first = space_id_;
  PackageContents other = test::TinyPackage();
  other.manifest.item.features[0].vocabulary = {"b", "a"};
  ASSERT_OK(other.manifest.item.Finish());
  other.goldens.items[0].vector = {1, 2};
  Write(std::move(other));
  EXPECT_NE(space_id_, first) << "another feature spec is another space";
  EXPECT_OK(OpenAndLoad());
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), fs::directory_iterator()), 1);
}

TEST_F(PackageTest, AFailureBeforeTheRenameLeavesTheOldPackage) {
  Write();
  const std::string first = space_id_;
  ASSERT_OK(ArmFaults("package.before_rename=error"));
  PackageContents other = test::TinyPackage();
  other.manifest.version = "2";
  EXPECT_FALSE(WritePackage(std::move(other), directory_).ok());
  ASSERT_OK(ArmFaults(""));
  EXPECT_OK(OpenAndLoad());
  EXPECT_EQ((*Open())->manifest().version, "1");
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), fs::directory_iterator()), 1);
}

// Who was killed before the rename leaves a directory; who is still writing keeps his.
TEST_F(PackageTest, RemovesWhatAKilledWriterLeft) {
  const auto leave = [&](const std::string& name) {
    fs::create_directories(fs::path(root_) / name);
    std::ofstream(fs::path(root_) / name / "item_tower.pt") << "x";
    return fs::path(root_) / name;
  };
  const fs::path dead = leave(StrCat(".tiny.tmp.", ::getpid()));  // a number that came again
  const fs::path older = leave(".tiny.tmp.1");
  const fs::path writing = leave(".tiny.tmp.2");
  const fs::path other = leave(".tiny2.tmp.1");
  const int fd = ::open(writing.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(::flock(fd, LOCK_EX | LOCK_NB), 0);
  Write();
  EXPECT_OK(OpenAndLoad());
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_FALSE(fs::exists(older));
  EXPECT_TRUE(fs::exists(writing / "item_tower.pt"));
  EXPECT_TRUE(fs::exists(other / "item_tower.pt")) << "of another package";
  ::close(fd);
}

TEST_F(PackageTest, DoesNotOverwriteWhatIsNoPackage) {
  fs::create_directories(directory_);
  Put("precious.txt", "x");
  EXPECT_EQ(WritePackage(test::TinyPackage(), directory_).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(Bytes("precious.txt"), "x");
}

TEST_F(PackageTest, TheSpaceDependsOnTowersMetricAndSpecButNotOnTheName) {
  Write();
  const std::string first = space_id_;
  PackageContents renamed = test::TinyPackage();
  renamed.manifest.name = "other";
  Write(std::move(renamed));
  EXPECT_EQ(space_id_, first);
  PackageContents metric = test::TinyPackage();
  metric.manifest.metric = Metric::kInnerProduct;
  Write(std::move(metric));
  EXPECT_NE(space_id_, first);
}

// Of format 1: as every version derived it.
TEST_F(PackageTest, TheSpaceIdIsWhatItAlwaysWas) {
  ModelManifest manifest = test::TinyPackage().manifest;
  manifest.sha256 = {{kItemTowerFile, "items"}, {kUserTowerFile, "users"}};
  EXPECT_EQ(SpaceIdOf(manifest),
            Sha256Hex("freshet-space-v1\nitems\nusers\nl2\n2\n"
                      "item 0 1 64 0000000000000000 3ff0000000000000 0 2 \"item_id\"\n\"a\"\n\"b\"\n"
                      "item 3 0 64 0000000000000000 3ff0000000000000 0 0 \"price\"\n"
                      "user 4 1 64 0000000000000000 3ff0000000000000 0 2 \"history\"\n\"a\"\n\"b\"\n")
                .substr(0, 16));
  EXPECT_EQ(FormatOf(manifest), 1);
}

// Prices by intervals: the tower adds the row of the id and that of the price.
TEST_F(PackageTest, WritesTheFormatThatItsFeaturesNeed) {
  Write();
  EXPECT_NE(Bytes("model.yaml").find("format: 1\n"), std::string::npos);
  const auto bucketised = [&](double boundary) {
    PackageContents contents = test::TinyPackage();
    FeatureDef& price = contents.manifest.item.features[1];
    price.kind = FeatureKind::kBucketised;
    price.boundaries = {boundary};
    EXPECT_OK(contents.manifest.item.Finish());
    const Result<std::string> tower =
        SerializeTower({{"table", {6, 2}, {1, 0, 0, 1, 1, 1, 0, 0, 0, 2, 0, 4}}},
                       "def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:\n"
                       "    bags = torch.embedding_bag(self.table, indices, offsets, False, 0, False, None, False)[0]\n"
                       "    return bags.reshape([dense.size(0), 2, 2]).sum(1)\n");
    EXPECT_OK(tower);
    contents.item_tower = *tower;
    return contents;
  };
  Write(bucketised(3));
  const std::string space_id = space_id_;
  EXPECT_NE(Bytes("model.yaml").find("format: 2\n"), std::string::npos);
  EXPECT_OK(OpenAndLoad());  // item b at a price of 4: (0, 1) + (0, 2)
  const auto package = Open();
  ASSERT_OK(package);
  EXPECT_EQ((*package)->manifest().format, 2);
  EXPECT_EQ((*package)->manifest().item.features[1].boundaries, std::vector<double>{3});
  ReplaceInManifest("format: 2", "format: 1");
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "format 1, but its features are of format 2");
  Write(bucketised(3.5));
  EXPECT_NE(space_id_, space_id) << "another boundary is another space";
  Write(bucketised(3));
  EXPECT_EQ(space_id_, space_id);
  ReplaceInManifest("boundaries: [3]", "boundaries: [3.5]");
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "embedding_space_id is");
}

TEST_F(PackageTest, RefusesAFlippedBitInAnyFile) {
  for (const std::string file : kFiles) {
    Write();
    const std::string good = Bytes(file);
    for (const std::size_t at : {std::size_t{0}, good.size() / 2, good.size() - 1}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 1);
      Put(file, bad);
      const Status status = OpenAndLoad();
      EXPECT_EQ(status.code(), Code::kCorruption) << file << " at " << at << ": " << status.ToString();
      EXPECT_NE(status.message().find(file.substr(0, file.find('.'))), std::string::npos) << status.ToString();
    }
  }
}

TEST_F(PackageTest, RefusesATruncatedEmptyOrMissingFile) {
  for (const std::string file : kFiles) {
    for (const std::size_t size : {std::size_t{0}, std::size_t{20}}) {
      Write();
      Put(file, Bytes(file).substr(0, size));
      EXPECT_EQ(OpenAndLoad().code(), Code::kCorruption) << file;
    }
    Write();
    fs::remove(directory_ + "/" + file);
    ExpectRefusal(OpenAndLoad(), Code::kCorruption, file);
  }
  fs::remove_all(directory_);
  EXPECT_EQ(OpenAndLoad().code(), Code::kNotFound);
}

TEST_F(PackageTest, RefusesFormatsAndSignaturesItDoesNotKnow) {
  Write();
  ReplaceInManifest("format: 1", "format: 3");
  ExpectRefusal(OpenAndLoad(), Code::kFailedPrecondition, "format `3` is not known to this version (it reads 1 to 2)");
  Write();
  ReplaceInManifest("bags-dense-v1", "bags-dense-v9");
  ExpectRefusal(OpenAndLoad(), Code::kFailedPrecondition, "bags-dense-v9");
}

TEST_F(PackageTest, RefusesAManifestThatContradictsItself) {
  const std::pair<const char*, const char*> edits[] = {
      {"dim: 2", "dim: 3"},
      {"dim: 2", "dim: 0"},
      {"dim: 2", "dim: 99999"},
      {"metric: l2", "metric: cosine"},
      {"metric: l2", "metric: l3"},
      {"mean: 0", "mean: 1"},
      {"\"a\", \"b\"", "\"b\", \"a\""},
      {"name: \"tiny\"", "name: [1]"},
      {"name: \"tiny\"", "nam: \"tiny\""},
      {"files:", "extra: 1\nfiles:"},
      {"goldens.json:", "../goldens.json:"},
  };
  for (const auto& [from, to] : edits) {
    Write();
    ReplaceInManifest(from, to);
    ExpectRefusal(OpenAndLoad(), Code::kCorruption, "model.yaml");
  }
}

TEST_F(PackageTest, RefusesTowersThatDoNotFitTheirManifest) {
  PackageContents wrong_dim = test::TinyPackage();
  wrong_dim.manifest.dim = 3;
  wrong_dim.goldens.items[0].vector = {0, 3, 0};
  wrong_dim.goldens.user_vectors = {{0.5F, 0.5F, 0}};
  Write(std::move(wrong_dim));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "item_tower.pt");

  PackageContents swapped = test::TinyPackage();
  std::swap(swapped.item_tower, swapped.user_tower);
  Write(std::move(swapped));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "item_tower.pt");

  PackageContents garbage = test::TinyPackage();
  garbage.user_tower = "no TorchScript at all";
  Write(std::move(garbage));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "user_tower.pt");
}

TEST_F(PackageTest, RunsTheGoldensBeforeTheFirstRealInput) {
  PackageContents item = test::TinyPackage();
  item.goldens.items[0].vector[1] += 2e-4F;
  Write(std::move(item));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "item `b`");

  PackageContents user = test::TinyPackage();
  user.goldens.user_vectors[0][0] -= 2e-4F;
  Write(std::move(user));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "user `u`");

  PackageContents within = test::TinyPackage();
  within.goldens.items[0].vector[1] += 5e-5F;
  Write(std::move(within));
  EXPECT_OK(OpenAndLoad());
}

TEST_F(PackageTest, RefusesGoldensThatProveNothing) {
  PackageContents none = test::TinyPackage();
  none.goldens.items.clear();
  Write(std::move(none));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "goldens.json");
  PackageContents loose = test::TinyPackage();
  loose.goldens.tolerance = 10;
  Write(std::move(loose));
  ExpectRefusal(OpenAndLoad(), Code::kCorruption, "tolerance");
}

TEST_F(PackageTest, OpensOnlyBeneathTheAllowedRoot) {
  Write();
  const std::string elsewhere = dir_ / "elsewhere";
  fs::create_directories(elsewhere);
  EXPECT_EQ(OpenModelPackage({directory_, elsewhere, 1}).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(OpenModelPackage({root_ + "/../models/tiny", root_, 1}).status().code(), Code::kOk);
  EXPECT_EQ(OpenModelPackage({elsewhere + "/../models/tiny", elsewhere, 1}).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(OpenModelPackage({root_, root_, 1}).status().code(), Code::kFailedPrecondition) << "the root is no package";
  EXPECT_OK(OpenModelPackage({directory_, "", 1}));

  // A root whose name is a prefix of the directory's is not its parent.
  fs::create_directories(dir_ / "mod");
  EXPECT_EQ(OpenModelPackage({directory_, dir_ / "mod", 1}).status().code(), Code::kFailedPrecondition);
}

TEST_F(PackageTest, FollowsNoLinkOutOfTheRoot) {
  Write();
  const std::string outside = dir_ / "outside";
  fs::rename(directory_, outside);
  fs::create_directory_symlink(outside, directory_);
  EXPECT_EQ(Open().status().code(), Code::kFailedPrecondition);

  fs::remove(directory_);
  fs::rename(outside, directory_);
  fs::create_directory_symlink(directory_, root_ + "/current");
  EXPECT_OK(OpenModelPackage({root_ + "/current", root_, 1}));  // a link that stays inside is fine

  fs::rename(directory_ + "/item_tower.pt", dir_ / "tower.pt");
  fs::create_symlink(dir_ / "tower.pt", directory_ + "/item_tower.pt");
  ExpectRefusal(OpenAndLoad(), Code::kFailedPrecondition, "item_tower.pt");
}

TEST_F(PackageTest, NoticesATowerThatChangesAfterItWasOpened) {
  Write();
  const auto package = Open();
  ASSERT_OK(package);
  std::string bytes = Bytes("item_tower.pt");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  Put("item_tower.pt", bytes);
  EXPECT_EQ((*package)->LoadItemEncoder().status().code(), Code::kCorruption);
  EXPECT_OK((*package)->LoadUserEncoder());
}

// Towers of Python's PyTorch 2.x (data/export_pytorch.py): batch norm, layer norm, attention as matmul and softmax.
// Their goldens hold what Python answered, with the tolerance 1e-5; loading runs them.
TEST(PytorchPackageTest, AnExportFromPythonAgrees) {
  const std::string directory = test::SourceRoot() + "/tests/unit/encoder/data/pytorch";
  const auto package = OpenModelPackage({directory, test::SourceRoot(), 1});
  ASSERT_OK(package);
  EXPECT_TRUE((*package)->manifest().library_version.starts_with("PyTorch 2."));
  const Result<Goldens> goldens = GoldensFromJson(*ReadFile(directory + "/goldens.json"), 8);
  ASSERT_OK(goldens);
  EXPECT_LE(goldens->tolerance, 1e-5);
  EXPECT_GE(goldens->items.size(), 4U);
  const auto items = (*package)->LoadItemEncoder();
  const auto users = (*package)->LoadUserEncoder();
  ASSERT_OK(items);
  ASSERT_OK(users);
  std::vector<float> with(8);
  std::vector<float> without(8);
  ASSERT_OK((*users)->Encode(goldens->users[0], with));
  ASSERT_OK((*users)->Encode({"a", goldens->users[0].features, {}}, without));
  EXPECT_NE(with, without) << "the history is read";
}

}  // namespace
}  // namespace freshet
