#include "batch_embedder.h"

#include <utility>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::chrono::milliseconds kFirstWait{100};
// Splits of a batch, beyond which its items are tried one by one: bisection pays while few are refused.
constexpr std::size_t kSplitsAtLeast = 8;
constexpr std::size_t kItemsASplit = 8;

}  // namespace

BatchEmbedder::BatchEmbedder(ItemEncoder* encoder, Metrics* metrics, Wait wait)
    : encoder_(encoder),
      wait_(std::move(wait)),
      refused_total_(
          metrics->GetCounter("freshet_encode_refused_total", "Items that the model refused; they are dead letters.")),
      out_of_memory_(metrics->GetCounter("freshet_encode_out_of_memory_total",
                                         "Model calls that found no memory and were made again, with fewer items.")) {}

Status BatchEmbedder::Embed(std::span<const ItemUpdate* const> items, std::span<float> out,
                            std::vector<Refusal>* refused) {
  items_ = items;
  out_ = out;
  refused_ = refused;
  model_is_sound_ = false;
  splits_left_ = kSplitsAtLeast + items.size() / kItemsASplit;
  return EmbedRange(0, items.size());
}

Status BatchEmbedder::EmbedRange(std::size_t begin, std::size_t end) {
  const bool one = end - begin == 1;
  Status status = one ? Patiently([&] { return Call(begin, end); }) : Call(begin, end);
  if (status.ok() || status.category() == Category::kPermanent) return status;
  if (status.category() == Category::kTransient) {
    if (one) return status;
    out_of_memory_.Add();
  } else {
    if (!model_is_sound_) {
      FRESHET_TRY(Patiently([this] { return encoder_->Check(); }));
      model_is_sound_ = true;
    }
    if (one) {
      refused_total_.Add();
      refused_->push_back({begin, status.message()});
      return Status::Ok();
    }
    if (splits_left_ == 0) {
      for (std::size_t item = begin; item < end; ++item) FRESHET_TRY(EmbedRange(item, item + 1));
      return Status::Ok();
    }
    --splits_left_;
  }
  const std::size_t middle = begin + (end - begin) / 2;
  FRESHET_TRY(EmbedRange(begin, middle));
  return EmbedRange(middle, end);
}

Status BatchEmbedder::Call(std::size_t begin, std::size_t end) {
  const auto dim = static_cast<std::size_t>(encoder_->dim());
  return encoder_->Encode(items_.subspan(begin, end - begin), out_.subspan(begin * dim, (end - begin) * dim));
}

Status BatchEmbedder::Patiently(const std::function<Status()>& call) {
  std::chrono::milliseconds wait = kFirstWait;
  for (int attempt = 1;; ++attempt) {
    Status status = call();
    if (status.category() != Category::kTransient) return status;
    out_of_memory_.Add();
    if (attempt == kMaxAttempts) return status.Prefixed(StrCat("after ", attempt, " attempts at a single item"));
    if (attempt == 1) LogWarning("encoder", "waiting for memory", {{"reason", status.ToString()}});
    FRESHET_TRY(wait_(wait));
    wait *= 2;
  }
}

}  // namespace freshet
