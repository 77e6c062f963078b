#include "freshet_test/checks.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

std::vector<float> Prepared(const Applier& applier, std::vector<float> vector) {
  EXPECT_OK(PrepareVector(applier.metric(), applier.dim(), vector));
  return vector;
}

std::string StoreDiffers(const Oracle& oracle, const Applier& applier, const Store& store) {
  std::set<std::string> stored;
  std::string difference;
  const Status status = store.ForEachItem([&](std::string_view id_view, const ItemRow& row) -> Status {
    const std::string id(id_view);
    stored.insert(id);
    const auto expected = oracle.live().find(id);
    if (expected == oracle.live().end()) return Internal("the store holds " + id + ", which must be gone");
    FRESHET_ASSIGN(const auto vector, store.GetVector(row.label));
    if (!vector || *vector != Prepared(applier, expected->second.vector)) {
      return Internal("the store has another vector for " + id);
    }
    FRESHET_ASSIGN(const auto attributes, store.GetAttributes(id));
    const AttributeValue* title = attributes ? FindAttribute(*attributes, "title") : nullptr;
    if (title == nullptr || *title != AttributeValue(expected->second.title)) {
      return Internal("the store has other attributes for " + id);
    }
    return Status::Ok();
  });
  if (!status.ok()) return status.message();
  for (const auto& [id, item] : oracle.live()) {
    if (!stored.contains(id)) return "the store lost " + id;
  }
  return "";
}

std::string AnswersDiffer(const Oracle& oracle, const Applier& applier, const RecallService& recall) {
  RecallRequest request;
  request.vector.emplace(static_cast<std::size_t>(applier.dim()), 0.0F);
  (*request.vector)[0] = 1;
  request.k = kMaxK;
  request.with_attributes = true;
  for (const bool exact : {true, false}) {
    request.exact = exact;
    const auto response = recall.Recall(request);
    if (!response.ok()) return response.status().ToString();
    const std::size_t expected = std::min<std::size_t>(kMaxK, oracle.live().size());
    if (response->results.size() != expected) {
      return StrCat(response->results.size(), " results, ", expected, " items are live");
    }
    std::set<std::string> seen;
    for (const RecallHit& hit : response->results) {
      const auto item = oracle.live().find(hit.id);
      if (item == oracle.live().end()) return "an answer holds " + hit.id + ", which must be gone";
      if (!seen.insert(hit.id).second) return "an answer holds " + hit.id + " twice";
      const float score = Prepared(applier, item->second.vector)[0];
      if (std::abs(hit.score - score) > 1e-4F) return "an answer scores " + hit.id + " by an older vector";
      const AttributeValue* title = FindAttribute(hit.attributes, "title");
      if (title == nullptr || *title != AttributeValue(item->second.title)) {
        return "an answer has other attributes for " + hit.id;
      }
    }
  }
  return "";
}

}  // namespace

std::string Differs(const Oracle& oracle, const Applier& applier, const Store& store, const RecallService& recall) {
  if (const Status audit = applier.Audit(); !audit.ok()) return audit.message();
  if (std::string difference = StoreDiffers(oracle, applier, store); !difference.empty()) return difference;
  return AnswersDiffer(oracle, applier, recall);
}

}  // namespace freshet::test
