#include "training_report.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <unordered_map>

#include "embedding_map.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/package.h"
#include "package_writer.h"
#include "report_svg.h"

namespace freshet {
namespace {

constexpr std::size_t kEncodeRows = 1024;
constexpr std::size_t kSamples = 12;      // items whose neighbours are shown
constexpr std::size_t kNeighbours = 5;    // of each
constexpr std::size_t kMapPoints = 2500;  // the most popular
constexpr std::size_t kMapGroups = 8;
constexpr std::size_t kGroupWord = 4;  // characters of a word that colours items
constexpr std::size_t kMaxName = 80;   // characters of a name on the page
constexpr const char* kModelName = "model";
constexpr int kResamples = 300;  // of the bootstrap: the page shows three digits

// Light and dark, without a script.
constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1c2128; --paper: #ffffff; --faint: #6b7480; --rule: #d9dee4; --hit: #eef4fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --paper: #15191e; --faint: #98a2ad; --rule: #333b44; --hit: #1d2a38; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 960px; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; } h3 { font-size: 15px; margin: 18px 0 4px; }
p { margin: 6px 0; } .faint { color: var(--faint); }
.charts { display: flex; flex-wrap: wrap; gap: 20px; } .charts svg { flex: 1 1 420px; max-width: 100%; }
svg { width: 100%; height: auto; border: 1px solid var(--rule); border-radius: 6px; }
svg text { font: 12px system-ui, sans-serif; fill: var(--faint); } svg text[fill] { fill: revert-layer; }
svg text.title { font-weight: 600; fill: var(--ink); } svg .grid { stroke: var(--rule); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 4px 8px; border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums;
  white-space: nowrap; } th { font-weight: 600; color: var(--faint); }
th:first-child, td:first-child { text-align: left; } tr.model td { background: var(--hit); font-weight: 600; }
.near td, .near th { text-align: left; white-space: normal; vertical-align: top; }
.near td:first-child { width: 34%; font-weight: 600; } .score { color: var(--faint); font-weight: 400; }
)";

std::string Shortened(const std::string& text) {
  if (text.size() <= kMaxName) return text;
  std::size_t end = kMaxName;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not within a character
  return text.substr(0, end) + "…";
}

// "recall_at_10" as a heading: "recall@10".
std::string Heading(std::string text) {
  const std::size_t at = text.find("_at_");
  if (at != std::string::npos) text.replace(at, 4, "@");
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

std::string Curves(const ReportContents& contents) {
  ChartLine loss{"loss", {}};
  ChartLine recall{"model", {}};
  for (const EpochRecord& one : contents.training->epochs) {
    loss.values.push_back(one.loss);
    recall.values.push_back(one.recall);
  }
  const std::string name = StrCat("recall@", contents.options->validation_k, " on validation");
  return StrCat(
      "<div class=\"charts\">", LineChart("training loss", {loss}, contents.training->best_epoch),
      LineChart(name, {recall, {"popularity", {contents.training->popularity_recall}}}, contents.training->best_epoch),
      "</div><p class=\"faint\">The ring is the epoch that was kept.</p>");
}

// What fits a page: recall and NDCG at each K, the hit rate at the first, MRR. The rest is `freshet evaluate`'s.
std::vector<std::size_t> Columns(const EvaluationSlice& slice) {
  std::vector<std::size_t> columns;
  bool hit_rate = false;
  for (std::size_t i = 0; i < slice.metrics.size(); ++i) {
    const std::string& metric = slice.metrics[i];
    const bool first_hit_rate = metric.starts_with("hit_rate") && !hit_rate;
    hit_rate = hit_rate || first_hit_rate;
    if (first_hit_rate || metric.starts_with("recall") || metric.starts_with("ndcg") || metric == "mrr") {
      columns.push_back(i);
    }
  }
  return columns;
}

std::string Table(const EvaluationSlice& slice) {
  const std::vector<std::size_t> columns = Columns(slice);
  std::string out =
      StrCat("<h3>", HtmlEscape(slice.name), " <span class=\"faint\">", slice.users, " users, ", slice.interactions,
             " interactions</span></h3><div class=\"wide\"><table><tr><th>system</th>");
  for (const std::size_t column : columns) out += StrCat("<th>", HtmlEscape(Heading(slice.metrics[column])), "</th>");
  // Recall at the largest K decides; it stands five from the end.
  const std::size_t decides = slice.metrics.size() - 5;
  out += "<th>× popularity</th></tr>";
  for (const SystemResult& system : slice.systems) {
    out +=
        StrCat(system.name == kModelName ? "<tr class=\"model\">" : "<tr>", "<td>", HtmlEscape(system.name), "</td>");
    for (const std::size_t column : columns) {
      const Measured& one = system.metrics[column];
      out += StrCat("<td title=\"95%: ", NumberText(one.low, 4), " to ", NumberText(one.high, 4), "\">",
                    NumberText(one.value, 4), "</td>");
    }
    const Measured& ratio = system.ratio_to_popularity[decides];
    out += ratio.value > 0 ? StrCat("<td>", NumberText(ratio.value, 2), " <span class=\"faint\">[",
                                    NumberText(ratio.low, 2), ", ", NumberText(ratio.high, 2), "]</span></td>")
                           : "<td></td>";
    out += "</tr>";
  }
  return out + "</table></div>";
}

std::string Tables(const EvaluationReport& judged) {
  std::string out;
  for (const EvaluationTable& table : judged.tables) {
    for (const EvaluationSlice& slice : table.slices) {
      if (slice.users > 0) out += Table(slice);
    }
    out += StrCat("<p class=\"faint\">Recommendation recall over ", judged.items, " candidates, seen items ",
                  table.seen_masked ? "masked" : "kept",
                  "; × popularity: recall at the largest K over popularity's, with its 95% interval.</p>");
  }
  return out;
}

std::vector<std::size_t> ByPopularity(const TrainingData& data) {
  std::vector<std::size_t> order(data.items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return data.item_counts[a] > data.item_counts[b]; });
  return order;
}

// From the most popular to the least, evenly, and the last among what training never saw: that is what content brings.
std::vector<std::size_t> Samples(const TrainingData& data, const std::vector<std::size_t>& order) {
  const auto known = static_cast<std::size_t>(
      std::count_if(data.item_counts.begin(), data.item_counts.end(), [](std::int64_t n) { return n > 0; }));
  std::vector<std::size_t> samples;
  const std::size_t wanted = std::min(kSamples, order.size());
  const std::size_t cold = std::min(order.size() - known, wanted / 4);
  for (std::size_t i = 0; i < std::min(wanted - cold, known); ++i) {
    samples.push_back(order[i * known / std::min(wanted - cold, known)]);
  }
  for (std::size_t i = 0; i < cold; ++i) samples.push_back(order[known + i * (order.size() - known) / cold]);
  return samples;
}

std::string Neighbours(const ReportContents& contents, const std::vector<std::size_t>& order) {
  const TrainingData& data = *contents.data;
  const auto dim = static_cast<std::size_t>(contents.options->dim);
  std::string out =
      "<div class=\"wide\"><table class=\"near\"><tr><th>item</th><th>nearest in the embedding space</th></tr>";
  for (const std::size_t item : Samples(data, order)) {
    const std::int64_t count = data.item_counts[item];
    out += StrCat("<tr><td>", HtmlEscape(Shortened(ItemName(data.items[item]))), " <span class=\"score\">",
                  count > 0 ? StrCat(count, " interactions") : "never seen in training", "</span></td><td>");
    for (const Neighbour& one : NearestRows(contents.item_vectors, dim, item, kNeighbours)) {
      out += StrCat(HtmlEscape(Shortened(ItemName(data.items[one.row]))), " <span class=\"score\">",
                    NumberText(static_cast<double>(one.score), 2), "</span><br>");
    }
    out += "</td></tr>";
  }
  return out + "</table></div>";
}

// Where nothing else parts the items: of each the most frequent longer word of its text.
std::vector<std::string> FrequentWords(const TrainingData& data, const FeatureDef& text) {
  std::unordered_map<std::string_view, std::size_t> ranks;
  for (const std::string& word : text.vocabulary) {
    if (word.size() >= kGroupWord) ranks.emplace(word, ranks.size());
  }
  std::vector<std::string> words(data.items.size());
  std::string lowered;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::size_t best = ranks.size();
    for (const auto& [name, value] : data.items[i].features) {
      const auto* content = std::get_if<std::string>(&value);
      if (name != text.name || content == nullptr) continue;
      ForEachToken(*content, &lowered, [&](std::string_view word) {
        const auto found = ranks.find(word);
        if (found == ranks.end() || found->second >= best) return true;
        best = found->second;
        words[i] = word;
        return true;
      });
    }
  }
  return words;
}

