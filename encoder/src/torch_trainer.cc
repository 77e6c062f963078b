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
  int attention_bag = -1;
  double dropout = 0;
  std::vector<Parameter> parameters;

  TowerNet(const TowerShape& tower_shape, const TrainerOptions& options, int attention, const at::Generator& random)
      : shape(tower_shape), attention_bag(attention), dropout(options.dropout) {
    const std::int64_t inputs = std::int64_t{shape.bags} * options.embedding_dim + shape.dense;
    const auto matrix = [&](std::int64_t rows, std::int64_t columns, double deviation) {
      return at::empty({rows, columns}, at::kFloat).normal_(0, deviation, random);
    };
    const auto he = [](std::int64_t fan_in, double gain) { return std::sqrt(gain / static_cast<double>(fan_in)); };
    parameters.emplace_back("w1", matrix(inputs, options.hidden, he(inputs, 2)), false);
    parameters.emplace_back("b1", at::zeros({options.hidden}), false);
    parameters.emplace_back("w2", matrix(options.hidden, shape.dim, he(options.hidden, 1)), false);
    parameters.emplace_back("b2", at::zeros({shape.dim}), false);
    // A linear path beside the hidden layer: matching a history with its own items needs no more than that, and learns
    // it within the first epoch.
    parameters.emplace_back("skip", matrix(inputs, shape.dim, he(inputs, 1)), false);
    if (attention_bag < 0) return;
    parameters.emplace_back("query", at::zeros({options.embedding_dim}), false);
    parameters.emplace_back("recency", at::zeros({options.history}), false);
  }

  // Softmax within the history over what an item is and how long ago it was taken; a mean elsewhere.
  [[nodiscard]] at::Tensor Attend(const at::Tensor& table, const at::Tensor& indices, const at::Tensor& offsets) const {
    const at::Tensor rows = at::embedding(table, indices, -1, false, true);
    const at::Tensor ends = at::cat({offsets.slice(0, 1), at::full({1}, indices.size(0), at::kLong)});
    const at::Tensor bag = at::repeat_interleave(at::arange(offsets.size(0), at::kLong), ends - offsets);
    const at::Tensor& recency = parameters[6].value;
    const at::Tensor age =
        at::clamp(at::arange(indices.size(0), at::kLong) - offsets.index_select(0, bag), 0, recency.size(0) - 1);
    const at::Tensor here = at::eq(at::remainder(bag, shape.bags), attention_bag).to(at::kFloat);
    const at::Tensor score = here * (at::mv(rows, parameters[5].value) + recency.index_select(0, age));
    const at::Tensor weight = at::exp(at::clamp(score, -20, 20));
    const at::Tensor sums = at::zeros({offsets.size(0)}).index_add(0, bag, weight);
    const at::Tensor share = weight / sums.index_select(0, bag);
    return at::zeros({offsets.size(0), table.size(1)}).index_add(0, bag, rows * share.unsqueeze(1));
  }

  // `row_of` moves the tower's rows to those of the table.
  [[nodiscard]] at::Tensor Forward(const at::Tensor& table, const at::Tensor& row_of, const TowerInput& input,
                                   bool training) const {
    const at::Tensor indices = row_of.index_select(
        0, View(std::span(input.indices), {static_cast<std::int64_t>(input.indices.size())}, at::kLong));
    const at::Tensor offsets =
        View(std::span(input.offsets), {static_cast<std::int64_t>(input.offsets.size())}, at::kLong);
    const at::Tensor dense = View(std::span(input.dense), {input.rows, shape.dense}, at::kFloat);
    const at::Tensor bags = attention_bag >= 0
                                ? Attend(table, indices, offsets)
                                : std::get<0>(at::embedding_bag(table, indices, offsets, false, 1, true, {}, false));
    at::Tensor x = at::cat({bags.reshape({input.rows, shape.bags * table.size(1)}), dense}, 1);
    x = at::dropout(x, dropout, training && dropout > 0);
    const at::Tensor hidden =
        at::dropout(at::relu(at::addmm(parameters[1].value, x, parameters[0].value)), dropout, training && dropout > 0);
    const at::Tensor out = at::addmm(parameters[3].value, hidden, parameters[2].value) + at::mm(x, parameters[4].value);
    return out / at::clamp_min(at::norm(out, 2, {1}, true), 1e-12);
  }
};

}  // namespace

// The rows of both towers stand in one table, so that they can be shared.
struct TorchTrainer::Impl {
  TrainerOptions options;
  TowerNet item;
  TowerNet user;
  Parameter table;
  at::Tensor item_rows;
  at::Tensor user_rows;
  std::int64_t steps = 0;

  [[nodiscard]] const TowerNet& Of(Side side) const { return side == Side::kItem ? item : user; }
  [[nodiscard]] const at::Tensor& RowsOf(Side side) const { return side == Side::kItem ? item_rows : user_rows; }
  [[nodiscard]] at::Tensor Forward(Side side, const TowerInput& input, bool training) const {
    return Of(side).Forward(table.value, RowsOf(side), input, training);
  }
};

TorchTrainer::TorchTrainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TorchTrainer::~TorchTrainer() = default;

