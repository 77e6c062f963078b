#include "torch_trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>

#include "freshet/core/strings.h"
#include "torch_device.h"

namespace freshet {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEpsilon = 1e-8;
constexpr double kMaxLogScale = 6.9077552789821;  // a learned temperature is 0.001 to 1
constexpr std::int64_t kRowsAhead = 2;            // of a table, fetched while one is moved
constexpr std::int64_t kFloatsALine = 16;         // of a cache
constexpr double kInitialDeviation = 0.05;        // of embeddings: small, so that rows never trained add little

template <typename T>
at::Tensor View(std::span<const T> values, at::IntArrayRef shape, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), shape, at::TensorOptions().dtype(type));
}

at::Tensor Longs(std::span<const std::int64_t> values) {
  return View(values, {static_cast<std::int64_t>(values.size())}, at::kLong);
}

std::vector<float> Values(const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  const float* begin = values.data_ptr<float>();
  return {begin, begin + values.numel()};
}

// While it lives, matrix products are computed in bfloat16: LibTorch casts what goes into them, and keeps the cast of a
// weight until the end. The weights, what is summed over rows and lengths stay in float.
class Bfloat16 {
 public:
  Bfloat16(bool wanted, c10::DeviceType device) : wanted_(wanted), device_(device) {
    if (!wanted_) return;
    Enable(true);
    at::autocast::increment_nesting();
  }
  ~Bfloat16() {
    if (!wanted_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    Enable(false);
  }
  Bfloat16(const Bfloat16&) = delete;
  Bfloat16& operator=(const Bfloat16&) = delete;

 private:
  void Enable(bool enabled) const {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::set_autocast_enabled(device_, enabled);
#else
    if (device_ == at::kCPU) {
      at::autocast::set_autocast_cpu_dtype(at::kBFloat16);
      at::autocast::set_cpu_enabled(enabled);
    } else {
      at::autocast::set_autocast_gpu_dtype(at::kBFloat16);
      at::autocast::set_enabled(enabled);
    }
#endif
  }

  const bool wanted_;
  const c10::DeviceType device_;
};

// A parameter with its moments. `sparse`: gradients come as rows, and only those rows move.
struct Parameter {
  std::string name;
  at::Tensor value;
  at::Tensor first;
  at::Tensor second;
  bool sparse = false;

  enum class Kind { kDense, kSparse, kBuffer };  // a buffer is moved by the forward pass and has no gradient

  Parameter(std::string parameter_name, at::Tensor initial, Kind kind)
      : name(std::move(parameter_name)), value(std::move(initial)), sparse(kind == Kind::kSparse) {
    value.requires_grad_(kind != Kind::kBuffer);
    first = at::zeros_like(value);
    second = at::zeros_like(value);
  }

  // The sum of squares of its gradient, whose rows are put together for Step().
  [[nodiscard]] double SquaredGradient() {
    if (!value.grad().defined()) return 0;
    const at::NoGradGuard no_grad;
    if (sparse) value.mutable_grad() = value.grad().coalesce();
    const at::Tensor grad = sparse ? value.grad().values() : value.grad();
    return at::sum(grad * grad).item<double>();
  }

  // `shrink`: what the gradient is multiplied with. `by_operators`: on whatever device it is; else by a loop, on the
  // CPU.
  void Step(double learning_rate, std::int64_t step, float shrink, bool by_operators) {
    const at::Tensor grad = value.grad();
    if (!grad.defined()) return;
    const at::NoGradGuard no_grad;
    const double scale = std::sqrt(1 - std::pow(kBeta2, static_cast<double>(step)));
    const double rate = learning_rate * scale / (1 - std::pow(kBeta1, static_cast<double>(step)));
    if (by_operators) {
      UpdateByOperators(grad, rate, shrink);
    } else if (!sparse) {
      Update(value.data_ptr<float>(), first.data_ptr<float>(), second.data_ptr<float>(),
             grad.contiguous().data_ptr<float>(), value.numel(), rate, shrink);
    } else {
      const at::Tensor rows = grad.coalesce();
      const at::Tensor indices = rows.indices().contiguous();
      const at::Tensor values = rows.values().contiguous();
      const std::int64_t width = value.size(1);
      const std::int64_t* const row = indices.data_ptr<std::int64_t>();
      float* const x = value.data_ptr<float>();
      float* const m = first.data_ptr<float>();
      float* const v = second.data_ptr<float>();
      const std::int64_t count = indices.size(1);
      for (std::int64_t i = 0; i < count; ++i) {
        // Rows lie anywhere in tables that no cache holds.
        if (i + kRowsAhead < count) {
          const std::int64_t next = row[i + kRowsAhead] * width;
          for (std::int64_t at = 0; at < width; at += kFloatsALine) {
            for (float* array : {x, m, v}) __builtin_prefetch(array + next + at, 1);
          }
        }
        const std::int64_t at_row = row[i] * width;
        Update(x + at_row, m + at_row, v + at_row, values.data_ptr<float>() + i * width, width, rate, shrink);
      }
    }
    value.mutable_grad() = at::Tensor();
  }

