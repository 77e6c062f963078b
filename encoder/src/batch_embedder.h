// The items of one batch through the model, whatever some of them or the machine do.
//
// Place in the flow: inside EncodeStage, between the last write of each item and the dead letters. One model call a
// batch where all is well. An item that the model refuses is found by bisection; before any item is held to be at fault
// the model is asked whether it still answers its goldens (ItemEncoder::Check), once a batch. Where memory does not
// suffice the batch is halved; with one item left the call is repeated after a growing wait, a bounded number of times.
// Not thread-safe: the stage's thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"

namespace freshet {

class BatchEmbedder {
 public:
  // An item that the model cannot embed, and why. Its row of the output means nothing.
  struct Refusal {
    std::size_t item = 0;
    std::string reason;
  };
  // Waits; an error (of a stage that ends) ends the batch.
  using Wait = std::function<Status(std::chrono::milliseconds)>;
  static constexpr int kMaxAttempts = 7;  // at one item without memory; 6.3 s in all

  // `encoder` and `metrics` outlive it.
  BatchEmbedder(ItemEncoder* encoder, Metrics* metrics, Wait wait);

  // REQUIRES: out.size() == items.size() * dim. Refusals come in the order of the items. At most 1.25 calls an item and
  // 17 more, when every one is refused. Errors: permanent ones of the model; kResourceExhausted when one item still
  // finds no memory at the last attempt; those of `wait`. None is the items' fault.
  Status Embed(std::span<const ItemUpdate* const> items, std::span<float> out, std::vector<Refusal>* refused);

 private:
  Status EmbedRange(std::size_t begin, std::size_t end);
  Status Call(std::size_t begin, std::size_t end);
  Status Patiently(const std::function<Status()>& call);

  ItemEncoder* const encoder_;
  const Wait wait_;
  Counter& refused_total_;
  Counter& out_of_memory_;
  // Of the batch under way:
  std::span<const ItemUpdate* const> items_;
  std::span<float> out_;
  std::vector<Refusal>* refused_ = nullptr;
  bool model_is_sound_ = false;
  std::size_t splits_left_ = 0;
};

}  // namespace freshet
