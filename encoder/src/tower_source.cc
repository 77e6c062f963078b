#include "tower_source.h"

#include <cmath>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

double He(std::int64_t fan_in, double gain) { return std::sqrt(gain / static_cast<double>(fan_in)); }

bool ReadsSequence(const TowerDesign& design) {
  return design.pooling == Pooling::kGru || design.pooling == Pooling::kSelfAttention;
}

std::string Dropout(const TowerDesign& design, bool training, const std::string& value) {
  if (!training || design.dropout <= 0) return value;
  return StrCat("torch.dropout(", value, ", ", design.dropout, ", True)");
}

// For each index its bag and its place in it; a history is newest first, so there the place is the age.
constexpr const char* kPlaces = R"(    total = indices.size(0)
    ends = torch.cat([offsets[1:], torch.full_like(offsets[0:1], total)])
    lengths = ends - offsets
    bag = torch.repeat_interleave(torch.arange(offsets.size(0)), lengths)
    age = torch.arange(total) - offsets.index_select(0, bag)
)";

// Sparse gradients: only the rows of a batch move.
constexpr const char* kMeans =
    "    bags = torch.embedding_bag(self.table, indices, offsets, False, 1, True, None, False)[0]\n";

std::string AttentionSource(const TowerDesign& design) {
  return StrCat("    rows = torch.embedding(self.table, indices, -1, False, True)\n", kPlaces,
                "    place = torch.clamp(age, 0, ", design.history - 1,
                ")\n    elsewhere = torch.ne(torch.remainder(bag, ", design.shape.bags, "), ", design.history_bag,
                R"()
    score = (torch.mv(rows, self.query) + self.recency.index_select(0, place)).masked_fill(elsewhere, 0.0)
    weight = torch.exp(torch.clamp(score, -20.0, 20.0))
    sums = torch.zeros([offsets.size(0)]).index_add(0, bag, weight)
    share = weight / sums.index_select(0, bag)
    bags = torch.zeros([offsets.size(0), )",
                design.embedding_dim, "]).index_add(0, bag, rows * share.unsqueeze(1))\n");
}

// `seq` [rows, steps, embedding_dim]: the histories, padded with zeros to the longest of the batch; `count` says how
// much of each is real. Only real places are looked up, so padding moves no row of the table.
std::string SequenceSource(const TowerDesign& design, const std::string& place) {
  const int bags = design.shape.bags;
  return StrCat(
      kMeans, kPlaces, "    count = torch.clamp(lengths.reshape([-1, ", bags, "]).select(1, ", design.history_bag,
      "), 0, ", design.history,
      ")\n    steps = max(int(count.max()), 1)\n    batch = count.size(0)\n"
      "    real = torch.logical_and(torch.eq(torch.remainder(bag, ",
      bags, "), ", design.history_bag, "), torch.lt(age, ", design.history,
      "))\n    where = torch.nonzero(real).squeeze(1)\n    row = torch.floor_divide(bag.index_select(0, where), ", bags,
      ")\n    age = age.index_select(0, where)\n    place = row * steps + ", place,
      "\n    taken = torch.embedding(self.table, indices.index_select(0, where), -1, False, True)\n"
      "    seq = torch.zeros([batch * steps, ",
      design.embedding_dim, "]).index_copy(0, place, taken).reshape([batch, steps, ", design.embedding_dim, "])\n");
}

// Oldest first, so that padding comes after what is read and changes nothing.
std::string GruSource(const TowerDesign& design, bool training) {
  const int width = design.embedding_dim;
  return StrCat(SequenceSource(design, "count.index_select(0, row) - 1 - age"),
                "    seq = ", Dropout(design, training, "seq"), "\n    states = torch.gru(seq, torch.zeros([1, batch, ",
                width,
                "]), [self.gru_in, self.gru_state, self.gru_in_bias, self.gru_state_bias], True, 1, 0.0, False, False, "
                "True)[0]\n    newest = torch.arange(batch) * steps + torch.clamp(count - 1, 0)\n"
                "    sequence = states.reshape([batch * steps, ",
                width, "]).index_select(0, newest)\n");
}

// Newest first: the position is the age, and a query sees itself and what is older. Only the newest place is read, so
// the last block computes no other.
std::string SelfAttentionSource(const TowerDesign& design, bool training) {
  const int width = design.embedding_dim;
  const int head = width / design.heads;
  std::string source = StrCat(SequenceSource(design, "age"),
                              "    x = ", Dropout(design, training, "(seq + self.position[0:steps].unsqueeze(0))"),
                              R"(
    ages = torch.arange(steps)
    padding = torch.ge(ages.unsqueeze(0), count.unsqueeze(1))
    newer = torch.lt(ages.unsqueeze(0), ages.unsqueeze(1))
    hide = torch.logical_or(padding.unsqueeze(1), newer.unsqueeze(0)).unsqueeze(1)
)");
  for (int block = 0; block < design.blocks; ++block) {
    const auto own = [&](const char* name) { return StrCat("self.block", block, "_", name); };
    const auto heads = [&](const std::string& value, const char* matrix) {
      return StrCat("torch.matmul(", value, ", ", own(matrix), ").reshape([batch, -1, ", design.heads, ", ", head,
                    "]).transpose(1, 2)");
    };
    const bool last = block == design.blocks - 1;
    source += StrCat("    normal = torch.layer_norm(x, [", width, "], ", own("norm1"), ", ", own("norm1_bias"),
                     ", 1e-5)\n    key = ", heads("normal", "key"), "\n    value = ", heads("normal", "value"), "\n");
    if (last) source += "    x = x[:, 0:1]\n    normal = normal[:, 0:1]\n    hide = hide[:, :, 0:1]\n";
    const std::string scale = StrCat(1 / std::sqrt(static_cast<double>(head)));
    source +=
        StrCat("    query = ", heads("normal", "query"), "\n    score = torch.matmul(query, key.transpose(2, 3)) * ",
               scale, "\n    share = torch.softmax(score.masked_fill(hide, -1e9), -1)\n",
               "    mixed = torch.matmul(share, value).transpose(1, 2).reshape([batch, -1, ", width, "])\n    x = x + ",
               Dropout(design, training, StrCat("torch.matmul(mixed, ", own("out"), ")")),
               "\n    normal = torch.layer_norm(x, [", width, "], ", own("norm2"), ", ", own("norm2_bias"),
               ", 1e-5)\n    inner = torch.relu(torch.matmul(normal, ", own("w1"), ") + ", own("b1"), ")\n    x = x + ",
               Dropout(design, training, StrCat("(torch.matmul(inner, ", own("w2"), ") + ", own("b2"), ")")), "\n");
  }
  return StrCat(source, "    sequence = torch.layer_norm(x.squeeze(1), [", width,
                "], self.norm, self.norm_bias, 1e-5)\n");
}

void AddSequenceParameters(const TowerDesign& design, std::vector<ParameterDesign>* out) {
  const std::int64_t width = design.embedding_dim;
  if (design.pooling == Pooling::kGru) {
    out->push_back({"gru_in", {3 * width, width}, He(width, 1)});
    out->push_back({"gru_state", {3 * width, width}, He(width, 1)});
    out->push_back({"gru_in_bias", {3 * width}});
    out->push_back({"gru_state_bias", {3 * width}});
    return;
  }
  out->push_back({"position", {design.history, width}, 0.05});
  for (int block = 0; block < design.blocks; ++block) {
    const auto add = [&](const char* name, std::vector<std::int64_t> shape, double deviation, double constant) {
      out->push_back({StrCat("block", block, "_", name), std::move(shape), deviation, constant});
    };
    for (const char* matrix : {"query", "key", "value", "out"}) add(matrix, {width, width}, He(width, 1), 0);
    add("norm1", {width}, 0, 1);
    add("norm1_bias", {width}, 0, 0);
    add("norm2", {width}, 0, 1);
    add("norm2_bias", {width}, 0, 0);
    add("w1", {width, width}, He(width, 2), 0);
    add("b1", {width}, 0, 0);
    add("w2", {width, width}, He(width, 1), 0);
    add("b2", {width}, 0, 0);
  }
  out->push_back({"norm", {width}, 0, 1});
  out->push_back({"norm_bias", {width}});
}

}  // namespace

