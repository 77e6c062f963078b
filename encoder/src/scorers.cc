#include "scorers.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "batch_embedder.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/log.h"
#include "freshet/core/metrics.h"
#include "freshet/core/strings.h"
#include "torch_tower.h"

namespace freshet {
namespace {

constexpr float kUnranked = -std::numeric_limits<float>::infinity();
constexpr std::size_t kEmbedRows = 1024;

std::uint64_t Mix(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

class CountScorer final : public Scorer {
 public:
  CountScorer(std::string name, const std::vector<std::int64_t>& counts)
      : Scorer(std::move(name)), scores_(counts.begin(), counts.end()) {}

  Status Score(std::span<const std::int32_t> users, std::span<float> out) override {
    for (std::size_t i = 0; i < users.size(); ++i) {
      std::copy(scores_.begin(), scores_.end(), out.begin() + static_cast<std::ptrdiff_t>(i * scores_.size()));
    }
    return Status::Ok();
  }

 private:
  const std::vector<float> scores_;
};

class RandomScorer final : public Scorer {
 public:
  explicit RandomScorer(std::uint64_t seed) : Scorer("random"), seed_(seed) {}

  Status Score(std::span<const std::int32_t> users, std::span<float> out) override {
    const std::size_t items = out.size() / users.size();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::uint64_t user = Mix(seed_ ^ Mix(static_cast<std::uint64_t>(users[i / items])));
      out[i] = static_cast<float>(Mix(user + i % items) >> 40);  // 24 bits: exact in a float
    }
    return Status::Ok();
  }

 private:
  const std::uint64_t seed_;
};

class ModelScorer final : public VectorScorer {
 public:
  ModelScorer(std::string name, const EvaluationHistory& history, Metric metric, std::vector<float> items,
              std::vector<std::size_t> refused_items, std::unique_ptr<UserEncoder> users)
      : VectorScorer(std::move(name)),
        history_(history),
        metric_(metric),
        dim_(static_cast<std::size_t>(users->dim())),
        items_(std::move(items)),
        refused_items_(std::move(refused_items)),
        users_(std::move(users)) {
    if (metric_ != Metric::kL2) return;
    for (std::size_t i = 0; i < items_.size(); i += dim_) {
      float sum = 0;
      for (std::size_t d = 0; d < dim_; ++d) sum += items_[i + d] * items_[i + d];
      squares_.push_back(sum);
    }
  }

  int dim() const override { return static_cast<int>(dim_); }
  Metric metric() const override { return metric_; }
  std::span<const float> items() const override { return items_; }

  Status Embed(std::span<const std::int32_t> users, std::span<float> out, std::vector<std::size_t>* refused) override {
    for (std::size_t i = 0; i < users.size(); ++i) {
      const UserContext& user = history_.users[static_cast<std::size_t>(users[i])];
      const std::span<float> vector = out.subspan(i * dim_, dim_);
      const Status status = users_->Encode(user, vector);
      if (status.ok()) continue;
      if (status.category() != Category::kInput) return status.Prefixed(StrCat("user `", user.user_id, "`"));
      refused->push_back(i);
      std::fill(vector.begin(), vector.end(), 0.0F);
      if (!warned_) {
        LogWarning("evaluate", "the model cannot embed every user; such users get nothing",
                   {{"system", name()}, {"first", user.user_id}, {"reason", status.message()}});
        warned_ = true;
      }
    }
    return Status::Ok();
  }

  Status ScoreVectors(std::span<const float> vectors, std::span<float> out) const override {
    FRESHET_TRY(InnerProducts(vectors, items_, static_cast<std::int64_t>(dim_), out));
    if (metric_ == Metric::kL2) {  // nearer is better: -|u - v|^2, less |u|^2
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = 2 * out[i] - squares_[i % squares_.size()];
    }
    return Status::Ok();
  }

  Status Score(std::span<const std::int32_t> users, std::span<float> out) override {
    vectors_.resize(users.size() * dim_);
    std::vector<std::size_t> refused;
    FRESHET_TRY(Embed(users, vectors_, &refused));
    FRESHET_TRY(ScoreVectors(vectors_, out));
    // Serving refuses such a user: nothing is recommended.
    const std::size_t items = out.size() / users.size();
    for (const std::size_t row : refused) {
      const std::span<float> scores = out.subspan(row * items, items);
      std::fill(scores.begin(), scores.end(), kUnranked);
    }
    // ... and has no such item, which became a dead letter.
    for (std::size_t row = 0; row < users.size(); ++row) {
      for (const std::size_t item : refused_items_) out[row * items + item] = kUnranked;
    }
    return Status::Ok();
  }