Result<std::unique_ptr<TorchTrainer>> TorchTrainer::Create(const TrainerOptions& options, const TowerShape& item,
                                                           const TowerShape& user) {
  try {
    at::manual_seed(options.seed);  // dropout draws from the global generator
    const at::Generator random = at::detail::createCPUGenerator(options.seed);
    const std::int64_t rows = item.table_rows + user.table_rows;
    Parameter table("table", at::empty({rows, options.embedding_dim}, at::kFloat).normal_(0, kInitialDeviation, random),
                    true);
    TowerNet item_net(item, options, -1, random);
    TowerNet user_net(user, options, options.attention_bag, random);
    const at::Tensor item_rows = at::arange(item.table_rows, at::kLong);
    at::Tensor user_rows = at::arange(item.table_rows, rows, at::kLong);
    for (std::size_t i = 0; i < options.shared_rows.size(); ++i) {
      if (options.shared_rows[i] >= 0) user_rows.data_ptr<std::int64_t>()[i] = options.shared_rows[i];
    }
    return std::unique_ptr<TorchTrainer>(new TorchTrainer(std::make_unique<Impl>(
        Impl{options, std::move(item_net), std::move(user_net), std::move(table), item_rows, user_rows})));
  } catch (const std::exception& e) {
    return Internal(StrCat("the towers cannot be made: ", e.what()));
  }
}

Result<double> TorchTrainer::Step(const TowerInput& users, const TrainingBatch& batch, double learning_rate) {
  try {
    const std::int64_t rows = users.rows;
    const std::int64_t columns = batch.items.rows;
    const at::Tensor user_vectors = impl_->Forward(Side::kUser, users, true);
    const at::Tensor item_vectors = impl_->Forward(Side::kItem, batch.items, true);
    const at::Tensor numbers = View(std::span(batch.numbers), {columns}, at::kLong);
    const at::Tensor targets = View(std::span(batch.targets), {rows}, at::kLong);
    const at::Tensor weights = View(std::span(batch.weights), {rows}, at::kFloat);
    // The same item in another column is no negative.
    const at::Tensor accidental = at::eq(numbers.unsqueeze(0), numbers.index_select(0, targets).unsqueeze(1))
                                      .scatter_(1, targets.unsqueeze(1), false);
    const at::Tensor logits = (at::mm(user_vectors, item_vectors.t()) / impl_->options.temperature -
                               View(std::span(batch.log_q), {1, columns}, at::kFloat))
                                  .masked_fill(accidental, -1e9);
    const at::Tensor losses = at::cross_entropy_loss(logits, targets, {}, at::Reduction::None);
    const at::Tensor loss = at::sum(losses * weights) / at::sum(weights);
    const double value = loss.item<double>();
    if (!std::isfinite(value)) return Internal("the loss is not finite: lower the learning rate");
    loss.backward();
    ++impl_->steps;
    impl_->table.Step(learning_rate, impl_->steps);
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
    const at::Tensor vectors = impl_->Forward(side, input, false).contiguous();
    const float* begin = vectors.data_ptr<float>();
    return std::vector<float>(begin, begin + vectors.numel());
  } catch (const std::exception& e) {
    return Internal(StrCat("embedding: ", e.what()));
  }
}

std::vector<TowerParameter> TorchTrainer::Parameters(Side side) const {
  const auto copy = [](const std::string& name, const at::Tensor& parameter) {
    const at::Tensor value = parameter.detach().contiguous();
    const float* begin = value.data_ptr<float>();
    return TowerParameter{name, value.sizes().vec(), std::vector<float>(begin, begin + value.numel())};
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
  const TowerNet& net = impl_->Of(side);
  const int width = impl_->options.embedding_dim;
  const std::string pooled =
      net.attention_bag < 0
          ? "    bags = torch.embedding_bag(self.table, indices, offsets, False, 1, False, None, False)[0]\n"
          : StrCat(R"(    rows = torch.embedding(self.table, indices)
    total = indices.size(0)
    ends = torch.cat([offsets[1:], torch.full_like(offsets[0:1], total)])
    bag = torch.repeat_interleave(torch.arange(offsets.size(0)), ends - offsets)
    age = torch.clamp(torch.arange(total) - offsets.index_select(0, bag), 0, )",
                   impl_->options.history - 1, R"()
    elsewhere = torch.ne(torch.remainder(bag, )",
                   net.shape.bags, "), ", net.attention_bag, R"()
    score = (torch.mv(rows, self.query) + self.recency.index_select(0, age)).masked_fill(elsewhere, 0.0)
    weight = torch.exp(torch.clamp(score, -20.0, 20.0))
    sums = torch.zeros([offsets.size(0)]).index_add(0, bag, weight)
    share = weight / sums.index_select(0, bag)
    bags = torch.zeros([offsets.size(0), )",
                   width, R"(]).index_add(0, bag, rows * share.unsqueeze(1))
)");
  return StrCat(R"(
def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
)",
                pooled, "    x = torch.cat([bags.reshape([dense.size(0), ", net.shape.bags * width, R"(]), dense], 1)
    hidden = torch.relu(torch.addmm(self.b1, x, self.w1))
    out = torch.addmm(self.b2, hidden, self.w2) + torch.mm(x, self.skip)
    return out / torch.clamp_min(torch.norm(out, 2, [1], True), 1e-12)
)");
}

}  // namespace freshet
