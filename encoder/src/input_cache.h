// The tensors' rows of every item and user of a training, made by the extraction of serving.
//
// Place in the flow: TrainingData -> InputCache -> batches, which are put together by copying. No LibTorch here.
// Thread-compatible; what it was made from must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/encoder/feature_spec.h"
#include "training_data.h"

namespace freshet {

// What a batch does not tell of a user, so that what stands for the unknown learns too.
struct HiddenOfUser {
  bool id = false;
  bool context = false;  // events and times of the history
};

class InputCache {
 public:
  explicit InputCache(const TrainingData& data);

  void AppendItem(std::int32_t item, bool hide_id, TowerInput* input) const;
  // History: the newest `max_history` of these positions in the user's sequence (ascending).
  void AppendUser(std::int32_t user, std::span<const std::int32_t> positions, const HiddenOfUser& hidden,
                  TowerInput* input) const;
  // With all of the user's sequence.
  void AppendUser(std::int32_t user, TowerInput* input) const;
  // Has the user tower a row for this item of a history?
  [[nodiscard]] bool InHistories(std::int32_t item) const { return history_rows_[static_cast<std::size_t>(item)] >= 0; }
  [[nodiscard]] int history_bag() const { return history_bag_; }
  // How many bags right behind it tell of its interactions: events, times.
  [[nodiscard]] int history_beside() const { return history_beside_; }
  [[nodiscard]] bool reads_user_id() const { return user_id_ >= 0; }
  // For each row of the user tower's table, the row of the item tower's that stands for the same item; -1: none does.
  [[nodiscard]] std::vector<std::int64_t> SharedRows() const;
  // A hash of everything in `data` that training reads; REQUIRES: what this cache was made from.
  [[nodiscard]] std::string Fingerprint(const TrainingData& data) const;

 private:
  const TrainingData& data_;
  const FeatureSpec& item_spec_;
  const FeatureSpec& user_spec_;
  TowerInput items_;
  TowerInput users_;                        // without history
  std::vector<std::int64_t> history_rows_;  // per item; -1: not in the vocabulary
  std::vector<std::int64_t> hidden_ids_;    // per item: the row of its id where nobody knows it; -1: none
  std::vector<std::int64_t> event_rows_;    // per event name, and where nobody knows it
  std::vector<std::int64_t> hidden_events_;
  std::ptrdiff_t user_id_ = -1;  // the feature
  int id_bag_ = -1;
  int history_bag_ = -1;
  int history_beside_ = 0;
  std::size_t max_history_ = 0;
};

}  // namespace freshet