  void UpdateByOperators(const at::Tensor& grad, double rate, float shrink) {
    const auto update = [&](const at::Tensor& g, at::Tensor x, at::Tensor m, at::Tensor v) {
      m.mul_(kBeta1).add_(g, 1 - kBeta1);
      v.mul_(kBeta2).addcmul_(g, g, 1 - kBeta2);
      x.addcdiv_(m, at::sqrt(v).add_(kEpsilon), -rate);
    };
    if (!sparse) {
      update(grad * shrink, value, first, second);
      return;
    }
    const at::Tensor coalesced = grad.coalesce();
    const at::Tensor rows = coalesced.indices().select(0, 0);
    const at::Tensor x = value.index_select(0, rows);
    const at::Tensor m = first.index_select(0, rows);
    const at::Tensor v = second.index_select(0, rows);
    update(coalesced.values() * shrink, x, m, v);
    value.index_copy_(0, rows, x);
    first.index_copy_(0, rows, m);
    second.index_copy_(0, rows, v);
  }

  static void Update(float* __restrict x, float* __restrict m, float* __restrict v, const float* __restrict gradient,
                     std::int64_t count, double rate, float shrink) {
    const auto beta1 = static_cast<float>(kBeta1);
    const auto beta2 = static_cast<float>(kBeta2);
    const auto step = static_cast<float>(rate);
    for (std::int64_t i = 0; i < count; ++i) {
      const float g = shrink * gradient[i];
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      x[i] -= step * m[i] / (std::sqrt(v[i]) + static_cast<float>(kEpsilon));
    }
  }
};

// The script of a tower over parameters that are trained.
struct TowerNet {
  std::vector<Parameter> parameters;
  mutable torch::jit::Module module{"TrainedTower"};  // calling a method is not declared const

  // Drawn on the CPU, so that a seed means the same everywhere.
  TowerNet(const TowerDesign& design, const Parameter& table, const at::Generator& random, c10::Device device) {
    module.register_parameter(table.name, table.value, false);
    for (const ParameterDesign& one : ParametersOf(design)) {
      at::Tensor value = one.deviation > 0 ? at::empty(one.shape, at::kFloat).normal_(0, one.deviation, random)
                                           : at::full(one.shape, one.constant, at::kFloat);
      const auto kind = one.buffer ? Parameter::Kind::kBuffer : Parameter::Kind::kDense;
      parameters.emplace_back(one.name, value.to(device), kind);
      if (one.buffer) {
        module.register_buffer(one.name, parameters.back().value);
      } else {
        module.register_parameter(one.name, parameters.back().value, false);
      }
    }
    module.define(ForwardSourceOf(design, "forward", Forward::kServing));
    module.define(ForwardSourceOf(design, "train_forward", Forward::kTraining));
    if (ReadsSequence(design)) module.define(ForwardSourceOf(design, "train_places", Forward::kEveryPlace));
  }

  // `row_of` moves the tower's rows to those of the table.
  [[nodiscard]] std::vector<c10::IValue> Arguments(const at::Tensor& row_of, const TowerInput& input) const {
    const c10::Device device = row_of.device();
    const at::Tensor indices = row_of.index_select(0, Longs(input.indices).to(device));
    const std::int64_t dense = static_cast<std::int64_t>(input.dense.size()) / input.rows;
    return {indices, Longs(input.offsets).to(device),
            View(std::span(input.dense), {input.rows, dense}, at::kFloat).to(device)};
  }

  [[nodiscard]] at::Tensor Run(const char* method, std::vector<c10::IValue> arguments) const {
    // Operator by operator: the optimising executors rewrite a script for gradients, and none of that pays here.
    const torch::jit::GraphOptimizerEnabledGuard plain(false);
    return module.get_method(method)(std::move(arguments)).toTensor();
  }
};

}  // namespace

// The rows of both towers stand in one table, so that they can be shared.
struct TorchTrainer::Impl {
  TrainerOptions options;
  c10::Device device;
  Parameter table;
  TowerNet item;
  TowerNet user;
  Parameter log_scale;  // of the logits: minus the logarithm of the temperature
  at::Tensor item_rows;
  at::Tensor user_rows;
  std::int64_t steps = 0;