 private:
  const EvaluationHistory& history_;
  const Metric metric_;
  const std::size_t dim_;
  const std::vector<float> items_;
  const std::vector<std::size_t> refused_items_;
  const std::unique_ptr<UserEncoder> users_;
  std::vector<float> squares_;  // of the items, for l2
  std::vector<float> vectors_;
  bool warned_ = false;
};

class ListScorer final : public Scorer {
 public:
  ListScorer(std::string name, const EvaluationHistory& history)
      : Scorer(std::move(name)),
        items_(history.items.size()),
        scores_(history.users.size()),
        has_line_(history.users.size()) {}

  Status Read(const std::string& file, const EvaluationHistory& history) {
    std::unordered_map<std::string_view, std::int32_t> items;
    std::unordered_map<std::string_view, std::size_t> users;
    for (std::size_t i = 0; i < history.items.size(); ++i) {
      items.emplace(history.items[i].item_id, static_cast<std::int32_t>(i));
    }
    for (std::size_t i = 0; i < history.users.size(); ++i) users.emplace(history.users[i].user_id, i);
    std::size_t number = 0;
    FRESHET_TRY(ForEachLine(file, [&](std::string_view line, double) -> Status {
      ++number;
      if (Trim(line).empty()) return Status::Ok();
      return ReadOne(line, items, users).Prefixed(StrCat(file, ":", number));
    }));
    return CheckMatches().Prefixed(file);
  }

  Status Score(std::span<const std::int32_t> users, std::span<float> out) override {
    std::fill(out.begin(), out.end(), kUnranked);
    for (std::size_t row = 0; row < users.size(); ++row) {
      for (const auto& [item, score] : scores_[static_cast<std::size_t>(users[row])]) {
        out[row * items_ + static_cast<std::size_t>(item)] = score;
      }
    }
    return Status::Ok();
  }

 private:
  Status ReadOne(std::string_view line, const std::unordered_map<std::string_view, std::int32_t>& items,
                 const std::unordered_map<std::string_view, std::size_t>& users) {
    const auto parsed = ParseJson(line);
    if (!parsed.ok()) return parsed.status();
    const JsonValue& root = **parsed;
    const JsonValue* user = JsonFind(root, "user_id");
    const JsonValue* ranked = JsonFind(root, "items");
    const JsonValue* scored = JsonFind(root, "scores");
    if (user == nullptr || !user->IsString() || (ranked == nullptr) == (scored == nullptr)) {
      return InvalidArgument("a `user_id` and either `items` (best first) or `scores` are wanted");
    }
    std::vector<std::pair<std::int32_t, float>> row;
    std::unordered_set<std::string_view> listed;
    const auto take = [&](std::string_view id, float score) -> Status {
      if (!listed.insert(id).second) return InvalidArgument(StrCat("item `", id, "` is listed twice"));
      if (first_item_.empty()) first_item_ = id;
      if (const auto found = items.find(id); found != items.end()) row.emplace_back(found->second, score);
      return Status::Ok();
    };
    if (ranked != nullptr) {
      if (!ranked->IsArray()) return InvalidArgument("`items` must be a list of ids");
      float score = 0;
      for (const JsonValue& id : ranked->GetArray()) {
        if (!id.IsString()) return InvalidArgument("`items` must be a list of ids");
        FRESHET_TRY(take(JsonText(id), score));
        score -= 1;
      }
    } else {
      if (!scored->IsObject()) return InvalidArgument("`scores` must be an object of numbers");
      for (const auto& member : scored->GetObject()) {
        if (!member.value.IsNumber() || !std::isfinite(static_cast<float>(member.value.GetDouble()))) {
          return InvalidArgument(StrCat("the score of `", JsonText(member.name), "` is no finite number"));
        }
        FRESHET_TRY(take(JsonText(member.name), static_cast<float>(member.value.GetDouble())));
      }
    }
    if (first_user_.empty()) first_user_ = JsonText(*user);
    const auto found = users.find(JsonText(*user));
    if (found == users.end()) return Status::Ok();
    if (has_line_[found->second]) return InvalidArgument(StrCat("user `", JsonText(*user), "` has two lines"));
    has_line_[found->second] = true;
    matched_ += row.size();
    scores_[found->second] = std::move(row);
    return Status::Ok();
  }

