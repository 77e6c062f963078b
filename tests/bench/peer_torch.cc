#include "peer_torch.h"

#include <torch/script.h>
#include <torch/torch.h>

#include <cmath>
#include <span>

#include "bench.h"

namespace freshet::bench {
namespace {

template <typename T>
at::Tensor Copied(std::span<const T> values, at::IntArrayRef shape, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), shape, at::TensorOptions().dtype(type)).clone();
}

struct PeerTowers : torch::nn::Module {
  explicit PeerTowers(const PeerTrainingShape& shape)
      : ids(torch::nn::EmbeddingOptions(shape.items, shape.embedding_dim)),
        words(torch::nn::EmbeddingBagOptions(shape.words, shape.embedding_dim).mode(torch::kMean)),
        history(torch::nn::EmbeddingBagOptions(shape.items, shape.embedding_dim).mode(torch::kMean)),
        item(torch::nn::Linear(2 * shape.embedding_dim, shape.hidden), torch::nn::ReLU(),
             torch::nn::Linear(shape.hidden, shape.dim)),
        user(torch::nn::Linear(shape.embedding_dim, shape.hidden), torch::nn::ReLU(),
             torch::nn::Linear(shape.hidden, shape.dim)) {
    register_module("ids", ids);
    register_module("words", words);
    register_module("history", history);
    register_module("item", item);
    register_module("user", user);
  }
  torch::nn::Embedding ids;
  torch::nn::EmbeddingBag words;
  torch::nn::EmbeddingBag history;
  torch::nn::Sequential item;
  torch::nn::Sequential user;
};

at::Tensor Unit(const at::Tensor& rows) { return rows / at::clamp_min(at::norm(rows, 2, {1}, true), 1e-12); }

}  // namespace

double PeerTorchRowRate(const std::string& tower_file, const TowerInput& input, int repeats) {
  const c10::InferenceMode inference;
  torch::jit::Module module = torch::jit::load(tower_file);
  module.eval();
  module = torch::jit::freeze(module);
  const auto count = [](const auto& values) { return static_cast<std::int64_t>(values.size()); };
  const std::vector<c10::IValue> arguments = {
      Copied(std::span(input.indices), {count(input.indices)}, at::kLong),
      Copied(std::span(input.offsets), {count(input.offsets)}, at::kLong),
      Copied(std::span(input.dense), {input.rows, count(input.dense) / input.rows}, at::kFloat)};
  for (int i = 0; i < 5; ++i) module.forward(arguments);
  const double begin = CpuSeconds();
  for (int i = 0; i < repeats; ++i) module.forward(arguments);
  return static_cast<double>(input.rows) * repeats / std::max(CpuSeconds() - begin, 1e-9);
}

double PeerTorchPairRate(const PeerTrainingShape& shape, int steps) {
  torch::manual_seed(1);
  PeerTowers towers(shape);
  torch::optim::Adam adam(towers.parameters(), torch::optim::AdamOptions(1e-3));
  const auto offsets = [&](int each) { return at::arange(0, std::int64_t{shape.batch} * each, each, at::kLong); };
  const at::Tensor own = at::arange(shape.batch, at::kLong);
  double begin = 0;
  for (int step = -2; step < steps; ++step) {
    if (step == 0) begin = ProcessCpuSeconds();
    const at::Tensor ids = at::randint(shape.items, {shape.batch}, at::kLong);
    const at::Tensor words = at::randint(shape.words, {std::int64_t{shape.batch} * shape.words_per_item}, at::kLong);
    const at::Tensor before = at::randint(shape.items, {std::int64_t{shape.batch} * shape.history}, at::kLong);
    const at::Tensor items = Unit(towers.item->forward(
        at::cat({towers.ids->forward(ids), towers.words->forward(words, offsets(shape.words_per_item))}, 1)));
    const at::Tensor users = Unit(towers.user->forward(towers.history->forward(before, offsets(shape.history))));
    const at::Tensor loss = at::cross_entropy_loss(at::mm(users, items.t()) / 0.07, own);
    adam.zero_grad();
    loss.backward();
    adam.step();
  }
  return static_cast<double>(shape.batch) * steps / std::max(ProcessCpuSeconds() - begin, 1e-9);
}

}  // namespace freshet::bench
