#include "freshet/store/manifest.h"

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

SnapshotManifest SomeManifest() {
  SnapshotManifest manifest;
  manifest.id = "20261121t131502-12345";
  manifest.host = "host \"quoted\"";
  manifest.epoch = 17;
  manifest.sequence = 12345;
  manifest.space_id = "s";
  manifest.dim = 3;
  manifest.metric = "cosine";
  manifest.offsets.push_back(PartitionProgress{{"items", 3}, 42, 7, ~std::uint64_t{0}, 0, 0});
  manifest.changelog.push_back(PartitionProgress{{"vectors", 0}, 9, 0, 0, 0, 0});
  manifest.files.push_back({"store/CURRENT", 16, std::string(32, 'a')});
  manifest.files.push_back({"index", 5, std::string(32, '0')});
  return manifest;
}

TEST(Manifest, ComesBackAsItWas) {
  const auto back = DecodeManifest(EncodeManifest(SomeManifest()));
  ASSERT_OK(back);
  EXPECT_EQ(ManifestToJson(*back), ManifestToJson(SomeManifest()));
  EXPECT_EQ(back->offsets[0].fingerprint, ~std::uint64_t{0});
}

TEST(Manifest, EveryFlippedBitAndEveryTruncationIsRefused) {
  const std::string whole = EncodeManifest(SomeManifest());
  for (std::size_t at = 0; at < whole.size(); ++at) {
    EXPECT_EQ(DecodeManifest(whole.substr(0, at)).status().code(), Code::kCorruption);
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      EXPECT_EQ(DecodeManifest(damaged).status().code(), Code::kCorruption) << at << " " << bit;
    }
  }
}

TEST(Manifest, FieldsThatLeadOutOfTheSnapshotAreRefused) {
  for (const char* name : {"store/../x", "../index", "/etc/passwd", "store/a/b", "model/", "store/.", "other/x", ""}) {
    SnapshotManifest manifest = SomeManifest();
    manifest.files[1].name = name;
    EXPECT_EQ(DecodeManifest(EncodeManifest(manifest)).status().code(), Code::kCorruption) << name;
  }
  SnapshotManifest manifest = SomeManifest();
  manifest.format = 2;
  EXPECT_EQ(DecodeManifest(EncodeManifest(manifest)).status().code(), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace freshet