  // Lists of another shop, or of ids that were written otherwise, would pass for a bad system.
  [[nodiscard]] Status CheckMatches() const {
    if (matched_ > 0) return Status::Ok();
    if (first_user_.empty()) return InvalidArgument("holds no lists");
    if (std::find(has_line_.begin(), has_line_.end(), true) == has_line_.end()) {
      return InvalidArgument(StrCat("none of its users has interactions (the first is `", first_user_,
                                    "`): are its ids those of the interactions?"));
    }
    return InvalidArgument(StrCat("none of the items that it lists for users with interactions is a candidate",
                                  first_item_.empty() ? "" : StrCat(" (the first is `", first_item_, "`)"),
                                  ": are its ids those of the items?"));
  }

  const std::size_t items_;
  std::vector<std::vector<std::pair<std::int32_t, float>>> scores_;  // per user
  std::vector<bool> has_line_;                                       // per user
  std::size_t matched_ = 0;                                          // items of them
  std::string first_user_;                                           // of the file
  std::string first_item_;
};

// Rows that mean nothing would spoil what an index is built of: they become another item's, equal to it in every
// search. REQUIRES: `refused` ascends and is not all of the items.
void FillRefused(const std::vector<std::size_t>& refused, std::size_t dim, std::vector<float>* vectors) {
  std::size_t sound = 0;
  while (sound < refused.size() && refused[sound] == sound) ++sound;
  for (const std::size_t item : refused) {
    std::copy_n(vectors->begin() + static_cast<std::ptrdiff_t>(sound * dim), dim,
                vectors->begin() + static_cast<std::ptrdiff_t>(item * dim));
  }
}

}  // namespace

std::unique_ptr<Scorer> MakeCountScorer(std::string name, const std::vector<std::int64_t>& counts) {
  return std::make_unique<CountScorer>(std::move(name), counts);
}

std::unique_ptr<Scorer> MakeRandomScorer(std::uint64_t seed) { return std::make_unique<RandomScorer>(seed); }

Result<std::unique_ptr<VectorScorer>> MakeModelScorer(std::string name, const ModelPackage& package,
                                                      const EvaluationHistory& history) {
  FRESHET_ASSIGN(const std::unique_ptr<ItemEncoder> encoder, package.LoadItemEncoder());
  FRESHET_ASSIGN(std::unique_ptr<UserEncoder> users, package.LoadUserEncoder());
  const auto dim = static_cast<std::size_t>(encoder->dim());
  std::vector<float> vectors(history.items.size() * dim);
  Metrics metrics;
  BatchEmbedder embedder(encoder.get(), &metrics, [](std::chrono::milliseconds wait) {
    std::this_thread::sleep_for(wait);
    return Status::Ok();
  });
  std::vector<std::size_t> refused;
  std::string reason;  // of the first one
  for (std::size_t begin = 0; begin < history.items.size(); begin += kEmbedRows) {
    const std::size_t end = std::min(begin + kEmbedRows, history.items.size());
    std::vector<const ItemUpdate*> batch;
    for (std::size_t i = begin; i < end; ++i) batch.push_back(&history.items[i]);
    std::vector<BatchEmbedder::Refusal> of_batch;
    FRESHET_TRY(embedder.Embed(batch, std::span(vectors).subspan(begin * dim, batch.size() * dim), &of_batch));
    for (const BatchEmbedder::Refusal& one : of_batch) {
      if (refused.empty()) reason = one.reason;
      refused.push_back(begin + one.item);
    }
  }
  if (!refused.empty()) {
    const std::string& first = history.items[refused.front()].item_id;
    if (refused.size() == history.items.size()) {
      return InvalidArgument(
          StrCat("model `", name, "` can embed none of the items (the first is `", first, "`): ", reason));
    }
    LogWarning("evaluate", "the model cannot embed every item; such items are recommended to nobody",
               {{"system", name}, {"items", StrCat(refused.size())}, {"first", first}, {"reason", reason}});
    FillRefused(refused, dim, &vectors);
  }
  return std::unique_ptr<VectorScorer>(new ModelScorer(std::move(name), history, package.manifest().metric,
                                                       std::move(vectors), std::move(refused), std::move(users)));
}

Result<std::unique_ptr<Scorer>> MakeListScorer(std::string name, const std::string& file,
                                               const EvaluationHistory& history) {
  auto scorer = std::make_unique<ListScorer>(std::move(name), history);
  FRESHET_TRY(scorer->Read(file, history));
  return std::unique_ptr<Scorer>(std::move(scorer));
}

}  // namespace freshet
