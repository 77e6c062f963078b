// `freshet index`: the index without Kafka. Vector files in, an index file out, and questions to it.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "freshet/core/descriptor.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/metrics.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/indexer/index_builder.h"
#include "freshet/indexer/vector_file.h"

namespace freshet {
namespace {

constexpr std::size_t kQueriesAtOnce = 64;
const std::vector<std::string> kRerankNames = {"fp32", "fp16", "residual8"};  // in the order of Rerank

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// That a file can be made there, before hours go into what is to be in it. (PATH.tmp is what is written first.)
Status CheckWritable(const std::string& path) {
  const std::string temporary = path + ".tmp";
  const bool was_there = FileExists(temporary);
  const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (file.get() < 0) return FromErrno(errno, path, "cannot be written");
  if (!was_there) ::unlink(temporary.c_str());
  return Status::Ok();
}

Status StoppedBuild() { return StopRequested() ? Cancelled("stopped by a signal; nothing was written") : Status::Ok(); }

struct BuildArguments {
  std::vector<std::string> files;
  std::string out;
  std::string kind = "hnsw";
  std::string metric = "cosine";
  std::string rerank = "residual8";
  HnswOptions hnsw;
  std::uint64_t limit = ~std::uint64_t{0};
  bool json = false;
};

Status RunBuild(const BuildArguments& arguments) {
  if (FileExists(arguments.out)) return InvalidArgument(arguments.out + ": is there already");
  FRESHET_TRY(CheckWritable(arguments.out));
  InstallStopSignals();
  IndexBuilderOptions options;
  options.kind = arguments.kind == "flat" ? IndexKind::kFlat : IndexKind::kHnsw;
  options.hnsw = arguments.hnsw;
  FRESHET_ASSIGN(options.hnsw.metric, ParseMetric(arguments.metric));
  const auto rerank = std::find(kRerankNames.begin(), kRerankNames.end(), arguments.rerank);
  options.hnsw.rerank = static_cast<Rerank>(rerank - kRerankNames.begin());
  ProgressBar bar("index");
  const double begin = Now();
  options.progress = [&](std::uint64_t rows, std::uint64_t of) {
    const double rate = static_cast<double>(rows) / std::max(Now() - begin, 1e-6);
    bar.Update(of == 0 ? 0 : static_cast<double>(rows) / static_cast<double>(of),
               StrCat(rows, " rows, ", static_cast<std::int64_t>(rate), "/s"));
    return StoppedBuild();
  };
  FRESHET_ASSIGN(const std::uint64_t rows, CountRows(arguments.files, arguments.limit));
  options.hnsw.capacity = CapacityFor(rows);
  IndexBuilder builder(options);
  for (const std::string& file : arguments.files) {
    if (builder.rows() >= arguments.limit) break;
    FRESHET_TRY(builder.AddFile(file, arguments.limit - builder.rows()));
  }
  FRESHET_ASSIGN(const std::unique_ptr<Index> index, builder.Finish());
  const double seconds = Now() - begin;
  FRESHET_ASSIGN(const std::unique_ptr<IndexCut> cut, index->Cut());
  FRESHET_TRY(cut->Write(arguments.out, [](std::uint64_t /*bytes*/) { return StoppedBuild(); }));
  FRESHET_ASSIGN(const IndexFileInfo info, InspectIndexFile(arguments.out));
  const double rate = static_cast<double>(builder.rows()) / seconds;
  if (arguments.json) {
    JsonWriter json;
    json.BeginObject().Key("index").String(arguments.out).Key("kind").String(IndexKindName(info.kind));
    json.Key("rows").Uint(builder.rows()).Key("dim").Int(info.dim).Key("metric").String(MetricName(info.metric));
    json.Key("seconds").Double(seconds).Key("rows_per_second").Double(rate);
    json.Key("file_bytes").Uint(info.bytes).Key("resident_bytes").Double(ResidentBytes()).EndObject();
    std::cout << json.Take() << "\n";
  } else {
    std::printf("%s: %s, %llu vectors of dimension %d, %s; %.1f s (%.0f/s), %.1f MB\n", arguments.out.c_str(),
                IndexKindName(info.kind), static_cast<unsigned long long>(builder.rows()), info.dim,
                MetricName(info.metric), seconds, rate, static_cast<double>(info.bytes) / 1e6);
  }
  return FlushOutput();
}

struct QueryArguments {
  std::string index;
  std::string queries;
  std::string open = "mapped";
  std::uint64_t limit = ~std::uint64_t{0};
  SearchOptions search;
  bool recall = false;
  bool json = false;
};

struct Answers {
  std::vector<std::vector<Hit>> hits;
  double seconds = 0;  // of searching
  double recall = 0;
};

Status Ask(const Index& index, const QueryArguments& arguments, Answers* answers) {
  FRESHET_ASSIGN(VectorFile file, VectorFile::Open(arguments.queries));
  if (file.dim() != index.dim()) {
    return InvalidArgument(
        StrCat(arguments.queries, ": vectors of dimension ", file.dim(), "; the index has ", index.dim()));
  }
  const auto width = static_cast<std::size_t>(index.dim());
  const std::uint64_t wanted = std::min(arguments.limit, file.rows());
  SearchOptions exact = arguments.search;
  exact.exact = true;
  std::size_t found = 0;
  std::size_t of = 0;
  ProgressBar bar("query");
  std::vector<float> piece;
  while (answers->hits.size() < wanted) {
    const std::size_t done = answers->hits.size();
    if (StopRequested()) return Cancelled(StrCat("stopped by a signal after ", done, " of ", wanted, " queries"));
    FRESHET_TRY(file.Read(static_cast<std::size_t>(std::min<std::uint64_t>(kQueriesAtOnce, wanted - done)), &piece));
    for (std::size_t i = 0; i < piece.size() / width; ++i) {
      const Status prepared = PrepareVector(index.metric(), index.dim(), std::span(piece).subspan(i * width, width));
      if (!prepared.ok()) return prepared.Prefixed(StrCat(arguments.queries, ": row ", done + i));
    }
    const double begin = Now();
    FRESHET_ASSIGN(std::vector<std::vector<Hit>> hits, index.SearchMany(piece, arguments.search));
    answers->seconds += Now() - begin;
    if (arguments.recall) {
      FRESHET_ASSIGN(const std::vector<std::vector<Hit>> truth, index.SearchMany(piece, exact));
      for (std::size_t i = 0; i < hits.size(); ++i) {
        std::unordered_set<Label> labels;
        for (const Hit& hit : hits[i]) labels.insert(hit.label);
        for (const Hit& hit : truth[i]) found += labels.contains(hit.label) ? 1 : 0;
        of += truth[i].size();
      }
    }
    std::move(hits.begin(), hits.end(), std::back_inserter(answers->hits));
    bar.Update(static_cast<double>(answers->hits.size()) / static_cast<double>(wanted),
               StrCat(answers->hits.size(), " queries"));
  }
  answers->recall = of == 0 ? 1 : static_cast<double>(found) / static_cast<double>(of);
  return Status::Ok();
}

Status RunQuery(const QueryArguments& arguments) {
  InstallStopSignals();
  const double begin = Now();
  FRESHET_ASSIGN(const std::unique_ptr<Index> index,
                 OpenIndexFile(arguments.index, arguments.open == "mapped" ? OpenAs::kMapped : OpenAs::kMemory));
  const double open_seconds = Now() - begin;
  Answers answers;
  FRESHET_TRY(Ask(*index, arguments, &answers));
  const double rate = static_cast<double>(answers.hits.size()) / std::max(answers.seconds, 1e-9);
  if (arguments.json) {
    JsonWriter json;
    json.BeginObject().Key("index").String(arguments.index).Key("queries").Uint(answers.hits.size());
    json.Key("k").Uint(arguments.search.k).Key("open_seconds").Double(open_seconds);
    json.Key("seconds").Double(answers.seconds).Key("queries_per_second").Double(rate);
    if (arguments.recall) json.Key("recall").Double(answers.recall);
    json.Key("results").BeginArray();
    for (const std::vector<Hit>& hits : answers.hits) {
      json.BeginArray();
      for (const Hit& hit : hits) {
        json.BeginObject().Key("label").Uint(hit.label).Key("score").Double(static_cast<double>(hit.score)).EndObject();
      }
      json.EndArray();
    }
    json.EndArray().EndObject();
    std::cout << json.Take() << "\n";
    return FlushOutput();
  }
  for (std::size_t query = 0; query < answers.hits.size(); ++query) {
    for (std::size_t rank = 0; rank < answers.hits[query].size(); ++rank) {
      const Hit& hit = answers.hits[query][rank];
      std::printf("%zu\t%zu\t%llu\t%.6g\n", query, rank + 1, static_cast<unsigned long long>(hit.label),
                  static_cast<double>(hit.score));
    }
  }
  FRESHET_TRY(FlushOutput());
  std::fprintf(stderr, "opened in %.1f ms; %zu queries in %.3f s (%.0f/s)\n", open_seconds * 1e3, answers.hits.size(),
               answers.seconds, rate);
  if (arguments.recall) {
    std::fprintf(stderr, "recall@%zu against a scan of the index: %.4f\n", arguments.search.k, answers.recall);
  }
  return Status::Ok();
}

struct InspectArguments {
  std::string index;
  bool verify = false;
  bool json = false;
};

Status RunInspect(const InspectArguments& arguments) {
  FRESHET_ASSIGN(const IndexFileInfo info, InspectIndexFile(arguments.index));
  FRESHET_ASSIGN(const std::unique_ptr<Index> index, OpenIndexFile(arguments.index, OpenAs::kMapped, arguments.verify));
  const IndexStats stats = index->Stats();
  const bool hnsw = info.kind == IndexKind::kHnsw;
  if (arguments.json) {
    JsonWriter json;
    json.BeginObject().Key("index").String(arguments.index).Key("kind").String(IndexKindName(info.kind));
    json.Key("dim").Int(info.dim).Key("metric").String(MetricName(info.metric));
    if (hnsw) json.Key("m").Uint(info.m).Key("rerank").String(kRerankNames[static_cast<std::size_t>(info.rerank)]);
    json.Key("rows").Uint(info.rows).Key("live").Uint(stats.live).Key("tombstones").Uint(stats.tombstones);
    json.Key("file_bytes").Uint(info.bytes);
    if (arguments.verify) json.Key("verified").Bool(true);
    std::cout << json.EndObject().Take() << "\n";
    return FlushOutput();
  }
  std::printf("kind       %s\nvectors    %d dimensions, %s\n", IndexKindName(info.kind), info.dim,
              MetricName(info.metric));
  if (hnsw)
    std::printf("graph      m %zu\nre-rank    %s\n", info.m,
                kRerankNames[static_cast<std::size_t>(info.rerank)].c_str());
  std::printf("rows       %llu: %zu live, %zu tombstones\nbytes      %llu\n",
              static_cast<unsigned long long>(info.rows), stats.live, stats.tombstones,
              static_cast<unsigned long long>(info.bytes));
  if (arguments.verify) std::printf("verified   every byte\n");
  return FlushOutput();
}

void AddBuild(CLI::App* parent, CommandRunner* run) {
  auto arguments = std::make_shared<BuildArguments>();
  CLI::App* command = parent->add_subcommand("build", "Make an index file of vector files; labels are row numbers.");
  command->add_option("FILE", arguments->files, "Vectors: .npy, .fvecs, .bvecs, .fbin or .u8bin")->required();
  command->add_option("--out", arguments->out, "The index file; it must not be there yet")->required();
  command->add_option("--kind", arguments->kind, "hnsw, or flat: exact")
      ->check(CLI::IsMember({"hnsw", "flat"}))
      ->capture_default_str();
  command->add_option("--metric", arguments->metric, "cosine (vectors are normalised), ip or l2")
      ->check(CLI::IsMember({"cosine", "ip", "l2"}))
      ->capture_default_str();
  command->add_option("--m", arguments->hnsw.m, "Links of a node")->capture_default_str();
  command->add_option("--ef-construction", arguments->hnsw.ef_construction, "Effort of building")
      ->capture_default_str();
  command->add_option("--rerank", arguments->rerank, "What candidates are scored by once more")
      ->check(CLI::IsMember(kRerankNames))
      ->capture_default_str();
  command->add_option("--threads", arguments->hnsw.link_threads, "With one, the same vectors give the same file")
      ->capture_default_str();
  command->add_option("--seed", arguments->hnsw.seed, "Of the graph's levels")->capture_default_str();
  command->add_option("--limit", arguments->limit, "Take at most so many vectors")->check(CLI::PositiveNumber);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer("Example:\n  freshet index build base.fvecs --metric l2 --threads 2 --out /tmp/base.index");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunBuild(*arguments)); }; });
}

