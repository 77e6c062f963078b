#include "torch_trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/script.h>

#include <cmath>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEpsilon = 1e-8;
constexpr double kInitialDeviation = 0.05;  // of embeddings: small, so that rows never trained add little

template <typename T>
at::Tensor View(std::span<const T> values, at::IntArrayRef shape, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), shape, at::TensorOptions().dtype(type));
}

// A parameter with its moments. `sparse`: gradients come as rows, and only those rows move.
struct Parameter {
  std::string name;
  at::Tensor value;
  at::Tensor first;
  at::Tensor second;
  bool sparse = false;

  Parameter(std::string parameter_name, at::Tensor initial, bool is_sparse)
      : name(std::move(parameter_name)), value(std::move(initial)), sparse(is_sparse) {
    value.requires_grad_(true);
    first = at::zeros_like(value);
    second = at::zeros_like(value);
  }

  void Step(double learning_rate, std::int64_t step) {
    const at::Tensor grad = value.grad();
    if (!grad.defined()) return;
    const at::NoGradGuard no_grad;
    const double scale = std::sqrt(1 - std::pow(kBeta2, static_cast<double>(step)));
    const double rate = learning_rate * scale / (1 - std::pow(kBeta1, static_cast<double>(step)));
    if (!sparse) {
      Update(value.data_ptr<float>(), first.data_ptr<float>(), second.data_ptr<float>(),
             grad.contiguous().data_ptr<float>(), value.numel(), rate);
    } else {
      const at::Tensor rows = grad.coalesce();
      const at::Tensor indices = rows.indices().contiguous();
      const at::Tensor values = rows.values().contiguous();
      const std::int64_t width = value.size(1);
      for (std::int64_t i = 0; i < indices.size(1); ++i) {
        const std::int64_t at_row = indices.data_ptr<std::int64_t>()[i] * width;
        Update(value.data_ptr<float>() + at_row, first.data_ptr<float>() + at_row, second.data_ptr<float>() + at_row,
               values.data_ptr<float>() + i * width, width, rate);
      }
    }
    value.mutable_grad() = at::Tensor();
  }

  static void Update(float* x, float* m, float* v, const float* g, std::int64_t count, double rate) {
    const auto beta1 = static_cast<float>(kBeta1);
    const auto beta2 = static_cast<float>(kBeta2);
    const auto step = static_cast<float>(rate);
    for (std::int64_t i = 0; i < count; ++i) {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      x[i] -= step * m[i] / (std::sqrt(v[i]) + static_cast<float>(kEpsilon));
    }
  }
};

struct TowerNet {
  TowerShape shape;
  std::vector<Parameter> parameters;

  TowerNet(const TowerShape& tower_shape, const TrainerOptions& options, const at::Generator& random)
      : shape(tower_shape) {
    const std::int64_t inputs = std::int64_t{shape.bags} * options.embedding_dim + shape.dense;
    const auto matrix = [&](std::int64_t rows, std::int64_t columns, double deviation) {
      return at::empty({rows, columns}, at::kFloat).normal_(0, deviation, random);
    };
    const auto he = [](std::int64_t fan_in, double gain) { return std::sqrt(gain / static_cast<double>(fan_in)); };
    parameters.emplace_back("table", matrix(shape.table_rows, options.embedding_dim, kInitialDeviation), true);
    parameters.emplace_back("w1", matrix(inputs, options.hidden, he(inputs, 2)), false);
    parameters.emplace_back("b1", at::zeros({options.hidden}), false);
    parameters.emplace_back("w2", matrix(options.hidden, shape.dim, he(options.hidden, 1)), false);
    parameters.emplace_back("b2", at::zeros({shape.dim}), false);
    // A linear path beside the hidden layer: matching a history with its own items needs no more than that, and learns
    // it within the first epoch.
    parameters.emplace_back("skip", matrix(inputs, shape.dim, he(inputs, 1)), false);
  }

  [[nodiscard]] at::Tensor Forward(const TowerInput& input) const {
    const at::Tensor indices =
        View(std::span(input.indices), {static_cast<std::int64_t>(input.indices.size())}, at::kLong);
    const at::Tensor offsets =
        View(std::span(input.offsets), {static_cast<std::int64_t>(input.offsets.size())}, at::kLong);
    const at::Tensor dense = View(std::span(input.dense), {input.rows, shape.dense}, at::kFloat);
    const at::Tensor& table = parameters[0].value;
    const at::Tensor bags = std::get<0>(at::embedding_bag(table, indices, offsets, false, 1, true, {}, false));
    const at::Tensor x = at::cat({bags.reshape({input.rows, shape.bags * table.size(1)}), dense}, 1);
    const at::Tensor hidden = at::relu(at::addmm(parameters[2].value, x, parameters[1].value));
    const at::Tensor out = at::addmm(parameters[4].value, hidden, parameters[3].value) + at::mm(x, parameters[5].value);
    return out / at::clamp_min(at::norm(out, 2, {1}, true), 1e-12);
  }
};

}  // namespace