// What colours an item: its category, the first of its values of another feature with a vocabulary, or a word.
std::vector<std::string> Kinds(const TrainingData& data) {
  std::string chosen;
  for (const FeatureDef& def : data.item_spec.features) {
    const bool words = def.kind == FeatureKind::kCategorical || def.kind == FeatureKind::kMultiValued;
    if (words && def.name != "item_id" && (chosen.empty() || def.name == "category")) chosen = def.name;
  }
  if (chosen.empty()) {
    for (const FeatureDef& def : data.item_spec.features) {
      if (def.kind == FeatureKind::kText) return FrequentWords(data, def);
    }
  }
  std::vector<std::string> kinds(data.items.size());
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    for (const auto& [name, value] : data.items[i].features) {
      if (name != chosen) continue;
      if (const auto* text = std::get_if<std::string>(&value)) kinds[i] = *text;
      const auto* list = std::get_if<std::vector<std::string>>(&value);
      if (list != nullptr && !list->empty()) kinds[i] = list->front();
    }
  }
  return kinds;
}

std::string Map(const ReportContents& contents, const std::vector<std::size_t>& order) {
  const TrainingData& data = *contents.data;
  const auto dim = static_cast<std::size_t>(contents.options->dim);
  const std::size_t count = std::min(order.size(), kMapPoints);
  std::vector<float> rows;
  for (std::size_t i = 0; i < count; ++i) {
    const auto begin = contents.item_vectors.begin() + static_cast<std::ptrdiff_t>(order[i] * dim);
    rows.insert(rows.end(), begin, begin + static_cast<std::ptrdiff_t>(dim));
  }
  const std::vector<std::string> kinds = Kinds(data);
  std::map<std::string, std::size_t> sizes;
  for (std::size_t i = 0; i < count; ++i) {
    if (!kinds[order[i]].empty()) ++sizes[kinds[order[i]]];
  }
  std::vector<std::pair<std::size_t, std::string>> largest;
  for (const auto& [kind, size] : sizes) largest.emplace_back(size, kind);
  std::stable_sort(largest.begin(), largest.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  if (largest.size() > kMapGroups) largest.resize(kMapGroups);
  std::vector<std::string> groups;
  for (const auto& [size, kind] : largest) groups.push_back(Shortened(kind));

  const PlaneMap plane = PrincipalPlane(rows, dim);
  std::vector<MapPoint> points;
  for (std::size_t i = 0; i < count; ++i) {
    const auto found =
        std::find_if(largest.begin(), largest.end(), [&](const auto& one) { return one.second == kinds[order[i]]; });
    points.push_back({plane.points[i].first, plane.points[i].second, static_cast<std::size_t>(found - largest.begin()),
                      Shortened(ItemName(data.items[order[i]]))});
  }
  return StrCat(ScatterMap(points, groups), "<p class=\"faint\">", count == order.size() ? "All " : "The most popular ",
                count, " items on the first two principal components, which carry ", NumberText(100 * plane.share, 0),
                "% of the variance; the rest of the structure is not on this plane. Names under the pointer.</p>");
}

}  // namespace

