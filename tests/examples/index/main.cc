// The index alone: adds, searches, deletes, writes a file, and opens it where it lies, as another process would.
//
//   index_example FILE
#include <array>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>

#include "freshet/indexer/index.h"

namespace {

using freshet::Hit;
using freshet::Index;
using freshet::Label;

constexpr int kDim = 32;
constexpr Label kRows = 10'000;

std::array<float, kDim> Row(Label label) {
  std::mt19937_64 random(label);
  std::normal_distribution<float> normal;
  std::array<float, kDim> row{};
  for (float& x : row) x = normal(random);
  return row;
}

freshet::Status Print(const char* what, const Index& index, Label like) {
  freshet::SearchOptions options;
  options.k = 3;
  FRESHET_ASSIGN(const std::vector<Hit> hits, index.Search(Row(like), options));
  std::printf("%s, like row %llu:", what, static_cast<unsigned long long>(like));
  for (const Hit& hit : hits) std::printf(" %llu", static_cast<unsigned long long>(hit.label));
  std::printf(" (%zu live)\n", index.Stats().live);
  return freshet::Status::Ok();
}

freshet::Status Run(const std::string& path) {
  freshet::HnswOptions options;
  options.dim = kDim;
  options.metric = freshet::Metric::kL2;
  FRESHET_ASSIGN(const std::unique_ptr<Index> index, freshet::MakeHnswIndex(options));
  for (Label label = 0; label < kRows; ++label) {
    std::array<float, kDim> row = Row(label);
    FRESHET_TRY(freshet::PrepareVector(index->metric(), kDim, row));  // refuses NaN; normalises for cosine
    FRESHET_TRY(index->Insert({&label, 1}, row));                     // searchable from here on
  }
  FRESHET_TRY(Print("added", *index, 5000));

  const Label gone = 5000;
  index->Tombstone({&gone, 1});  // in no search from here on
  FRESHET_TRY(Print("row 5000 deleted", *index, 5000));
  FRESHET_TRY(index->Maintain());  // from time to time: takes the dead out of the graph when there are many

  FRESHET_ASSIGN(const std::unique_ptr<freshet::IndexCut> cut, index->Cut());
  FRESHET_TRY(cut->Write(path));
  FRESHET_ASSIGN(const std::unique_ptr<Index> mapped, freshet::OpenMappedIndex(path, /*verify=*/false));
  return Print("the file, mapped", *mapped, 5000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    (void)std::fprintf(stderr, "usage: index_example FILE\n");
    return 2;
  }
  std::error_code ignored;
  std::filesystem::remove(argv[1], ignored);
  const freshet::Status status = Run(argv[1]);
  if (!status.ok()) (void)std::fprintf(stderr, "index_example: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
