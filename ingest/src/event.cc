#include "freshet/ingest/event.h"

#include <algorithm>

namespace freshet {
namespace {

template <typename Sorted>
auto Find(const Sorted& sorted, std::string_view name) -> const typename Sorted::value_type::second_type* {
  const auto it = std::lower_bound(sorted.begin(), sorted.end(), name,
                                   [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  return it != sorted.end() && it->first == name ? &it->second : nullptr;
}

}  // namespace

const FeatureValue* FindFeature(const Features& features, std::string_view name) { return Find(features, name); }
const AttributeValue* FindAttribute(const Attributes& attributes, std::string_view name) {
  return Find(attributes, name);
}

}  // namespace freshet
