// What tests of the streaming index share: small indexes, rows of a set, recall beside the flat index.
#pragma once

#include <memory>
#include <set>
#include <span>
#include <vector>

#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "label_range.h"

namespace freshet::streaming {

inline constexpr int kDim = 32;

inline std::unique_ptr<Index> Hnsw(HnswOptions options = {}) {
  options.dim = kDim;
  auto index = MakeHnswIndex(options);
  EXPECT_OK(index);
  return std::move(*index);
}

inline HnswOptions Small() {
  HnswOptions options;
  options.capacity = 20'000;
  options.m = 8;
  options.ef_construction = 60;
  return options;
}

inline std::span<const float> Rows(const test::VectorSet& set, std::size_t begin, std::size_t end) {
  return {set.Row(begin), (end - begin) * kDim};
}

inline std::vector<Label> LabelsOf(const std::vector<Hit>& hits) {
  std::vector<Label> labels;
  for (const Hit& hit : hits) labels.push_back(hit.label);
  return labels;
}

// Mean recall of `index` against `flat`, which hold the same; each answer must be full.
inline double Recall(const Index& index, const Index& flat, const test::VectorSet& queries,
                     const SearchOptions& options) {
  double found = 0;
  double wanted = 0;
  for (std::size_t i = 0; i < queries.size; ++i) {
    const auto answer = index.Search({queries.Row(i), kDim}, options);
    const auto exact = flat.Search({queries.Row(i), kDim}, options);
    EXPECT_OK(answer);
    EXPECT_OK(exact);
    EXPECT_EQ(answer->size(), exact->size());
    const std::vector<Label> truth = LabelsOf(*exact);
    const std::set<Label> labels(truth.begin(), truth.end());
    for (const Hit& hit : *answer) found += labels.contains(hit.label) ? 1 : 0;
    wanted += static_cast<double>(exact->size());
  }
  return found / wanted;
}

}  // namespace freshet::streaming