  [[nodiscard]] const TowerNet& Of(Side side) const { return side == Side::kItem ? item : user; }
  [[nodiscard]] const at::Tensor& RowsOf(Side side) const { return side == Side::kItem ? item_rows : user_rows; }
  [[nodiscard]] at::Tensor Embed(Side side, const TowerInput& input, bool training) const {
    const Bfloat16 mixed(training && options.bf16, device.type());
    return Of(side).Run(training ? "train_forward" : "forward", Of(side).Arguments(RowsOf(side), input)).to(at::kFloat);
  }
  // A vector for each target of the batch.
  [[nodiscard]] at::Tensor Users(const TowerInput& users, const TrainingBatch& batch) const {
    if (batch.rows.empty()) return Embed(Side::kUser, users, true);
    std::vector<c10::IValue> arguments = user.Arguments(user_rows, users);
    arguments.emplace_back(Longs(batch.rows).to(device));
    arguments.emplace_back(Longs(batch.reads).to(device));
    const Bfloat16 mixed(options.bf16, device.type());
    return user.Run("train_places", std::move(arguments)).to(at::kFloat);
  }
  // Of the value, not within the graph: there the gradient beyond a bound is 0, and what is once there stays.
  void BoundTemperature() {
    if (!options.learn_temperature) return;
    const at::NoGradGuard no_grad;
    log_scale.value.clamp_(0.0, kMaxLogScale);
  }
  // Of dropout: the device's own.
  [[nodiscard]] at::Generator Random() const { return at::globalContext().defaultGenerator(device); }
  // In the order in which they are stepped and stored.
  [[nodiscard]] std::vector<Parameter*> Trained() {
    std::vector<Parameter*> all = {&table};
    for (TowerNet* net : {&item, &user}) {
      for (Parameter& parameter : net->parameters) all.push_back(&parameter);
    }
    if (options.learn_temperature) all.push_back(&log_scale);
    return all;
  }
};

TorchTrainer::TorchTrainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TorchTrainer::~TorchTrainer() = default;

Result<std::unique_ptr<TorchTrainer>> TorchTrainer::Create(const TrainerOptions& options) {
  FRESHET_ASSIGN(const c10::Device device, ResolveDevice(options.device));
  try {
    at::manual_seed(options.seed);  // dropout draws from the global generators
    const at::Generator random = at::detail::createCPUGenerator(options.seed);
    const std::int64_t rows = options.item.shape.table_rows + options.user.shape.table_rows;
    Parameter table(
        "table",
        at::empty({rows, options.item.embedding_dim}, at::kFloat).normal_(0, kInitialDeviation, random).to(device),
        Parameter::Kind::kSparse);
    TowerNet item_net(options.item, table, random, device);
    TowerNet user_net(options.user, table, random, device);
    const at::Tensor item_rows = at::arange(options.item.shape.table_rows, at::kLong);
    at::Tensor user_rows = at::arange(options.item.shape.table_rows, rows, at::kLong);
    for (std::size_t i = 0; i < options.shared_rows.size(); ++i) {
      if (options.shared_rows[i] >= 0) user_rows.data_ptr<std::int64_t>()[i] = options.shared_rows[i];
    }
    Parameter log_scale("log_scale", at::full({1}, -std::log(options.temperature), at::kFloat).to(device),
                        Parameter::Kind::kDense);
    auto impl = std::make_unique<Impl>(Impl{options, device, std::move(table), std::move(item_net), std::move(user_net),
                                            std::move(log_scale), item_rows.to(device), user_rows.to(device)});
    impl->BoundTemperature();
    return std::unique_ptr<TorchTrainer>(new TorchTrainer(std::move(impl)));
  } catch (const std::exception& e) {
    return Internal(StrCat("the towers cannot be made: ", e.what()));
  }
}

