#include "freshet/store/filter_cache.h"

#include <algorithm>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxKeyBytes = 4096;  // a filter of thousands of values is one caller's own, and is not met again

template <typename T>
void PutInterval(const Interval<T>& interval, ByteWriter* key) {
  key->Put(interval.low).Put(interval.high);
}

void PutCondition(const Condition& condition, ByteWriter* key) {
  key->Put(static_cast<std::uint8_t>(condition.kind)).PutString(condition.key);
  key->Put(static_cast<std::uint32_t>(condition.texts.size()));
  for (const std::string& text : condition.texts) key->PutString(text);
  key->Put(static_cast<std::uint32_t>(condition.integers.size()));
  for (const std::int64_t number : condition.integers) key->Put(number);
  key->Put(static_cast<std::uint32_t>(condition.doubles.size()));
  for (const double number : condition.doubles) key->Put(number);
  key->Put(static_cast<std::uint8_t>((condition.match_true ? 1 : 0) | (condition.match_false ? 2 : 0) |
                                     (condition.exists ? 4 : 0)));
  PutInterval(condition.integer_range, key);
  PutInterval(condition.double_range, key);
  key->PutString(condition.prefix);
}

void PutFilter(const Filter& filter, ByteWriter* key) {
  key->Put(static_cast<std::uint8_t>(filter.condition.has_value()));
  if (filter.condition) PutCondition(*filter.condition, key);
  for (const std::vector<Filter>* group : {&filter.must, &filter.should, &filter.must_not}) {
    key->Put(static_cast<std::uint32_t>(group->size()));
    for (const Filter& part : *group) PutFilter(part, key);
  }
}

}  // namespace

std::string FilterKey(const Filter& filter) {
  ByteWriter key;
  PutFilter(filter, &key);
  return key.Take();
}

FilterCache::Found FilterCache::Find(const Filter& filter) {
  if (max_bytes_ == 0) return {};
  std::string key = FilterKey(filter);
  const std::lock_guard lock(mu_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    ++stats_.found;
    kept_.splice(kept_.begin(), kept_, found->second);
    return {found->second->entry, std::move(key), found->second->number};
  }
  ++stats_.missed;
  if (key.size() > kMaxKeyBytes) return {};
  const std::uint64_t hash = Xxh3(key);
  std::uint64_t& recent = recent_[hash % kRecent];
  if (recent == hash) return {nullptr, std::move(key)};
  recent = hash;
  return {};
}

void FilterCache::Keep(const std::string& key, std::shared_ptr<const Entry> entry) {
  const std::size_t bytes = sizeof(Kept) + 2 * key.size() + 8 * (entry->words.size() + entry->changed_at.size());
  if (bytes > max_bytes_) return;
  const std::lock_guard lock(mu_);
  const auto drop = [&](std::list<Kept>::iterator kept) {
    stats_.bytes -= kept->bytes;
    by_key_.erase(kept->key);
    kept_.erase(kept);
  };
  std::uint64_t number = last_number_ + 1;
  if (const auto before = by_key_.find(key); before != by_key_.end()) {
    if (before->second->entry->columns_version == entry->columns_version) number = before->second->number;
    drop(before->second);
  }
  last_number_ = std::max(last_number_, number);
  while (stats_.bytes + bytes > max_bytes_) drop(std::prev(kept_.end()));
  kept_.push_front({key, std::move(entry), bytes, number});
  by_key_.emplace(kept_.front().key, kept_.begin());
  stats_.bytes += bytes;
}

void FilterCache::Renumber() {
  const std::lock_guard lock(mu_);
  for (Kept& kept : kept_) kept.number = ++last_number_;
}

FilterCache::Stats FilterCache::stats() const {
  const std::lock_guard lock(mu_);
  return stats_;
}

}  // namespace freshet
