// `freshet evaluate`: is the model worth recalling with?
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "command_options.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/encoder/evaluation.h"
#include "index_search.h"
#include "schema_reader.h"

namespace freshet {
namespace {

struct EvaluateArguments {
  EvaluateOptions options;
  SplitArguments split;
  std::unique_ptr<ConfigFileOption> config;
  std::vector<std::string> models;
  std::vector<std::string> lists;
  std::string until;
  std::string seen = "both";
  std::size_t ef = 0;  // of the index; 0: as serving chooses it
  bool json = false;
};

// "name=path", or a path whose last part is the name.
std::pair<std::string, std::string> NameAndPath(const std::string& text) {
  const std::size_t at = text.find('=');
  if (at != std::string::npos && at > 0) return {text.substr(0, at), text.substr(at + 1)};
  const std::filesystem::path path = std::filesystem::path(text).lexically_normal();
  const std::filesystem::path last = path.has_filename() ? path.filename() : path.parent_path().filename();
  return {last.empty() ? text : last.string(), text};
}

void WriteMeasured(const std::vector<std::string>& names, const std::vector<Measured>& values, JsonWriter* out) {
  out->BeginObject();
  for (std::size_t m = 0; m < names.size(); ++m) {
    out->Key(names[m]).BeginObject().Key("value").Double(values[m].value);
    out->Key("low").Double(values[m].low).Key("high").Double(values[m].high).EndObject();
  }
  out->EndObject();
}

std::string ToJson(const EvaluationReport& report, const EvaluateOptions& options) {
  JsonWriter out;
  out.BeginObject().Key("items").Int(report.items).Key("cold_items").Int(report.cold_items);
  out.Key("train_interactions").Int(report.train_interactions);
  out.Key("history_interactions").Int(report.history_interactions);
  out.Key("judged").String(options.judge_validation ? "validation" : "test");
  out.Key("judged_interactions").Int(report.judged_interactions);
  out.Key("judged_users").Int(report.judged_users).Key("drawn_users").Int(report.drawn_users);
  out.Key("unknown_items").Int(report.unknown_items).Key("later_items").Int(report.later_items);
  out.Key("split").String(SplitKindName(options.split.kind));
  out.Key("events").BeginArray();
  for (const std::string& event : options.split.events) out.String(event);
  out.EndArray();
  out.Key("resamples").Int(options.resamples).Key("interval").Double(0.95).Key("tables").BeginArray();
  for (const EvaluationTable& table : report.tables) {
    out.BeginObject().Key("seen").String(table.seen_masked ? "masked" : "kept").Key("slices").BeginArray();
    for (const EvaluationSlice& slice : table.slices) {
      out.BeginObject().Key("slice").String(slice.name).Key("users").Int(slice.users);
      out.Key("interactions").Int(slice.interactions).Key("systems").BeginArray();
      for (const SystemResult& system : slice.systems) {
        out.BeginObject().Key("system").String(system.name).Key("metrics");
        WriteMeasured(slice.metrics, system.metrics, &out);
        out.Key("ratio_to_popularity");
        WriteMeasured(slice.metrics, system.ratio_to_popularity, &out);
        out.EndObject();
      }
      out.EndArray().EndObject();
    }
    out.EndArray().Key("breadth").BeginArray();
    for (const SystemBreadth& one : table.breadth) {
      out.BeginObject().Key("system").String(one.name).Key("coverage").Double(one.coverage);
      out.Key("mean_popularity").Double(one.mean_popularity).EndObject();
    }
    out.EndArray().EndObject();
  }
  out.EndArray().Key("ann").BeginArray();
  for (const AnnRecall& one : report.ann) {
    out.BeginObject().Key("system").String(one.system).Key("users").Int(one.users);
    for (const auto& [key, values] : {std::pair("mean", &one.recall), std::pair("lowest", &one.lowest)}) {
      out.Key(key).BeginObject();
      for (std::size_t i = 0; i < options.ks.size(); ++i) {
        out.Key(StrCat("ann_recall_at_", options.ks[i])).Double((*values)[i]);
      }
      out.EndObject();
    }
    out.EndObject();
  }
  out.EndArray().Key("seconds").Double(report.seconds).EndObject();
  return out.Take() + "\n";
}

// "recall_at_10" -> "R@10", so that a table fits a terminal.
std::string Heading(const std::string& name) {
  constexpr std::pair<const char*, const char*> kShort[] = {
      {"recall_at_", "R@"}, {"hit_rate_at_", "HR@"}, {"ndcg_at_", "NDCG@"}, {"accuracy_at_", "Acc@"}, {"mrr", "MRR"}};
  for (const auto& [prefix, text] : kShort) {
    if (name.starts_with(prefix)) return text + name.substr(std::string(prefix).size());
  }
  return name;
}

void PrintSlice(const EvaluationSlice& slice, const EvaluationTable& table) {
  constexpr int kName = 20;
  constexpr int kColumn = 9;
  std::printf("\n%s: %lld users, %lld interactions\n%-*s", slice.name.c_str(), static_cast<long long>(slice.users),
              static_cast<long long>(slice.interactions), kName, "");
  const bool all = &slice == &table.slices.front();
  for (const std::string& metric : slice.metrics) std::printf("%*s", kColumn, Heading(metric).c_str());
  std::printf(all ? "%*s%*s\n" : "\n", kColumn, "cover", kColumn, "mean pop");
  for (std::size_t s = 0; s < slice.systems.size(); ++s) {
    std::printf("%-*s", kName, slice.systems[s].name.c_str());
    for (const Measured& one : slice.systems[s].metrics) std::printf("%*.4f", kColumn, one.value);
    if (all) std::printf("%*.3f%*.1f", kColumn, table.breadth[s].coverage, kColumn, table.breadth[s].mean_popularity);
    std::printf("\n");
  }
  // Intervals for what decides: recall at the largest K.
  const std::size_t metric = slice.metrics.size() - 5;
  for (const SystemResult& system : slice.systems) {
    const Measured& value = system.metrics[metric];
    const Measured& ratio = system.ratio_to_popularity[metric];
    std::printf("  %-*s%s %.4f [%.4f, %.4f]", kName, system.name.c_str(), Heading(slice.metrics[metric]).c_str(),
                value.value, value.low, value.high);
    if (ratio.value > 0) std::printf(", %.2f [%.2f, %.2f] of popularity", ratio.value, ratio.low, ratio.high);
    std::printf("\n");
  }
}

// Apart from the tables above, whose recall is another.
void PrintAnn(const EvaluationReport& report, const EvaluateOptions& options) {
  std::printf(
      "\n== ANN recall: what the index finds of each model's own exact ranking, whatever that is worth\n\n%-20s%9s", "",
      "users");
  for (const int k : options.ks) std::printf("%9s%9s", StrCat("ANN@", k).c_str(), "worst");
  std::printf("\n");
  for (const AnnRecall& one : report.ann) {
    std::printf("%-20s%9lld", one.system.c_str(), static_cast<long long>(one.users));
    for (std::size_t i = 0; i < options.ks.size(); ++i) std::printf("%9.4f%9.4f", one.recall[i], one.lowest[i]);
    std::printf("\n");
  }
}

void Print(const EvaluationReport& report, const EvaluateOptions& options) {
  std::printf(
      "%lld candidates, %lld of them cold (not in training); %lld interactions before the %s part, %lld in it\n",
      static_cast<long long>(report.items), static_cast<long long>(report.cold_items),
      static_cast<long long>(report.history_interactions), options.judge_validation ? "validation" : "test",
      static_cast<long long>(report.judged_interactions));
  if (report.drawn_users < report.judged_users) {
    std::printf("judged by: %lld of its %lld users, drawn by chance\n", static_cast<long long>(report.drawn_users),
                static_cast<long long>(report.judged_users));
  }
  if (report.unknown_items + report.later_items > 0) {
    std::printf("left out: %lld interactions of items that are not there, %lld of items that are dated later\n",
                static_cast<long long>(report.unknown_items), static_cast<long long>(report.later_items));
  }
  if (!options.split.events.empty()) {
    std::string events;
    for (const std::string& event : options.split.events) events += (events.empty() ? "" : ", ") + event;
    std::printf("asked for: %s; histories hold every event\n", events.c_str());
  }
  for (const EvaluationTable& table : report.tables) {
    std::printf("\n== seen items %s\n", table.seen_masked ? "masked" : "kept");
    for (const EvaluationSlice& slice : table.slices) PrintSlice(slice, table);
  }
  if (!report.ann.empty()) PrintAnn(report, options);
  std::printf(
      "\nR recommendation recall, HR hit rate, NDCG, MRR: means over users; Acc: share of the interactions; cover: "
      "share "
      "of the\ncandidates that anybody gets, mean pop: their interactions so far, both at the largest K; [low, high]: "
      "95%% bootstrap\ninterval over users. Judged in %.1f s.\n",
      report.seconds);
}

Status RunEvaluate(EvaluateArguments* arguments) {
  EvaluateOptions& options = arguments->options;
  FRESHET_TRY(arguments->config->Apply());
  FRESHET_ASSIGN(options.until_ms, TimeOption("--until", arguments->until));
  FRESHET_ASSIGN(options.split, arguments->split.Read());
  for (const std::string& text : arguments->models) options.models.push_back(NameAndPath(text));
  for (const std::string& text : arguments->lists) options.lists.push_back(NameAndPath(text));
  // Each once, and the largest last: it is what decides.
  std::sort(options.ks.begin(), options.ks.end());
  options.ks.erase(std::unique(options.ks.begin(), options.ks.end()), options.ks.end());
  if (arguments->seen == "masked") options.mask_seen = {true};
  if (arguments->seen == "kept") options.mask_seen = {false};
  Result<EvaluationReport> report = Internal("nothing was judged");
  {
    ProgressBar bar("evaluate");
    report = Evaluate(
        options, [&](double fraction, const std::string& label) { bar.Update(fraction, label); },
        SearchByIndex(arguments->ef));
  }
  if (!report.ok()) return report.status();
  for (const std::string& warning : report->warnings) std::cerr << "freshet: " << warning << "\n";
  if (arguments->json) {
    std::cout << ToJson(*report, options);
  } else {
    Print(*report, options);
  }
  return Status::Ok();
}

}  // namespace

void AddEvaluateCommand(CLI::App* app, CommandRunner* run) {
  auto arguments = std::make_shared<EvaluateArguments>();
  EvaluateOptions& options = arguments->options;
  CLI::App* command = app->add_subcommand(
      "evaluate", "Judge models, and the lists of other systems, on held-out interactions beside baselines.");
  command->add_option("--items", options.items_file, "Items: JSON lines, plain or zstd")->required();
  command->add_option("--interactions", options.interactions_file, "Interactions: JSON lines, plain or zstd")
      ->required();
  command->add_option("--users", options.users_file, "User profiles: JSON lines, plain or zstd");
  command->add_option("--model", arguments->models, "A model package, or NAME=DIRECTORY; may be given again");
  command->add_option("--lists", arguments->lists,
                      "Another system's output, or NAME=FILE: JSON lines {\"user_id\", \"items\": [best first]} or\n"
                      "{\"user_id\", \"scores\": {item: number}}; may be given again");
  command->add_option("--until", arguments->until, "Only events before this time (ISO date, UTC, or Unix ms)");
  command->add_flag("--on-validation", options.judge_validation, "Judge the validation part: for choosing");
  command->add_option("--k", options.ks, "Lengths of the recommendations")->delimiter(',')->capture_default_str();
  command->add_option("--seen", arguments->seen, "Items of the user's history: masked, kept, both (two tables)")
      ->check(CLI::IsMember({"masked", "kept", "both"}))
      ->capture_default_str();
  command->add_option("--recent-fraction", options.recent_fraction, "Newest share that recent popularity counts")
      ->capture_default_str();
  command->add_option("--head-fraction", options.head_fraction, "Share of the items that is the head")
      ->capture_default_str();
  command->add_option("--max-users", options.max_users, "Judge by so many users, drawn by chance; 0: by all")
      ->capture_default_str();
  command->add_option("--resamples", options.resamples, "Of the bootstrap over users; 0: no intervals")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of ties, the random baseline and the bootstrap")->capture_default_str();
  command->add_option("--threads", options.threads, "Threads of the tensor library")->capture_default_str();
  command
      ->add_option("--ann-users", options.ann_users,
                   "Of the judged users so many are asked for of an index, too: ANN recall, beside exact search; 0: "
                   "none")
      ->capture_default_str();
  command->add_option("--ef", arguments->ef, "Search effort of that index; 0: chosen from K, as in serving")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  command->add_option("--write-lists", options.write_lists,
                      "Write the first model's recommendations, as --lists reads");
  AddSplitOptions(command, &arguments->split);
  arguments->config = std::make_unique<ConfigFileOption>(
      command, "evaluate", nullptr, [&options](const YamlNode& node, const std::string& file) -> Status {
        FRESHET_ASSIGN(options.schemas, FileSchemasFromYaml(node, file));
        return Status::Ok();
      });
  command->add_flag("--json", arguments->json, "Print the report as one JSON object");
  command->footer(
      "Example:\n"
      "  freshet train --items /tmp/shop/items.jsonl --interactions /tmp/shop/interactions.jsonl --test-fraction 0.2 "
      "\\\n"
      "    --out /tmp/shop/judged\n"
      "  freshet evaluate --items /tmp/shop/items.jsonl --interactions /tmp/shop/interactions.jsonl \\\n"
      "    --test-fraction 0.2 --model /tmp/shop/judged\n"
      "Give the same split, or the same --config, to train and evaluate: then the model has not seen what judges it.\n"
      "Every candidate is ranked. Popularity, recent popularity, chance and item-to-item co-occurrence stand\n"
      "beside the model; cold items (not in training), new ones (nor in validation), cold users (without history),\n"
      "head and tail have tables of their own. Their recall is recommendation recall; what the index loses of a "
      "model's\n"
      "own ranking (ANN recall) stands apart.");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunEvaluate(arguments.get())); }; });
}

}  // namespace freshet
