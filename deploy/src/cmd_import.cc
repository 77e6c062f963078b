// `freshet import`: public data sets to files of events.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "importers.h"

namespace freshet {
namespace {

struct ImportArguments {
  std::string format;
  std::string source;
  std::string out;
  bool json = false;
};

// What was left out, so that nobody has to wonder where the rows went.
void PrintDropped(const ImportReport& report) {
  for (const auto& [reason, rows] : report.dropped) {
    std::fprintf(stderr, "dropped %zu rows: %s", rows, reason.c_str());
    if (const auto of = report.of.find(reason); of != report.of.end()) {
      const char* separator = ": ";
      for (const auto& [what, count] : of->second) {
        std::fprintf(stderr, "%s%s (%zu)", separator, what.c_str(), count);
        separator = ", ";
      }
    }
    std::fputc('\n', stderr);
  }
}

Status RunImport(const ImportArguments& arguments) {
  Result<ImportReport> report = [&]() -> Result<ImportReport> {
    ProgressBar bar("import");
    const ImportProgress progress = [&bar](double fraction, const std::string& label) { bar.Update(fraction, label); };
    if (arguments.format == "online-retail") return ImportOnlineRetail(arguments.source, arguments.out, progress);
    if (arguments.format == "movielens-100k") return ImportMovieLens100k(arguments.source, arguments.out, progress);
    if (arguments.format == "amazon-beauty") return ImportAmazonBeauty(arguments.source, arguments.out, progress);
    return ImportMovieLens1m(arguments.source, arguments.out, progress);
  }();
  if (!report.ok()) return report.status().Prefixed("import " + arguments.format);
  PrintDropped(*report);
  if (arguments.json) {
    JsonWriter json;
    json.BeginObject().Key("items").Uint(report->items).Key("interactions").Uint(report->interactions);
    json.Key("users").Uint(report->users).Key("dropped").BeginObject();
    for (const auto& [reason, rows] : report->dropped) json.Key(reason).Uint(rows);
    json.EndObject().Key("out").String(arguments.out).EndObject();
    std::printf("%s\n", json.Take().c_str());
  } else {
    std::fprintf(stderr, "wrote %s/items.jsonl (%zu), interactions.jsonl (%zu), users.jsonl (%zu)\n",
                 arguments.out.c_str(), report->items, report->interactions, report->users);
  }
  return Status::Ok();
}

}  // namespace

void AddImportCommand(CLI::App* app, CommandRunner* run) {
  auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command = app->add_subcommand(
      "import",
      "Turn a public data set into event files: items.jsonl, interactions.jsonl, users.jsonl, in time order.\n"
      "  online-retail   UCI Online Retail (CC BY 4.0): a CSV file, plain or zstd, or a directory of them. A sale is a "
      "line\n"
      "                  with a customer, a positive quantity and a product's stock code: five digits and up to two "
      "letters\n"
      "  movielens-100k  GroupLens' u.item, u.user, u.data\n"
      "  movielens-1m    GroupLens' movies.dat, users.dat, and train_positives.tsv: user, movie, rating, Unix seconds\n"
      "  amazon-beauty   sequences_train.txt (user item item ...) and Beauty_item2attributes.json; times are made up "
      "from "
      "the\n"
      "                  order");
  command->add_option("FORMAT", arguments->format, "What SRC holds")
      ->required()
      ->check(CLI::IsMember({"online-retail", "movielens-100k", "movielens-1m", "amazon-beauty"}));
  command->add_option("SRC", arguments->source, "File or directory to read")->required();
  command->add_option("--out", arguments->out, "Directory to write to; made where it is missing")->required();
  command->add_flag("--json", arguments->json, "Print the counts as one JSON object");
  command->footer(
      "Example:\n"
      "  freshet import online-retail tests/data/online-retail-2011-03-05.csv.zst --out /tmp/shop\n"
      "  head -n 2 /tmp/shop/items.jsonl");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunImport(*arguments)); }; });
}

}  // namespace freshet
