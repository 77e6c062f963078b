#include "batch_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace freshet {
namespace {

constexpr double kDayMs = 86'400'000;
constexpr double kLeastWeight = 1e-6;  // of a very old pair: a batch of them must still have a sum

}  // namespace

BatchSampler::BatchSampler(const TrainOptions& options, const TrainingData& data, const InputCache& cache,
                           std::mt19937_64* random)
    : options_(options), data_(data), cache_(cache), random_(random) {
  log_q_.reserve(data_.items.size());
  for (const std::int64_t count : data_.item_counts) {
    const double share =
        static_cast<double>(std::max<std::int64_t>(count, 1)) / static_cast<double>(data_.examples.size());
    log_q_.push_back(static_cast<float>(std::log(share)));
  }
  const auto examples = static_cast<std::int64_t>(data_.examples.size());
  steps_per_epoch_ = std::max<std::int64_t>(1, examples / options_.batch_size);
  if (options_.ReadsSequence()) {
    MakeWindows();
    steps_per_epoch_ = std::min(steps_per_epoch_, static_cast<std::int64_t>(windows_.size()));
  }
  pairs_of_.resize(data_.sequences.size());
  for (const TrainingExample& one : data_.examples) ++pairs_of_[static_cast<std::size_t>(one.user)];
  order_.resize(windows_.empty() ? data_.examples.size() : windows_.size());
  for (const TrainingExample& one : data_.examples) newest_ms_ = std::max(newest_ms_, one.timestamp_ms);
  std::iota(order_.begin(), order_.end(), 0U);
}

bool BatchSampler::SetOrder(const std::vector<std::uint32_t>& order) {
  if (order.size() != order_.size()) return false;
  std::vector<bool> taken(order.size());
  for (const std::uint32_t example : order) {
    if (example >= order.size() || taken[example]) return false;
    taken[example] = true;
  }
  order_ = order;
  return true;
}

bool BatchSampler::SetMined(std::vector<std::int32_t> mined) {
  const auto items = static_cast<std::int32_t>(data_.items.size());
  const bool known =
      std::all_of(mined.begin(), mined.end(), [&](std::int32_t item) { return item >= -1 && item < items; });
  if (!known || (!mined.empty() && mined.size() != data_.users.size() * kMinedPerUser)) return false;
  mined_ = std::move(mined);
  return true;
}

std::size_t BatchSampler::Fill(std::int64_t step) {
  // The remainder that fills no batch is part of another epoch's batches: each epoch has its own order.
  const auto bound = [&](std::int64_t at) {
    return static_cast<std::size_t>(at) * order_.size() / static_cast<std::size_t>(steps_per_epoch_);
  };
  users_.Clear();
  batch_.Clear();
  batch_users_.clear();
  for (std::size_t i = bound(step); i < bound(step + 1); ++i) {
    if (!windows_.empty()) {
      AddWindow(windows_[order_[i]]);
      continue;
    }
    const TrainingExample& example = data_.examples[order_[i]];
    AddUser(example.user, HistoryOf(example));
    AddTarget(example);
  }
  const std::size_t pairs = batch_.targets.size();
  AddNegatives();
  for (float& correction : batch_.log_q) correction *= static_cast<float>(options_.log_q);
  return pairs;
}

// Half a history long, so that every target but a user's first ones knows at least the other half.
void BatchSampler::MakeWindows() {
  for (const auto& sequence : data_.sequences) examples_of_.emplace_back(sequence.size(), kNoExample);
  for (std::size_t i = 0; i < data_.examples.size(); ++i) {
    const TrainingExample& one = data_.examples[i];
    examples_of_[static_cast<std::size_t>(one.user)][static_cast<std::size_t>(one.position)] =
        static_cast<std::uint32_t>(i);
  }
  const std::int32_t length = std::max(1, options_.history / 2);
  for (std::size_t user = 0; user < data_.sequences.size(); ++user) {
    const auto size = static_cast<std::int32_t>(data_.sequences[user].size());
    for (std::int32_t begin = 0; begin < size; begin += length) {
      const std::int32_t end = std::min(begin + length, size);
      const auto of =
          std::span(examples_of_[user]).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
      const bool any = std::any_of(of.begin(), of.end(), [](std::uint32_t example) { return example != kNoExample; });
      if (any) windows_.push_back({static_cast<std::int32_t>(user), begin, end});
    }
  }
}

// The moment of a request: everything before the pair, or only what is of an earlier time, by turns. The first teaches
// what belongs into one basket, the second what people come back for. A
// horizon asks for what comes later than next.
std::int32_t BatchSampler::HistoryEnd(const TrainingExample& example) {
  if (options_.stranger_share > 0 && UnitInterval() < options_.stranger_share) return 0;
  std::int32_t end = UnitInterval() < 0.5 ? example.earlier : example.position;
  if (options_.horizon > 0) end -= static_cast<std::int32_t>(UnitInterval() * (options_.horizon + 1));
  return std::max(end, 0);
}

// A share of a history is left out, a different one each epoch, so that no single item of it is learned by heart.
std::span<const std::int32_t> BatchSampler::HistoryOf(const TrainingExample& example) {
  const std::int32_t end = HistoryEnd(example);
  const std::size_t count = std::min(static_cast<std::size_t>(end), static_cast<std::size_t>(options_.history));
  history_.clear();
  for (std::int32_t position = end - static_cast<std::int32_t>(count); position < end; ++position) {
    if (UnitInterval() >= options_.history_dropout) history_.push_back(position);
  }
  return history_;
}