std::vector<ParameterDesign> ParametersOf(const TowerDesign& design) {
  const std::int64_t width = design.embedding_dim;
  const std::int64_t inputs = (design.shape.bags + (ReadsSequence(design) ? 1 : 0)) * width + design.shape.dense;
  const std::int64_t hidden = design.hidden;
  const std::int64_t dim = design.shape.dim;
  std::vector<ParameterDesign> out = {
      {"w1", {inputs, hidden}, He(inputs, 2)},
      {"b1", {hidden}},
      {"w2", {hidden, dim}, He(hidden, 1)},
      {"b2", {dim}},
      // A linear path beside the hidden layer: matching a history with its own items needs no more than that, and
      // learns it within the first epoch.
      {"skip", {inputs, dim}, He(inputs, 1)},
  };
  if (design.pooling == Pooling::kAttention) {
    out.push_back({"query", {width}});
    out.push_back({"recency", {design.history}});
  }
  if (ReadsSequence(design)) AddSequenceParameters(design, &out);
  return out;
}

std::string ForwardSourceOf(const TowerDesign& design, const std::string& name, bool training) {
  std::string body;
  switch (design.pooling) {
    case Pooling::kMean:
      body = kMeans;
      break;
    case Pooling::kAttention:
      body = AttentionSource(design);
      break;
    case Pooling::kGru:
      body = GruSource(design, training);
      break;
    case Pooling::kSelfAttention:
      body = SelfAttentionSource(design, training);
      break;
  }
  // Whoever has no history has no sequence either.
  if (ReadsSequence(design)) body += "    sequence = sequence * torch.gt(count, 0).unsqueeze(1)\n";
  return StrCat("\ndef ", name, "(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:\n", body,
                "    x = torch.cat([bags.reshape([dense.size(0), ", design.shape.bags * design.embedding_dim, "])",
                ReadsSequence(design) ? ", sequence" : "", ", dense], 1)\n    x = ", Dropout(design, training, "x"),
                "\n    hidden = ", Dropout(design, training, "torch.relu(torch.addmm(self.b1, x, self.w1))"), R"(
    out = torch.addmm(self.b2, hidden, self.w2) + torch.mm(x, self.skip)
    return out / torch.clamp_min(torch.norm(out, 2, [1], True), 1e-12)
)");
}

}  // namespace freshet