std::string ItemName(const ItemUpdate& item) {
  std::string other;
  for (const char* wanted : {"title", "name", "description"}) {
    for (const auto& [name, value] : item.features) {
      const auto* text = std::get_if<std::string>(&value);
      if (text == nullptr || text->empty()) continue;
      if (name == wanted) return *text;
      if (other.empty() && name != "category") other = *text;
    }
  }
  return other.empty() ? item.item_id : other;
}

std::string TrainingReportHtml(const ReportContents& contents) {
  const TrainOptions& options = *contents.options;
  const TrainReport& training = *contents.training;
  const std::vector<std::size_t> order = ByPopularity(*contents.data);
  std::string page = StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>",
      HtmlEscape(options.name), "</title><style>", kStyle, "</style></head><body>\n<h1>", HtmlEscape(options.name),
      "</h1><p class=\"faint\">version ", HtmlEscape(options.version), " · embedding space ",
      HtmlEscape(training.space_id), " · dimension ", options.dim, " · history by ", HtmlEscape(options.pooling),
      "</p>\n<p>Trained on ", training.train_pairs, " interactions of ", training.users, " users with ", training.items,
      " items. Epoch ", training.best_epoch, " of ", training.epochs.size(), " was kept: recall@", options.validation_k,
      " ", NumberText(training.recall, 4), " for ", training.validation_users, " validation users, popularity ",
      NumberText(training.popularity_recall, 4), ".</p>\n");
  page += "<h2>Training</h2>" + Curves(contents);
  if (contents.judged != nullptr) {
    page += "<h2>Beside the baselines, on the validation part</h2>" + Tables(*contents.judged) + "<p class=\"faint\">";
    if (contents.judged->drawn_users < contents.judged->judged_users) {
      page += StrCat("Judged by ", contents.judged->drawn_users, " of its ", contents.judged->judged_users,
                     " users, drawn by chance. ");
    }
    page +=
        "The epoch was chosen on this part, so these figures are no test: <code>freshet "
        "evaluate</code> judges on what neither training nor any choice has seen.</p>";
  }
  page += "<h2>Nearest neighbours</h2>" + Neighbours(contents, order);
  page += "<h2>Map of the items</h2>" + Map(contents, order);
  return page + "</body></html>\n";
}

