// A replica in memory, whose index, catalog and store can be brought out of step as an apply does for a moment.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "freshet/encoder/reranker.h"
#include "freshet/store/replica.h"

namespace freshet::test {

// The exact index, with a hook before each search.
class HookedIndex final : public Index {
 public:
  explicit HookedIndex(std::unique_ptr<Index> inner) : inner_(std::move(inner)) {}
  [[nodiscard]] int dim() const override { return inner_->dim(); }
  [[nodiscard]] Metric metric() const override { return inner_->metric(); }
  Status Insert(std::span<const Label> labels, std::span<const float> vectors,
                std::span<const std::uint64_t> attributes = {}) override {
    return inner_->Insert(labels, vectors, attributes);
  }
  void Tombstone(std::span<const Label> labels) override { inner_->Tombstone(labels); }
  void Reconsider(std::span<const Label> labels) override { inner_->Reconsider(labels); }
  [[nodiscard]] std::uint64_t Changes() const override { return inner_->Changes(); }
  Status Maintain() override { return inner_->Maintain(); }
  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    if (before_search) before_search(options);
    auto hits = inner_->Search(query, options);
    if (hits.ok() && forgets && !options.exact) hits->resize(hits->size() / 2);
    return hits;
  }
  [[nodiscard]] IndexStats Stats() const override { return inner_->Stats(); }
  [[nodiscard]] std::vector<Label> LiveLabels() const override { return inner_->LiveLabels(); }
  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override { return inner_->Cut(); }

  std::function<void(const SearchOptions&)> before_search;
  bool forgets = false;  // as an approximate index at its worst: half of the hits, unless exact

 private:
  std::unique_ptr<Index> inner_;
};

class FakeReplica final : public Replica {
 public:
  explicit FakeReplica(int dim = 2, Metric metric = Metric::kInnerProduct) : index_(MakeFlatIndex(dim, metric)) {}
  explicit FakeReplica(std::unique_ptr<Index> index) : index_(std::move(index)) {}

  // The steps of an apply, one by one ...
  Label Insert(const std::vector<float>& vector) {
    const Label label = next_label_++;
    const Status inserted = index_.Insert(std::vector<Label>{label}, vector);
    if (!inserted.ok()) throw std::runtime_error(inserted.ToString());
    return label;
  }
  void Publish(const std::string& id, std::optional<Label> label) {
    const auto it = items.find(id);
    catalog_.Apply({{id, label, it == items.end() ? Attributes{} : it->second, kPartition}});
    if (label) index_.Reconsider({&*label, 1});
  }
  // The attributes alone: the label stays.
  void SetAttributes(const std::string& id, Attributes attributes) {
    items[id] = std::move(attributes);
    Publish(id, catalog_.StoredLabelOf(id));
  }
  // All items are of one partition: whether this process owns it.
  void Own(bool owned) { catalog_.ShowOnly(owned ? std::set{kPartition} : std::set<std::int32_t>{}); }
  void Tombstone(Label label) { index_.Tombstone(std::vector<Label>{label}); }
  // ... and whole.
  void Put(const std::string& id, const std::vector<float>& vector, Attributes attributes = {}) {
    const std::optional<Label> old = catalog_.StoredLabelOf(id);
    vectors[id] = vector;
    items[id] = std::move(attributes);
    sequences[id] = version;
    Publish(id, Insert(vector));
    if (old) Tombstone(*old);
  }
  void Delete(const std::string& id) {
    const std::optional<Label> old = catalog_.StoredLabelOf(id);
    vectors.erase(id);
    sequences.erase(id);
    items.erase(id);
    Publish(id, std::nullopt);
    if (old) Tombstone(*old);
  }

  [[nodiscard]] const std::string& space_id() const override { return space; }
  [[nodiscard]] int dim() const override { return index_.dim(); }
  [[nodiscard]] Metric metric() const override { return index_.metric(); }
  [[nodiscard]] const Index& index() const override { return index_; }
  [[nodiscard]] const Catalog& catalog() const override { return catalog_; }
  [[nodiscard]] Result<std::optional<UserState>> GetUser(std::string_view user_id) const override {
    return Find(users, user_id);
  }
  [[nodiscard]] Result<std::optional<Attributes>> GetAttributes(std::string_view item_id) const override {
    return Find(items, item_id);
  }
  [[nodiscard]] Result<std::optional<std::vector<float>>> GetVector(std::string_view item_id) const override {
    return Find(vectors, item_id);
  }
  [[nodiscard]] std::int64_t as_of_ms() const override {
    if (on_as_of) on_as_of();
    return as_of;
  }
  [[nodiscard]] std::uint64_t sequence() const override { return version; }
  [[nodiscard]] std::uint64_t user_count() const override { return users.size(); }

