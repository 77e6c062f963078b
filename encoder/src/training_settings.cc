#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>
#include <sstream>

#include "torch_tower.h"
#include "training_run.h"

namespace freshet {
namespace {

// The shortest one that reads back as the same number.
std::string ShortestText(double value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

}  // namespace

double LearningRate(const TrainOptions& options, double done) {
  if (done < options.warmup) return options.learning_rate * done / options.warmup;
  const double left = 1 - (done - options.warmup) / (1 - options.warmup);
  if (options.schedule == "cosine") return options.learning_rate * 0.5 * (1 - std::cos(left * std::numbers::pi));
  return options.learning_rate * (options.schedule == "constant" ? 1 : 0.1 + 0.9 * left);
}

bool TrainOptions::ReadsUserId() const {
  return std::any_of(features.users.begin(), features.users.end(),
                     [](const FeatureRequest& one) { return one.name == "user_id"; });
}

double PairWeight(const TrainOptions& options, const std::string& event, double value) {
  // Values are a producer's: one of them must neither vanish nor drown a batch.
  constexpr double kLeast = 1e-3;
  constexpr double kMost = 1e3;
  const auto named = options.event_weights.find(event);
  const double by_event = named == options.event_weights.end() ? 1 : named->second;
  if (options.value_weight == 0) return by_event;
  return by_event * std::clamp(std::pow(value, options.value_weight), kLeast, kMost);
}

std::string ResultSettings(const TrainOptions& o) {
  constexpr auto exact = ShortestText;
  std::ostringstream out;
  out << "name " << o.name << "\nmodel_version " << o.version << "\ndim " << o.dim << "\nembedding_dim "
      << o.embedding_dim << "\nhidden " << o.hidden << "\nepochs " << o.epochs << "\nbatch_size " << o.batch_size
      << "\nhistory " << o.history << "\nlearning_rate " << exact(o.learning_rate) << "\ntemperature "
      << exact(o.temperature) << "\nlearn_temperature " << o.learn_temperature << "\nwarmup " << exact(o.warmup)
      << "\nschedule " << o.schedule << "\nmax_gradient_norm " << exact(o.max_gradient_norm) << "\nbatch_norm "
      << o.batch_norm << "\nlog_q " << exact(o.log_q) << "\nhorizon " << o.horizon << "\npooling " << o.pooling
      << "\nblocks " << o.blocks << "\nheads " << o.heads << "\nshare_items " << o.share_items << "\nloss " << o.loss
      << "\nuniform_negatives " << o.uniform_negatives << "\nhard_negatives " << o.hard_negatives << "\ndropout "
      << exact(o.dropout) << "\nhistory_dropout " << exact(o.history_dropout) << "\nstranger_share "
      << exact(o.stranger_share) << "\nuser_weight " << exact(o.user_weight) << "\nhalf_life_days "
      << exact(o.half_life_days) << "\nmask_seen " << o.mask_seen << "\nvalidation_k " << o.validation_k
      << "\npatience " << o.patience << "\nid_dropout " << exact(o.id_dropout) << "\nseed " << o.seed << "\nlibtorch "
      << TorchVersion() << "\n";
  for (const auto& [event, weight] : o.event_weights) out << "event_weight " << exact(weight) << " " << event << "\n";
  if (o.value_weight != 0) out << "value_weight " << exact(o.value_weight) << "\n";
  // What was not there before is told only where it is not as it was: older checkpoints stay good.
  if (o.device.kind != Device::Kind::kCpu) out << "device " << DeviceText(o.device) << "\n";
  if (o.layers != 1) out << "layers " << o.layers << "\n";
  if (o.precision != "fp32") out << "precision " << o.precision << "\n";
  if (o.ReadsUserId()) out << "user_id_dropout " << exact(o.user_id_dropout) << "\n";
  if (!o.features.empty()) out << "features " << FeatureRequestsText(o.features) << "\n";
  return std::move(out).str();
}

std::string DataSettings(const TrainOptions& o) {
  std::ostringstream out;
  const auto line = [&](std::string_view name, const auto& value) { out << kOfData << name << " " << value << "\n"; };
  line("until", o.until_ms);
  line("split", SplitKindName(o.split.kind));
  line("validation_fraction", ShortestText(o.split.validation_fraction));
  line("test_fraction", ShortestText(o.split.test_fraction));
  line("validation_from", o.split.validation_from_ms);
  line("test_from", o.split.test_from_ms);
  line("test_until", o.split.test_until_ms);
  line("split_seed", o.split.seed);
  std::string events;
  for (const std::string& event : o.split.events) events += (events.empty() ? "" : ",") + event;
  line("events", events);
  line("validate_strangers", o.validate_strangers);
  return std::move(out).str();
}

}  // namespace freshet