void AddQuery(CLI::App* parent, CommandRunner* run) {
  auto arguments = std::make_shared<QueryArguments>();
  arguments->search.k = 10;
  CLI::App* command = parent->add_subcommand(
      "query", "Ask an index file: one line a hit (query, rank, label, score; higher is better).");
  command->add_option("INDEX", arguments->index, "The index file")->required();
  command->add_option("--queries", arguments->queries, "Vectors, in a file as `build` takes")->required();
  command->add_option("--k", arguments->search.k, "Hits a query")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--ef", arguments->search.ef, "Effort (0: chosen from k and the number of rows)")
      ->capture_default_str();
  command->add_flag("--exact", arguments->search.exact, "Scan everything");
  command->add_flag("--recall", arguments->recall, "Also scan, and say how much of that was found");
  command->add_option("--open", arguments->open, "mapped: where it lies, read as it is needed; memory: whole")
      ->check(CLI::IsMember({"mapped", "memory"}))
      ->capture_default_str();
  command->add_option("--limit", arguments->limit, "Ask at most so many")->check(CLI::PositiveNumber);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer("Example:\n  freshet index query /tmp/base.index --queries query.fvecs --k 10 --recall");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunQuery(*arguments)); }; });
}

void AddInspect(CLI::App* parent, CommandRunner* run) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = parent->add_subcommand("inspect", "Say what is in an index file, and whether it is whole.");
  command->add_option("INDEX", arguments->index, "The index file")->required();
  command->add_flag("--verify", arguments->verify, "Read and check every byte");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer("Example:\n  freshet index inspect /tmp/base.index --verify");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunInspect(*arguments)); }; });
}

}  // namespace

void AddIndexCommand(CLI::App* app, CommandRunner* run) {
  CLI::App* command = app->add_subcommand("index", "The index without Kafka: build, query and inspect index files.");
  command->require_subcommand(1);
  command->footer(
      "Example:\n  freshet index build base.fvecs --metric l2 --out /tmp/base.index\n"
      "  freshet index query /tmp/base.index --queries query.fvecs --k 10 --recall\n"
      "  freshet index inspect /tmp/base.index");
  AddBuild(command, run);
  AddQuery(command, run);
  AddInspect(command, run);
}

}  // namespace freshet