// For as many users as items hide their ids, nobody knows of events and times: a request may bring item ids alone. Who
// has no history is a stranger, whose id nobody knows.
void BatchSampler::AddUser(std::int32_t user, std::span<const std::int32_t> positions) {
  HiddenOfUser hidden;
  hidden.context = cache_.history_beside() > 0 && UnitInterval() < options_.id_dropout;
  hidden.id = cache_.reads_user_id() && (UnitInterval() < options_.user_id_dropout || positions.empty());
  cache_.AppendUser(user, positions, hidden, &users_);
}

void BatchSampler::AddWindow(const Window& window) {
  const auto user = static_cast<std::size_t>(window.user);
  const std::vector<std::int32_t>& sequence = data_.sequences[user];
  const std::int32_t last = window.end - 1;
  const std::int32_t first = std::max(0, last - options_.history);
  history_.clear();
  kept_.clear();
  for (std::int32_t position = first; position < last; ++position) {
    kept_.push_back(static_cast<std::int64_t>(history_.size()));
    const std::int32_t item = sequence[static_cast<std::size_t>(position)];
    if (UnitInterval() >= options_.history_dropout && cache_.InHistories(item)) history_.push_back(position);
  }
  kept_.push_back(static_cast<std::int64_t>(history_.size()));
  const std::int64_t row = users_.rows;
  AddUser(window.user, history_);
  for (std::int32_t position = window.begin; position < window.end; ++position) {
    const std::uint32_t number = examples_of_[user][static_cast<std::size_t>(position)];
    if (number == kNoExample) continue;
    const TrainingExample& example = data_.examples[number];
    const std::int32_t end = std::max(HistoryEnd(example), first);
    batch_.rows.push_back(row);
    batch_.reads.push_back(kept_[static_cast<std::size_t>(end - first)]);
    AddTarget(example);
  }
}

void BatchSampler::AddTarget(const TrainingExample& example) {
  const std::vector<std::int32_t>& sequence = data_.sequences[static_cast<std::size_t>(example.user)];
  const std::int32_t item = sequence[static_cast<std::size_t>(example.position)];
  batch_.weights.push_back(WeightOf(example));
  batch_users_.push_back(example.user);
  if (options_.loss == "full") {
    batch_.targets.push_back(item);
    return;
  }
  batch_.targets.push_back(batch_.items.rows);
  AddItem(item, log_q_[static_cast<std::size_t>(item)]);
}

// By what the interaction was, by how much the user took, and by age: what a shop sells drifts, and a recommendation is
// for tomorrow. Negatives are drawn as before, so their correction stays as it is.
float BatchSampler::WeightOf(const TrainingExample& example) const {
  const std::int32_t pairs = pairs_of_[static_cast<std::size_t>(example.user)];
  double weight = std::pow(static_cast<double>(pairs), -options_.user_weight) * static_cast<double>(example.weight);
  if (options_.half_life_days > 0) {
    const double age_days = static_cast<double>(newest_ms_ - example.timestamp_ms) / kDayMs;
    weight *= std::max(std::exp2(-age_days / options_.half_life_days), kLeastWeight);
  }
  return static_cast<float>(weight);
}

void BatchSampler::AddItem(std::int32_t item, float log_q) {
  cache_.AppendItem(item, UnitInterval() < options_.id_dropout, &batch_.items);
  batch_.numbers.push_back(item);
  batch_.log_q.push_back(log_q);
}

// Those that no pair of the batch brings: the whole catalogue, or a few drawn evenly from it.
void BatchSampler::AddNegatives() {
  const std::size_t count = data_.items.size();
  if (options_.loss == "full") {
    for (std::size_t i = 0; i < count; ++i) AddItem(static_cast<std::int32_t>(i), 0);
    return;
  }
  const auto pairs = static_cast<double>(batch_.targets.size());
  const auto drawn = static_cast<double>(options_.uniform_negatives);
  if (drawn == 0) {
    AddHardNegatives([&](std::size_t item) { return log_q_[item]; });
    return;
  }
  // A column's share is now that of the mixture (Yang et al., "Mixed negative sampling", WWW 2020).
  const auto mixed = [&](std::size_t item) {
    const double share = std::exp(static_cast<double>(log_q_[item]));
    return static_cast<float>(std::log((pairs * share + drawn / static_cast<double>(count)) / (pairs + drawn)));
  };
  for (std::size_t i = 0; i < batch_.log_q.size(); ++i) {
    batch_.log_q[i] = mixed(static_cast<std::size_t>(batch_.numbers[i]));
  }
  for (int i = 0; i < options_.uniform_negatives; ++i) {
    const std::size_t item = (*random_)() % count;
    AddItem(static_cast<std::int32_t>(item), mixed(item));
  }
  AddHardNegatives(mixed);
}

// Of the users of the batch: what the towers took for theirs. Negatives of all its pairs, like any other column.
void BatchSampler::AddHardNegatives(const std::function<float(std::size_t)>& correction) {
  if (mined_.empty()) return;
  for (int i = 0; i < options_.hard_negatives; ++i) {
    const auto user = static_cast<std::size_t>(batch_users_[(*random_)() % batch_users_.size()]);
    const std::int32_t item = mined_[user * kMinedPerUser + (*random_)() % kMinedPerUser];
    if (item >= 0) AddItem(item, correction(static_cast<std::size_t>(item)));
  }
}

}  // namespace freshet
