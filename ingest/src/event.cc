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

void AddPositions(std::vector<PartitionProgress> positions, std::vector<PartitionProgress>* progress) {
  for (PartitionProgress& position : positions) {
    const auto same = [&](const PartitionProgress& p) { return p.partition == position.partition; };
    const auto touched = std::find_if(progress->begin(), progress->end(), same);
    if (touched != progress->end()) {
      touched->complete_ms = position.complete_ms;
    } else {
      position.next_offset = 0;
      progress->push_back(std::move(position));
    }
  }
}

RawCopy CopyOf(const RawRecord& record) {
  RawCopy copy;
  copy.topic = record.topic;
  copy.has_key = record.key.has_value();
  if (record.key) copy.key = *record.key;
  copy.has_value = record.value.has_value();
  if (record.value) copy.value = *record.value;
  copy.headers.reserve(record.headers.size());
  for (const auto& [name, value] : record.headers) copy.headers.emplace_back(name, value);
  return copy;
}

}  // namespace freshet