  [[nodiscard]] std::shared_ptr<const PopularItems> Popular() const override {
    return std::make_shared<PopularItems>(popular);
  }

  [[nodiscard]] std::vector<double> CountsOf(const std::vector<std::string>& ids) const override {
    std::vector<double> counts;
    for (const std::string& id : ids) {
      counts.push_back(0);
      for (const auto& [known, count] : popular) counts.back() += known == id ? count : 0;
    }
    return counts;
  }
  [[nodiscard]] Result<std::optional<std::uint64_t>> GetSequence(std::string_view item_id) const override {
    if (on_sequence) on_sequence();
    return Find(sequences, item_id);
  }
  [[nodiscard]] Result<std::optional<std::int64_t>> GetChangedMs(std::string_view item_id) const override {
    return Find(changed_ms, item_id);
  }

  HookedIndex& hooked_index() { return index_; }

  std::string space = "space-1";
  std::atomic<std::int64_t> as_of = 1'306'863'540'123;  // 2011-05-31T17:39:00.123Z
  std::uint64_t version = 7;
  std::function<void()> on_as_of;
  std::function<void()> on_sequence;
  PopularItems popular;
  std::map<std::string, UserState, std::less<>> users;
  std::map<std::string, Attributes, std::less<>> items;
  std::map<std::string, std::vector<float>, std::less<>> vectors;
  std::map<std::string, std::uint64_t, std::less<>> sequences;
  std::map<std::string, std::int64_t, std::less<>> changed_ms;

 private:
  template <typename T>
  static Result<std::optional<T>> Find(const std::map<std::string, T, std::less<>>& map, std::string_view key) {
    const auto it = map.find(key);
    return it == map.end() ? std::optional<T>() : std::optional<T>(it->second);
  }

  static constexpr std::int32_t kPartition = 3;
  HookedIndex index_;
  Catalog catalog_;
  Label next_label_ = 1;
};

// Points along the last item of the history when there is one: item ids are "x" and "y", else along (1, 1).
class FakeUserEncoder final : public UserEncoder {
 public:
  [[nodiscard]] int dim() const override { return 2; }
  [[nodiscard]] const std::string& space_id() const override { return space; }
  [[nodiscard]] Status Encode(const UserContext& user, std::span<float> out) const override {
    if (on_encode) on_encode(user);
    if (!result.ok()) return result;
    const std::string last = user.history.empty() ? "" : user.history.back().item_id;
    out[0] = last == "y" ? 0.0F : 1.0F;
    out[1] = last == "x" ? 0.0F : 1.0F;
    return Status::Ok();
  }

  std::string space = "space-1";
  Status result;
  std::function<void(const UserContext&)> on_encode;
};

// Scores by id, 0 for all others, and keeps what it was given.
class FakeReranker final : public Reranker {
 public:
  [[nodiscard]] int dim() const override { return 2; }
  [[nodiscard]] const std::string& space_id() const override { return space; }
  [[nodiscard]] bool reads_features() const override { return features; }
  [[nodiscard]] Status Score(const UserContext& user, std::span<const float> user_vector,
                             std::span<const RerankCandidate> candidates, std::span<float> out) const override {
    ++calls;
    last_user = user;
    last_vector.assign(user_vector.begin(), user_vector.end());
    last.assign(candidates.begin(), candidates.end());
    if (on_score) on_score();
    if (fails_from > 0 && calls >= fails_from) return InvalidArgument("the re-ranker raised: no");
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto it = scores.find(candidates[i].item.item_id);
      out[i] = it == scores.end() ? 0.0F : it->second;
    }
    return Status::Ok();
  }

  std::string space = "space-1";
  bool features = false;
  std::map<std::string, float> scores;
  int fails_from = 0;  // the first call that fails
  std::function<void()> on_score;
  mutable int calls = 0;
  mutable UserContext last_user;
  mutable std::vector<float> last_vector;
  mutable std::vector<RerankCandidate> last;
};

}  // namespace freshet::test