Result<double> TorchTrainer::Step(const TowerInput& users, const TrainingBatch& batch, double learning_rate) {
  try {
    const at::Tensor user_vectors = impl_->Users(users, batch);
    const at::Tensor item_vectors = impl_->Embed(Side::kItem, batch.items, true);
    const c10::Device device = impl_->device;
    const at::Tensor numbers = Longs(batch.numbers).to(device);
    const at::Tensor targets = Longs(batch.targets).to(device);
    const at::Tensor weights = View(std::span(batch.weights), {targets.size(0)}, at::kFloat).to(device);
    // The same item in another column is no negative.
    const at::Tensor accidental = at::eq(numbers.unsqueeze(0), numbers.index_select(0, targets).unsqueeze(1))
                                      .scatter_(1, targets.unsqueeze(1), false);
    const at::Tensor likeness = at::mm(user_vectors, item_vectors.t());
    const at::Tensor scaled = impl_->options.learn_temperature ? likeness * at::exp(impl_->log_scale.value)
                                                               : likeness / impl_->options.temperature;
    const at::Tensor logits = (scaled - View(std::span(batch.log_q), {1, numbers.size(0)}, at::kFloat).to(device))
                                  .masked_fill(accidental, -1e9);
    const at::Tensor losses = at::cross_entropy_loss(logits, targets, {}, at::Reduction::None);
    const at::Tensor loss = at::sum(losses * weights) / at::sum(weights);
    const double value = loss.item<double>();
    if (!std::isfinite(value)) return Internal("the loss is not finite: lower the learning rate");
    loss.backward();
    const std::vector<Parameter*> trained = impl_->Trained();
    float shrink = 1;
    if (const double most = impl_->options.max_gradient_norm; most > 0) {
      double squares = 0;
      for (Parameter* parameter : trained) squares += parameter->SquaredGradient();
      const double norm = std::sqrt(squares);
      if (!std::isfinite(norm)) return Internal("the gradients are not finite: lower the learning rate");
      if (norm > most) shrink = static_cast<float>(most / norm);
    }
    ++impl_->steps;
    const bool by_operators = !device.is_cpu() || impl_->options.step_by_operators;
    for (Parameter* parameter : trained) parameter->Step(learning_rate, impl_->steps, shrink, by_operators);
    impl_->BoundTemperature();
    return value;
  } catch (const std::exception& e) {
    return Internal(StrCat("training step: ", e.what()));
  }
}

Result<std::vector<float>> TorchTrainer::Embed(Side side, const TowerInput& input) const {
  try {
    const at::NoGradGuard no_grad;
    return Values(impl_->Embed(side, input, false));
  } catch (const std::exception& e) {
    return Internal(StrCat("embedding: ", e.what()));
  }
}

std::vector<TowerParameter> TorchTrainer::Parameters(Side side) const {
  const auto copy = [](const std::string& name, const at::Tensor& parameter) {
    return TowerParameter{name, parameter.sizes().vec(), Values(parameter)};
  };
  const at::NoGradGuard no_grad;
  std::vector<TowerParameter> copies;
  copies.push_back(copy("table", impl_->table.value.index_select(0, impl_->RowsOf(side))));
  for (const Parameter& parameter : impl_->Of(side).parameters) {
    copies.push_back(copy(parameter.name, parameter.value));
  }
  return copies;
}

std::string TorchTrainer::ForwardSource(Side side) const {
  return ForwardSourceOf(side == Side::kItem ? impl_->options.item : impl_->options.user, "forward", Forward::kServing);
}

TrainerState TorchTrainer::State() const {
  TrainerState state;
  state.steps = impl_->steps;
  const at::Tensor generator = impl_->Random().get_state();
  state.generator.assign(reinterpret_cast<const char*>(generator.data_ptr<std::uint8_t>()),
                         static_cast<std::size_t>(generator.numel()));
  for (const Parameter* parameter : impl_->Trained()) {
    state.parameters.push_back(
        {parameter->name, Values(parameter->value), Values(parameter->first), Values(parameter->second)});
  }
  return state;
}

Status TorchTrainer::Restore(const TrainerState& state) {
  const std::vector<Parameter*> trained = impl_->Trained();
  if (state.parameters.size() != trained.size() || state.steps < 0) {
    return Corruption("the state holds other parameters than these towers have");
  }
  for (std::size_t i = 0; i < trained.size(); ++i) {
    const ParameterState& from = state.parameters[i];
    const Parameter& to = *trained[i];
    const auto count = static_cast<std::size_t>(to.value.numel());
    if (from.name != to.name || from.value.size() != count || from.first.size() != count ||
        from.second.size() != count) {
      return Corruption(StrCat("the state of parameter `", to.name, "` is not one of these towers"));
    }
    const at::NoGradGuard no_grad;
    const auto put = [&](const std::vector<float>& values, const at::Tensor& tensor) {
      tensor.view({-1}).copy_(View(std::span(values), {tensor.numel()}, at::kFloat));
    };
    put(from.value, to.value);
    put(from.first, to.first);
    put(from.second, to.second);
  }
  impl_->steps = state.steps;
  impl_->BoundTemperature();
  try {
    const std::span<const char> bytes(state.generator);
    const at::Tensor generator = View(bytes, {static_cast<std::int64_t>(bytes.size())}, at::kByte).clone();
    at::Generator global = impl_->Random();
    global.set_state(generator);
  } catch (const std::exception&) {
    return Corruption("the state of the random generator is not one of this LibTorch");
  }
  return Status::Ok();
}

}  // namespace freshet