Result<std::string> WriteTrainingReport(const TrainOptions& options, const TrainReport& training,
                                        const TrainingData& data,
                                        const std::function<void(double, const std::string&)>& progress,
                                        std::int64_t max_users) {
  ReportContents contents{&options, &training, &data, nullptr, {}};
  FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package,
                 OpenModelPackage({options.out_directory, "", options.threads}));
  FRESHET_ASSIGN(const std::unique_ptr<ItemEncoder> encoder, package->LoadItemEncoder());
  const auto dim = static_cast<std::size_t>(options.dim);
  contents.item_vectors.resize(data.items.size() * dim);
  for (std::size_t begin = 0; begin < data.items.size(); begin += kEncodeRows) {
    std::vector<const ItemUpdate*> batch;
    const std::size_t end = std::min(begin + kEncodeRows, data.items.size());
    for (std::size_t i = begin; i < end; ++i) batch.push_back(&data.items[i]);
    FRESHET_TRY(encoder->Encode(batch, std::span(contents.item_vectors).subspan(begin * dim, batch.size() * dim)));
  }
  EvaluateOptions judge;
  judge.items_file = options.items_file;
  judge.interactions_file = options.interactions_file;
  judge.users_file = options.users_file;
  judge.schemas = options.schemas;
  judge.until_ms = options.until_ms;
  judge.split = options.split;
  judge.judge_validation = true;
  judge.models = {{kModelName, options.out_directory}};
  judge.ks = {10};
  if (options.validation_k != 10) judge.ks.push_back(options.validation_k);
  std::sort(judge.ks.begin(), judge.ks.end());
  judge.mask_seen = {options.mask_seen};
  judge.max_users = max_users;
  judge.resamples = kResamples;
  judge.seed = options.seed;
  judge.threads = options.threads;
  FRESHET_ASSIGN(const EvaluationReport judged, Evaluate(judge, progress));
  contents.judged = &judged;
  const std::string path = PathBeside(options.out_directory, ".report.html");
  FRESHET_TRY(WriteFileAtomically(path, TrainingReportHtml(contents)));
  return path;
}

}  // namespace freshet
