#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "command_options.h"
#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/deploy/config.h"
#include "freshet/encoder/topic_files.h"
#include "freshet/encoder/training.h"
#include "freshet/ingest/kafka.h"
#include "index_search.h"
#include "schema_reader.h"

namespace freshet {
namespace {

constexpr std::chrono::seconds kConnectTimeout{10};

struct TrainArguments {
  TrainOptions options;
  std::string topics;  // a configuration of the engine
  SplitArguments split;
  std::unique_ptr<ConfigFileOption> config;
  std::string until;
  std::vector<std::string> event_weights;  // "buy=5"
  std::string device = "cpu";
  bool json = false;
};

// "buy=5": the name may hold a `=` too.
Status ReadEventWeights(const std::vector<std::string>& texts, std::map<std::string, double>* weights) {
  for (const std::string& text : texts) {
    const std::size_t at = text.rfind('=');
    const auto weight = at == std::string::npos ? std::nullopt : ParseDouble(text.substr(at + 1));
    if (!weight || at == 0) return ConfigError(StrCat("--event-weights: `", text, "` is not of the form EVENT=WEIGHT"));
    if (!weights->emplace(text.substr(0, at), *weight).second) {
      return ConfigError(StrCat("--event-weights: `", text.substr(0, at), "` is given twice"));
    }
  }
  return Status::Ok();
}

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

std::string ProgressLabel(const TrainProgress& state) {
  std::string label = StrCat(state.refit ? "refit: epoch " : "epoch ", state.epoch, "/", state.epochs, "  loss ",
                             Fixed(state.loss, 3), "  ", Fixed(state.examples_per_second / 1000, 1), "k pairs/s");
  if (state.seconds_left >= 1) {
    const auto left = static_cast<std::int64_t>(state.seconds_left);
    label += left < 100 ? StrCat("  ", left, " s left") : StrCat("  ", (left + 30) / 60, " min left");
  }
  if (state.recall >= 0) {
    label += StrCat("  recall ", Fixed(state.recall, 3), " (popularity ", Fixed(state.popularity, 3), ")");
  }
  return label;
}

void PrintReport(const TrainArguments& arguments, const TrainReport& report) {
  const int k = arguments.options.validation_k;
  // Over the epochs that there were, with what ran before a resumption.
  const double trained_s = report.epochs.empty() ? 0 : report.epochs.back().seconds;
  const double rate =
      static_cast<double>(report.train_pairs) * static_cast<double>(report.epochs.size()) / std::max(trained_s, 1e-9);
  if (arguments.json) {
    JsonWriter out;
    out.BeginObject().Key("model").String(arguments.options.out_directory);
    out.Key("embedding_space_id").String(report.space_id);
    out.Key("items").Int(report.items).Key("users").Int(report.users).Key("train_pairs").Int(report.train_pairs);
    out.Key("validation_users").Int(report.validation_users).Key("epochs").Int(arguments.options.epochs);
    out.Key("best_epoch").Int(report.best_epoch).Key("loss").Double(report.final_loss);
    out.Key(StrCat("recommendation_recall_at_", k)).Double(report.recall);
    out.Key(StrCat("popularity_recall_at_", k)).Double(report.popularity_recall);
    out.Key("refit_pairs").Int(report.refit_pairs);
    out.Key("resumed").Bool(report.resumed).Key("report").String(report.report_file);
    out.Key("log").String(report.log_file);
    out.Key("seconds").Double(report.seconds).Key("pairs_per_second").Double(rate).EndObject();
    std::cout << out.Take() << "\n";
    return;
  }
  std::cout << "model        " << arguments.options.out_directory << "\nspace        " << report.space_id
            << "\ntrained on   " << report.train_pairs << " interactions of " << report.users << " users with "
            << report.items << " items, in " << Fixed(report.seconds, 1) << " s\nloss         "
            << Fixed(report.final_loss, 3) << " (epoch " << report.best_epoch << " of " << arguments.options.epochs
            << " was kept)\nrecall@" << k << "   " << Fixed(report.recall, 3) << " of what " << report.validation_users
            << " users took next (popularity " << Fixed(report.popularity_recall, 3) << ")\n";
  if (report.refit_pairs > 0) {
    std::cout << "refitted     on " << report.refit_pairs << " interactions, the validation part among them\n";
  }
  if (!report.report_file.empty()) std::cout << "report       " << report.report_file << "\n";
  std::cout << "log          " << report.log_file << "\n";
}

// The topics of an engine's configuration, up to where they end now, as files beside the package. A training that is
// resumed reads those that it began with.
Status FilesFromTopics(TrainArguments* arguments) {
  TrainOptions& options = arguments->options;
  if (arguments->topics.empty()) {
    if (!options.items_file.empty() && !options.interactions_file.empty()) return Status::Ok();
    return ConfigError("--items and --interactions are wanted, or --topics");
  }
  if (!options.items_file.empty() || !options.interactions_file.empty() || !options.users_file.empty()) {
    return ConfigError("--topics brings items, interactions and users: give no files beside it");
  }
  if (options.schemas.items || options.schemas.interactions || options.schemas.users) {
    return ConfigError("--topics brings the schemas of the topics: `schema` of --config is of files");
  }
  TopicFilesOptions what;
  what.directory = TopicFilesDirectory(options.out_directory);
  Result<TopicFiles> files = FindTopicFiles(what.directory);
  if (!options.resume || !files.ok()) {
    FRESHET_ASSIGN(const Config config, LoadConfig(arguments->topics, {}));
    std::unique_ptr<SchemaRegistry> registry;
    if (!config.registry.url.empty()) {
      FRESHET_ASSIGN(registry, OpenSchemaRegistry(config.registry));
    }
    std::vector<std::unique_ptr<EventDecoder>> decoders;
    ConsumerOptions consumer;
    consumer.kafka = config.kafka;
    consumer.assign_all = true;
    const auto add = [&](TopicRole role, const TopicConfig& topic) -> Status {
      FormatOptions format = topic.format;
      format.registry = registry.get();
      FRESHET_ASSIGN(std::unique_ptr<EventDecoder> decoder, MakeDecoder(role, format, topic.schema, DecodeLimits{}));
      what.topics[topic.name] = {role, decoder.get()};
      decoders.push_back(std::move(decoder));
      consumer.topics.push_back(topic.name);
      return Status::Ok();
    };
    FRESHET_TRY(add(TopicRole::kItems, config.items));
    FRESHET_TRY(add(TopicRole::kInteractions, config.interactions));
    if (config.users) FRESHET_TRY(add(TopicRole::kUsers, *config.users));
    FRESHET_ASSIGN(const auto ends, QueryWatermarks(config.kafka, consumer.topics, kConnectTimeout));
    for (const auto& [partition, marks] : ends) {
      if (marks.high > marks.low) what.until[partition] = marks.high;
    }
    const SystemClock clock;
    FRESHET_ASSIGN(const std::unique_ptr<RecordSource> source,
                   OpenKafkaConsumer(
                       consumer, [](const auto&) { return StoredPositions(); }, &clock, kConnectTimeout));
    ProgressBar bar("read topics");
    files = WriteTopicFiles(source.get(), what, [&](double share) {
      bar.Update(share, "");
      return !StopRequested();
    });
  }
  if (!files.ok()) return files.status();
  if (files->poison > 0) {
    std::cerr << "freshet: " << files->poison << " of " << files->records
              << " records do not decode and are left out\n";
  }
  options.items_file = files->items_file;
  options.interactions_file = files->interactions_file;
  options.users_file = files->users_file;
  return Status::Ok();
}

// Vectors of both towers are of unit length.
FindNearest NearestByIndex() {
  return [search = SearchByIndex(0)](std::span<const float> items, std::span<const float> queries, int dim, int k) {
    return search(items, queries, dim, Metric::kInnerProduct, k);
  };
}

int RunTrain(TrainArguments* arguments) {
  const Status ready = [&]() -> Status {
    FRESHET_TRY(ArmFaultsFromEnvironment());
    FRESHET_TRY(arguments->config->Apply());
    FRESHET_ASSIGN(arguments->options.until_ms, TimeOption("--until", arguments->until));
    FRESHET_ASSIGN(arguments->options.split, arguments->split.Read());
    FRESHET_ASSIGN(arguments->options.device, ParseDevice(arguments->device));
    FRESHET_TRY(ReadEventWeights(arguments->event_weights, &arguments->options.event_weights));
    return FilesFromTopics(arguments);
  }();
  if (!ready.ok()) return ExitCode(ready);
  Result<TrainReport> report = Internal("training did not run");
  {
    ProgressBar bar("train");
    report = Train(
        arguments->options,
        [&](const TrainProgress& state) {
          if (!state.reporting.empty()) return bar.Update(state.fraction, StrCat("report: ", state.reporting));
          bar.Update((state.epoch - 1 + state.fraction) / state.epochs, ProgressLabel(state));
        },
        NearestByIndex());
  }
  if (!report.ok()) return ExitCode(report.status());
  PrintReport(*arguments, *report);
  if (report->recall <= report->popularity_recall) {
    std::cerr
        << "freshet: these towers do not beat recommending what is popular: more data or more epochs are wanted\n";
  }
  return 0;
}

}  // namespace

void AddTrainCommand(CLI::App* app, CommandRunner* run) {
  auto arguments = std::make_shared<TrainArguments>();
  TrainOptions& options = arguments->options;
  CLI::App* command = app->add_subcommand("train", "Train two towers from event files; write a model package.");
  command->add_option("--items", options.items_file, "Items: JSON lines, plain or zstd");
  command->add_option("--interactions", options.interactions_file, "Interactions: JSON lines, plain or zstd");
  command->add_option("--users", options.users_file, "User profiles: JSON lines, plain or zstd");
  command->add_option("--topics", arguments->topics,
                      "In place of files: the topics of this engine's configuration, from their oldest record up to "
                      "where\nthey end now; what was read stays in OUT.events, with its offsets");
  command->add_option("--out", options.out_directory, "Directory of the package; a package there is replaced")
      ->required();
  command->add_option("--until", arguments->until, "Only events before this time (ISO date, UTC, or Unix ms)");
  command->add_option("--name", options.name, "Name of the model")->capture_default_str();
  command->add_option("--model-version", options.version, "Version of the model")->capture_default_str();
  command->add_option("--epochs", options.epochs, "Passes over the data; the best on validation is kept")
      ->capture_default_str();
  command->add_option("--dim", options.dim, "Dimension of the vectors")->capture_default_str();
  command->add_option("--embedding-dim", options.embedding_dim, "Dimension of the feature embeddings")
      ->capture_default_str();
  command->add_option("--hidden", options.hidden, "Units of each block of the MLP")->capture_default_str();
  command->add_option("--layers", options.layers, "Blocks of the MLP: linear, batch norm if asked for, ReLU, dropout")
      ->capture_default_str();
  command->add_option("--batch-size", options.batch_size, "Pairs a batch; each is a negative of the others")
      ->capture_default_str();
  command->add_option("--history", options.history, "Interactions of a user that the tower reads")
      ->capture_default_str();
  command->add_option("--learning-rate", options.learning_rate, "Of Adam")->capture_default_str();
  command->add_option("--schedule", options.schedule, "Of the rate: linear to a tenth, cosine to 0, constant")
      ->check(CLI::IsMember({"linear", "cosine", "constant"}))
      ->capture_default_str();
  command->add_option("--warmup", options.warmup, "Share of the training over which the rate climbs")
      ->capture_default_str();
  command->add_option("--max-gradient-norm", options.max_gradient_norm, "Gradients are clipped to it; 0: never")
      ->capture_default_str();
  command->add_option("--temperature", options.temperature, "Of InfoNCE")->capture_default_str();
  command->add_flag("--learn-temperature", options.learn_temperature, "It is learned, from --temperature on");
  command
      ->add_option("--pooling", options.pooling,
                   "Of the history: mean; attention over content and recency; gru or\n"
                   "self-attention over the sequence, beside its mean")
      ->check(CLI::IsMember({"mean", "attention", "gru", "self-attention"}))
      ->capture_default_str();
  command->add_option("--blocks", options.blocks, "Blocks of self-attention")->capture_default_str();
  command->add_option("--heads", options.heads, "Heads of each; they divide --embedding-dim")->capture_default_str();
  command->add_flag("--share-items", options.share_items, "The history reads the item tower's own id embeddings");
  command->add_option("--loss", options.loss, "in-batch negatives with logQ correction, or full: the whole catalogue")
      ->check(CLI::IsMember({"in-batch", "full"}))
      ->capture_default_str();
  command->add_option("--log-q", options.log_q, "Weight of the logQ correction of in-batch negatives")
      ->capture_default_str();
  command->add_option("--uniform-negatives", options.uniform_negatives, "More negatives a batch, from the catalogue")
      ->capture_default_str();
  command
      ->add_option("--hard-negatives", options.hard_negatives,
                   "More negatives a batch: what the last epoch's towers would recommend to its users")
      ->capture_default_str();
  command->add_flag("--batch-norm", options.batch_norm, "Normalise each block of the MLP by batches");
  command->add_option("--dropout", options.dropout, "Of the inputs of the layers")->capture_default_str();
  command->add_option("--history-dropout", options.history_dropout, "Share of a history that is left out each time")
      ->capture_default_str();
  command
      ->add_option("--horizon", options.horizon,
                   "A pair's history ends up to so many interactions before it: what comes later, not only next")
      ->capture_default_str();
  command->add_option("--stranger-share", options.stranger_share, "Share of pairs whose user's history is hidden")
      ->capture_default_str();
  command->add_option("--user-weight", options.user_weight, "0: every pair weighs alike; 1: every user")
      ->capture_default_str();
  command->add_option("--event-weights", arguments->event_weights,
                      "EVENT=WEIGHT of its pairs; may be given again. Others weigh 1; with 0 an interaction is no pair "
                      "and\nstands in histories only. In a configuration: {buy: 5, view: 0}");
  command
      ->add_option("--value-weight", options.value_weight,
                   "A pair weighs its interaction's value to this power; 0: the value does not matter")
      ->capture_default_str();
  command
      ->add_option("--half-life-days", options.half_life_days,
                   "A pair so much older than the newest weighs half; 0: age does not matter")
      ->capture_default_str();
  command->add_flag("--mask-seen", options.mask_seen, "In validation: mask what was seen, and do not ask for it");
  command->add_flag("--validate-strangers", options.validate_strangers, "In validation: users without history too");
  command->add_option("--validation-k", options.validation_k, "Recall at this K chooses the epoch")
      ->capture_default_str();
  command->add_option("--patience", options.patience, "Stop after so many epochs without a better one; 0: never")
      ->capture_default_str();
  command->add_flag("--refit", options.refit,
                    "Then train once more, on the validation part too, for as many epochs as were best");
  command->add_option("--id-dropout", options.id_dropout, "Share of pairs whose item id is hidden")
      ->capture_default_str();
  command
      ->add_option("--user-id-dropout", options.user_id_dropout,
                   "Share of pairs whose user id is hidden, where `features` of the configuration names `user_id`")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Same seed, one thread: same model")->capture_default_str();
  command->add_option("--threads", options.threads, "Threads of the tensor library")->capture_default_str();
  command
      ->add_option("--device", arguments->device,
                   "Where to train: cpu, cuda, cuda:N, or auto: CUDA where there is some")
      ->capture_default_str();
  command
      ->add_option(
          "--precision", options.precision,
          "fp32, or bf16: matrix products of the towers in bfloat16, which pays on CUDA; parameters stay in fp32")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_flag("--resume", options.resume,
                    "Continue the training that was cut off, from OUT.checkpoint; the same settings and data are "
                    "wanted.\nWithout a checkpoint it begins: a supervisor can always give it");
  command
      ->add_option("--checkpoint-seconds", options.checkpoint_seconds,
                   "Between two checkpoints within an epoch; there is one after each epoch")
      ->capture_default_str();
  command->add_flag("!--no-report", options.report, "Do not write OUT.report.html");
  AddSplitOptions(command, &arguments->split);
  arguments->config = std::make_unique<ConfigFileOption>(
      command, "train",
      [&options](const YamlNode& node, const std::string& file) -> Status {
        FRESHET_ASSIGN(options.features, FeatureRequestsFromYaml(node, file));
        return Status::Ok();
      },
      [&options](const YamlNode& node, const std::string& file) -> Status {
        FRESHET_ASSIGN(options.schemas, FileSchemasFromYaml(node, file));
        return Status::Ok();
      });
  command->add_flag("--json", arguments->json, "Print the report as one JSON object");
  command->footer(
      "Example:\n"
      "  freshet train --items /tmp/shop/items.jsonl --interactions /tmp/shop/interactions.jsonl \\\n"
      "    --users /tmp/shop/users.jsonl --out /tmp/shop/model\n"
      "Recall is recommendation recall: the share of a user's later interactions among the best K of all items, those\n"
      "already seen included unless --mask-seen. `freshet evaluate` judges, with the same split or --config.");
  command->callback([arguments, run] { *run = [arguments] { return RunTrain(arguments.get()); }; });
}

}  // namespace freshet
