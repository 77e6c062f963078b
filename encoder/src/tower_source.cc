#include "tower_source.h"

#include <cmath>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

double He(std::int64_t fan_in, double gain) { return std::sqrt(gain / static_cast<double>(fan_in)); }

std::string Dropout(const TowerDesign& design, Forward forward, const std::string& value) {
  if (forward == Forward::kServing || design.dropout <= 0) return value;
  return StrCat("torch.dropout(", value, ", ", design.dropout, ", True)");
}

// For each index its bag and its place in it; a history is newest first, so there the place is the age. What a script
// makes itself it makes where its input is, so that it runs on whatever device it is loaded onto.
constexpr const char* kPlaces = R"(    total = indices.size(0)
    ends = torch.cat([offsets[1:], torch.full_like(offsets[0:1], total)])
    lengths = ends - offsets
    bag = torch.repeat_interleave(torch.arange(offsets.size(0), device=indices.device), lengths)
    age = torch.arange(total, device=indices.device) - offsets.index_select(0, bag)
)";

// Sparse gradients: only the rows of a batch move.
constexpr const char* kMeans =
    "    bags = torch.embedding_bag(self.table, indices, offsets, False, 1, True, None, False)[0]\n";

// Each item of the history counts by what lies beside it and, where it is attention, by itself and its age.
std::string AttentionSource(const TowerDesign& design) {
  const bool attention = design.pooling == Pooling::kAttention;
  std::string told = "rows";
  std::string source = StrCat("    rows = torch.embedding(self.table, indices, -1, False, True)\n", kPlaces);
  if (attention) source += StrCat("    place = torch.clamp(age, 0, ", design.history - 1, ")\n");
  source +=
      StrCat("    elsewhere = torch.ne(torch.remainder(bag, ", design.shape.bags, "), ", design.history_bag, ")\n");
  if (design.history_beside > 0) {
    told = "told";
    source += StrCat(
        "    where = torch.nonzero(torch.logical_not(elsewhere)).squeeze(1)\n    owner = bag.index_select(0, where)\n"
        "    nth = age.index_select(0, where)\n    told = ",
        attention ? "rows" : "torch.zeros_like(rows)", "\n");
    for (int beside = 1; beside <= design.history_beside; ++beside) {
      source += StrCat("    told = told.index_add(0, where, rows.index_select(0, offsets.index_select(0, owner + ",
                       beside, ") + nth))\n");
    }
  }
  return StrCat(source, "    score = (torch.mv(", told, ", self.query)",
                attention ? " + self.recency.index_select(0, place)" : "", R"().masked_fill(elsewhere, 0.0)
    weight = torch.exp(torch.clamp(score, -20.0, 20.0))
    sums = torch.zeros([offsets.size(0)], device=indices.device).index_add(0, bag, weight)
    share = weight / sums.index_select(0, bag)
    bags = torch.zeros([offsets.size(0), )",
                design.embedding_dim, "], device=indices.device).index_add(0, bag, rows * share.unsqueeze(1))\n");
}

// The end of the above: the n-th row of a bag beside the history belongs to its n-th item.
std::string BesideSource(const TowerDesign& design) {
  const int width = design.embedding_dim;
  const int parts = 1 + design.history_beside;
  std::string source = "    owner = bag.index_select(0, where)\n    beside = [taken]\n";
  for (int beside = 1; beside <= design.history_beside; ++beside) {
    source +=
        StrCat("    beside.append(torch.embedding(self.table, indices.index_select(0, offsets.index_select(0, owner + ",
               beside, ") + age), -1, False, True))\n");
  }
  return StrCat(source, "    wide = torch.zeros([batch * steps, ", parts * width,
                "], device=indices.device).index_copy(0, place, torch.cat(beside, 1)).reshape([batch, steps, ",
                parts * width, "])\n    seq = wide.reshape([batch, steps, ", parts, ", ", width, "]).sum(2)\n");
}

// `seq` [rows, steps, embedding_dim]: the histories, padded with zeros to the longest of the batch; `count` says how
// much of each is real. Only real places are looked up, so padding moves no row of the table. With bags beside the
// history their rows are added, and `wide` [rows, steps, (1 + beside) * embedding_dim] holds what was added up.
std::string SequenceSource(const TowerDesign& design, const std::string& place) {
  const int bags = design.shape.bags;
  return StrCat(
      kMeans, kPlaces, "    count = torch.clamp(lengths.reshape([-1, ", bags, "]).select(1, ", design.history_bag,
      "), 0, ", design.history,
      ")\n    steps = max(int(count.max()), 1)\n    batch = count.size(0)\n"
      "    real = torch.logical_and(torch.eq(torch.remainder(bag, ",
      bags, "), ", design.history_bag, "), torch.lt(age, ", design.history,
      "))\n    where = torch.nonzero(real).squeeze(1)\n    owner = torch.floor_divide(bag.index_select(0, where), ",
      bags, ")\n    age = age.index_select(0, where)\n    place = owner * steps + ", place,
      "\n    taken = torch.embedding(self.table, indices.index_select(0, where), -1, False, True)\n",
      design.history_beside > 0
          ? BesideSource(design)
          : StrCat("    seq = torch.zeros([batch * steps, ", design.embedding_dim,
                   "], device=indices.device).index_copy(0, place, taken).reshape([batch, steps, ",
                   design.embedding_dim, "])\n"));
}

// Of it the mean of a history is made, and that of each bag beside it.
const char* SummedUp(const TowerDesign& design) { return design.history_beside > 0 ? "wide" : "seq"; }

// What stands at each place, and where a reader of so many of the oldest items finds it. `target` [targets]: its row of
// `states`; `sums`: of the items up to each place.
std::string PlacesSource(const TowerDesign& design, const std::string& target, const std::string& sums) {
  const int width = design.embedding_dim;
  const int read = (1 + design.history_beside) * width;
  return StrCat(
      "    target = row * steps + torch.clamp(", target, ", 0, steps - 1)\n    some = torch.gt(read, 0).unsqueeze(1)\n",
      "    sequence = states.reshape([batch * steps, ", width, "]).index_select(0, target) * some\n    past = ", sums,
      ".reshape([batch * steps, ", read, "]).index_select(0, target) * some / torch.clamp(read, 1).unsqueeze(1)\n");
}

// Oldest first, so that padding comes after what is read and changes nothing.
std::string GruSource(const TowerDesign& design, Forward forward) {
  const int width = design.embedding_dim;
  const std::string source =
      StrCat(SequenceSource(design, "count.index_select(0, owner) - 1 - age"), "    states = torch.gru(",
             Dropout(design, forward, "seq"), ", torch.zeros([1, batch, ", width,
             "], device=indices.device), [self.gru_in, self.gru_state, self.gru_in_bias, self.gru_state_bias], True, "
             "1, 0.0, False, False, "
             "True)[0]\n");
  if (forward == Forward::kEveryPlace)
    return StrCat(source, PlacesSource(design, "read - 1", StrCat("torch.cumsum(", SummedUp(design), ", 1)")));
  return StrCat(source, "    newest = torch.arange(batch, device=indices.device) * steps + torch.clamp(count - 1, 0)\n",
                "    sequence = states.reshape([batch * steps, ", width, "]).index_select(0, newest)\n");
}

// Newest first: the place is the age, and a query sees itself and what is older. How far apart two places are moves
// their score, and nothing else of a place is known: so what a place holds does not depend on what came after it, and
// training on all of them trains what is served. Unless all are read, the last block computes the newest only.
std::string SelfAttentionSource(const TowerDesign& design, Forward forward) {
  const int width = design.embedding_dim;
  const int head = width / design.heads;
  const bool all = forward == Forward::kEveryPlace;
  std::string source = StrCat(SequenceSource(design, "age"), "    x = ", Dropout(design, forward, "seq"), R"(
    ages = torch.arange(steps, device=indices.device)
    padding = torch.ge(ages.unsqueeze(0), count.unsqueeze(1))
    apart = ages.unsqueeze(0) - ages.unsqueeze(1)
    hide = torch.logical_or(padding.unsqueeze(1), torch.lt(apart, 0).unsqueeze(0)).unsqueeze(1)
    apart = torch.clamp(apart, 0).reshape([-1])
)");
  for (int block = 0; block < design.blocks; ++block) {
    const auto own = [&](const char* name) { return StrCat("self.block", block, "_", name); };
    const auto heads = [&](const std::string& value, const char* matrix) {
      return StrCat("torch.matmul(", value, ", ", own(matrix), ").reshape([batch, -1, ", design.heads, ", ", head,
                    "]).transpose(1, 2)");
    };
    const bool newest_only = block == design.blocks - 1 && !all;
    source += StrCat("    normal = torch.layer_norm(x, [", width, "], ", own("norm1"), ", ", own("norm1_bias"),
                     ", 1e-5)\n    key = ", heads("normal", "key"), "\n    value = ", heads("normal", "value"), "\n");
    if (newest_only) {
      source += StrCat("    x = x[:, 0:1]\n    normal = normal[:, 0:1]\n    hide = hide[:, :, 0:1]\n    distance = ",
                       own("distance"), "[:, 0:steps].unsqueeze(1)\n");
    } else {
      source += StrCat("    distance = ", own("distance"), ".index_select(1, apart).reshape([", design.heads,
                       ", steps, steps])\n");
    }
    const std::string scale = StrCat(1 / std::sqrt(static_cast<double>(head)));
    source +=
        StrCat("    query = ", heads("normal", "query"), "\n    score = torch.matmul(query, key.transpose(2, 3)) * ",
               scale, " + distance.unsqueeze(0)\n    share = torch.softmax(score.masked_fill(hide, -1e9), -1)\n",
               "    mixed = torch.matmul(share, value).transpose(1, 2).reshape([batch, -1, ", width, "])\n    x = x + ",
               Dropout(design, forward, StrCat("torch.matmul(mixed, ", own("out"), ")")),
               "\n    normal = torch.layer_norm(x, [", width, "], ", own("norm2"), ", ", own("norm2_bias"),
               ", 1e-5)\n    inner = torch.relu(torch.matmul(normal, ", own("w1"), ") + ", own("b1"), ")\n    x = x + ",
               Dropout(design, forward, StrCat("(torch.matmul(inner, ", own("w2"), ") + ", own("b2"), ")")), "\n");
  }
  source += StrCat("    states = torch.layer_norm(x, [", width, "], self.norm, self.norm_bias, 1e-5)\n");
  if (!all) return StrCat(source, "    sequence = states.squeeze(1)\n");
  return StrCat(source,
                PlacesSource(design, "count.index_select(0, row) - read",
                             StrCat("torch.flip(torch.cumsum(torch.flip(", SummedUp(design), ", [1]), 1), [1])")));
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
  for (int block = 0; block < design.blocks; ++block) {
    const auto add = [&](const char* name, std::vector<std::int64_t> shape, double deviation, double constant) {
      out->push_back({StrCat("block", block, "_", name), std::move(shape), deviation, constant});
    };
    for (const char* matrix : {"query", "key", "value", "out"}) add(matrix, {width, width}, He(width, 1), 0);
    add("distance", {design.heads, design.history}, 0.05, 0);
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

// Of the parameters of a block but the first.
std::string BlockName(int block) { return StrCat("mlp", block, "_"); }

bool WeighsHistory(const TowerDesign& design) {
  return design.pooling == Pooling::kAttention || (design.pooling == Pooling::kMean && design.history_beside > 0);
}

}  // namespace

bool ReadsSequence(const TowerDesign& design) {
  return design.pooling == Pooling::kGru || design.pooling == Pooling::kSelfAttention;
}

std::vector<ParameterDesign> ParametersOf(const TowerDesign& design) {
  const std::int64_t width = design.embedding_dim;
  const std::int64_t inputs = (design.shape.bags + (ReadsSequence(design) ? 1 : 0)) * width + design.shape.dense;
  const std::int64_t hidden = design.hidden;
  const std::int64_t dim = design.shape.dim;
  const auto add_norm = [&](std::vector<ParameterDesign>* to, const std::string& block) {
    if (!design.batch_norm) return;
    to->push_back({block + "batch_scale", {hidden}, 0, 1});
    to->push_back({block + "batch_shift", {hidden}});
    to->push_back({block + "batch_mean", {hidden}, 0, 0, true});
    to->push_back({block + "batch_variance", {hidden}, 0, 1, true});
  };
  std::vector<ParameterDesign> out = {
      {"w1", {inputs, hidden}, He(inputs, 2)},
      {"b1", {hidden}},
      {"w2", {hidden, dim}, He(hidden, 1)},
      {"b2", {dim}},
      // A linear path beside the hidden layer: matching a history with its own items needs no more than that, and
      // learns it within the first epoch.
      {"skip", {inputs, dim}, He(inputs, 1)},
  };
  add_norm(&out, "");
  for (int block = 2; block <= design.layers; ++block) {
    const std::string name = BlockName(block);
    out.push_back({name + "w", {hidden, hidden}, He(hidden, 2)});
    out.push_back({name + "b", {hidden}});
    add_norm(&out, name);
  }
  if (WeighsHistory(design)) out.push_back({"query", {width}});
  if (design.pooling == Pooling::kAttention) out.push_back({"recency", {design.history}});
  if (ReadsSequence(design)) AddSequenceParameters(design, &out);
  return out;
}

std::string ForwardSourceOf(const TowerDesign& design, const std::string& name, Forward forward) {
  std::string body;
  switch (design.pooling) {
    case Pooling::kMean:
      body = WeighsHistory(design) ? AttentionSource(design) : kMeans;
      break;
    case Pooling::kAttention:
      body = AttentionSource(design);
      break;
    case Pooling::kGru:
      body = GruSource(design, forward);
      break;
    case Pooling::kSelfAttention:
      body = SelfAttentionSource(design, forward);
      break;
  }
  const int width = design.embedding_dim;
  const int bags = design.shape.bags;
  std::string inputs;
  if (forward == Forward::kEveryPlace) {
    // The bag of the history is what was read of it by then; so are those beside it.
    const int after = design.history_bag + 1 + design.history_beside;
    body += StrCat("    bags = bags.reshape([batch, ", bags * width, "]).index_select(0, row)\n");
    inputs = StrCat("bags[:, 0:", design.history_bag * width, "], past, bags[:, ", after * width,
                    ":], sequence, dense.index_select(0, row)");
  } else {
    // Whoever has no history has no sequence either.
    if (ReadsSequence(design)) body += "    sequence = sequence * torch.gt(count, 0).unsqueeze(1)\n";
    inputs = StrCat("bags.reshape([dense.size(0), ", bags * width, "])", ReadsSequence(design) ? ", sequence" : "",
                    ", dense");
  }
  // Linear, batch norm, ReLU, dropout; one after the other.
  std::string blocks;
  for (int block = 1; block <= design.layers; ++block) {
    const std::string prefix = block == 1 ? "" : BlockName(block);
    std::string hidden = block == 1 ? "torch.addmm(self.b1, x, self.w1)"
                                    : StrCat("torch.addmm(self.", prefix, "b, hidden, self.", prefix, "w)");
    if (design.batch_norm) {
      // One row has no variance.
      const std::string by_batch = forward == Forward::kServing ? "False" : "x.size(0) > 1";
      const std::string own = StrCat("self.", prefix, "batch_");
      hidden = StrCat("torch.batch_norm(", hidden, ", ", own, "scale, ", own, "shift, ", own, "mean, ", own,
                      "variance, ", by_batch, ", 0.1, 1e-5, False)");
    }
    blocks += StrCat("\n    hidden = ", Dropout(design, forward, StrCat("torch.relu(", hidden, ")")));
  }
  return StrCat("\ndef ", name, "(self, indices: Tensor, offsets: Tensor, dense: Tensor",
                forward == Forward::kEveryPlace ? ", row: Tensor, read: Tensor" : "", ") -> Tensor:\n", body,
                "    x = torch.cat([", inputs, "], 1)\n    x = ", Dropout(design, forward, "x"), blocks, R"(
    out = torch.addmm(self.b2, hidden, self.w2) + torch.mm(x, self.skip)
    return out / torch.clamp_min(torch.norm(out, 2, [1], True), 1e-12)
)");
}

}  // namespace freshet