struct TorchTrainer::Impl {
  TrainerOptions options;
  TowerNet item;
  TowerNet user;
  std::int64_t steps = 0;

  [[nodiscard]] const TowerNet& Of(Side side) const { return side == Side::kItem ? item : user; }
};

TorchTrainer::TorchTrainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TorchTrainer::~TorchTrainer() = default;

Result<std::unique_ptr<TorchTrainer>> TorchTrainer::Create(const TrainerOptions& options, const TowerShape& item,
                                                           const TowerShape& user) {
  try {
    const at::Generator random = at::detail::createCPUGenerator(options.seed);
    TowerNet item_net(item, options, random);
    TowerNet user_net(user, options, random);
    return std::unique_ptr<TorchTrainer>(
        new TorchTrainer(std::make_unique<Impl>(Impl{options, std::move(item_net), std::move(user_net)})));
  } catch (const std::exception& e) {
    return Internal(StrCat("the towers cannot be made: ", e.what()));
  }
}

Result<double> TorchTrainer::Step(const TowerInput& users, const TowerInput& items,
                                  std::span<const std::int64_t> item_numbers, std::span<const float> log_q,
                                  double learning_rate) {
  try {
    const std::int64_t rows = users.rows;
    const at::Tensor user_vectors = impl_->user.Forward(users);
    const at::Tensor item_vectors = impl_->item.Forward(items);
    const at::Tensor numbers = View(item_numbers, {rows}, at::kLong);
    // The same item in another row is no negative.
    const at::Tensor accidental = at::eq(numbers.unsqueeze(0), numbers.unsqueeze(1)).fill_diagonal_(false);
    const at::Tensor logits =
        (at::mm(user_vectors, item_vectors.t()) / impl_->options.temperature - View(log_q, {1, rows}, at::kFloat))
            .masked_fill(accidental, -1e9);
    const at::Tensor loss = at::cross_entropy_loss(logits, at::arange(rows, at::kLong));
    const double value = loss.item<double>();
    if (!std::isfinite(value)) return Internal("the loss is not finite: lower the learning rate");
    loss.backward();
    ++impl_->steps;
    for (TowerNet* net : {&impl_->item, &impl_->user}) {
      for (Parameter& parameter : net->parameters) parameter.Step(learning_rate, impl_->steps);
    }
    return value;
  } catch (const std::exception& e) {
    return Internal(StrCat("training step: ", e.what()));
  }
}

Result<std::vector<float>> TorchTrainer::Embed(Side side, const TowerInput& input) const {
  try {
    const at::NoGradGuard no_grad;
    const at::Tensor vectors = impl_->Of(side).Forward(input).contiguous();
    const float* begin = vectors.data_ptr<float>();
    return std::vector<float>(begin, begin + vectors.numel());
  } catch (const std::exception& e) {
    return Internal(StrCat("embedding: ", e.what()));
  }
}

std::vector<TowerParameter> TorchTrainer::Parameters(Side side) const {
  std::vector<TowerParameter> copies;
  for (const Parameter& parameter : impl_->Of(side).parameters) {
    const at::Tensor value = parameter.value.detach().contiguous();
    const float* begin = value.data_ptr<float>();
    copies.push_back({parameter.name, value.sizes().vec(), std::vector<float>(begin, begin + value.numel())});
  }
  return copies;
}

std::string TorchTrainer::ForwardSource(const TowerShape& shape, int embedding_dim) {
  return StrCat(R"(
def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
    bags = torch.embedding_bag(self.table, indices, offsets, False, 1, False, None, False)[0]
    x = torch.cat([bags.reshape([dense.size(0), )",
                shape.bags * embedding_dim, R"(]), dense], 1)
    hidden = torch.relu(torch.addmm(self.b1, x, self.w1))
    out = torch.addmm(self.b2, hidden, self.w2) + torch.mm(x, self.skip)
    return out / torch.clamp_min(torch.norm(out, 2, [1], True), 1e-12)
)");
}

}  // namespace freshet
