// freshet_bench NAME [--json] [--quick]: the benchmarks, each beside a peer in the same run.
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>

#include "answer.h"
#include "churn_bench.h"
#include "encode_bench.h"
#include "freshet/encoder/package.h"
#include "freshet/encoder/training.h"
#include "index_bench.h"
#include "ingest_bench.h"
#include "sidecar_bench.h"
#include "soak_bench.h"
#include "store_bench.h"

int main(int argc, char** argv) {
  // As freshet does (deploy/src/main.cc), for us and for our peers.
  const std::string core = freshet::BetterBlasCore();
  bool changed = !core.empty() && ::setenv("OPENBLAS_CORETYPE", core.c_str(), 0) == 0;
  // Of what `encode` measures it moves the training, and nothing else.
  if (argc > 1 && std::string_view(argv[1]) == "encode" && std::getenv("MALLOC_CONF") == nullptr) {
    changed |= ::setenv("MALLOC_CONF", freshet::kTrainingMallocConf, 0) == 0;
  }
  if (changed) (void)::execv("/proc/self/exe", argv);
  namespace bench = freshet::bench;
  CLI::App app("Benchmarks of freshet, each beside a peer in the same run.\n\nExample:\n  freshet_bench index --quick");
  app.require_subcommand(1);
  bool json = false;
  bench::IndexBenchOptions index;
  CLI::App* index_app =
      app.add_subcommand("index",
                         "Our index beside hnswlib 0.8.0 over floats: recall beside speed, build rate, memory.\n\n"
                         "Example:\n  freshet_bench index --data synthetic --vectors 1000000 --json");
  index_app->add_flag("--json", json, "One JSON object on standard output");
  index_app->add_flag("--quick", index.quick, "A smoke test of a few seconds");
  index_app->add_option("--data", index.data, "`synthetic`, or the directory of SIFT-100k (base.u8bin, query.u8bin)")
      ->capture_default_str();
  index_app->add_option("--vectors", index.vectors, "At most this many")->capture_default_str();
  index_app->add_option("--queries", index.queries, "At most this many")->capture_default_str();
  index_app->add_option("--dim", index.dim, "Of the synthetic vectors")->capture_default_str();
  index_app->add_option("--clusters", index.clusters, "Of the synthetic vectors, as even as chance makes them")
      ->capture_default_str();
  index_app->add_option("--slack", index.slack, "Of our links: 1 keeps the fewest, and those that lead the furthest")
      ->capture_default_str();
  index_app->add_option("--rounds", index.rounds, "Interleaved rounds; medians are reported")->capture_default_str();
  index_app->add_option("--build-threads", index.build_threads, "Threads that link")->capture_default_str();
  index_app->add_option("--seed", index.seed, "Of the generator")->capture_default_str();
  index_app->add_option("--k", index.ks, "Result counts")->capture_default_str();
  index_app->add_option("--rerank-dir", index.rerank_dir,
                        "Re-rank rows in a file of this directory; also searches with them out of memory");
  index_app->add_flag("!--no-curves", index.curves, "Only build, memory, exclusions and what is out of memory");
  index_app->add_flag("!--no-kinds", index.kinds, "Neither the mapped nor the flat kind, nor batches");
  index_app->add_flag("!--no-exclusions", index.exclusions, "No exclusion lists, which need many exact searches");
  index_app->add_option("--growth", index.growth,
                        "Only what a query costs over synthetic sets of these sizes, beside their logarithm");
  index_app->add_option("--dir", index.directory, "Where the index file goes meanwhile")->capture_default_str();
  index_app->add_flag("!--no-peer", index.peer, "Only ours: to compare two builds of it");
  index_app->add_flag("!--no-live", index.live, "No adds to what is being searched");
  index_app->add_flag("!--no-resident", index.resident, "Not opened again for its memory");
  index_app->add_option(
      "--export", index.export_to,
      "Only writes the vectors, as base.fbin and query.fbin of this directory, for tests/bench/peers");

  bench::ChurnBenchOptions churn;
  CLI::App* churn_app = app.add_subcommand(
      "churn",
      "Recall and memory when vectors come and go: ours beside a fresh build, hnswlib with mark-delete and with\n"
      "replace_deleted; and the time of a search during maintenance.\n\n"
      "Example:\n  freshet_bench churn --data DIR --runbooks DIR --svg churn.svg --json");
  churn_app->add_flag("--json", json, "One JSON object on standard output");
  churn_app->add_flag("--quick", churn.quick, "A smoke test of a few seconds");
  churn_app
      ->add_option("--data", churn.data,
                   "`synthetic`, or the directory of SIFT-100k (base.u8bin, query.u8bin, photo_id.u16)")
      ->capture_default_str();
  churn_app->add_option("--runbooks", churn.runbooks, "The directory of the streaming track's runbooks");
  churn_app->add_option("--only", churn.only, "Plans whose name holds this");
  churn_app->add_option("--rows", churn.rows, "At most this many vectors; runbooks are scaled to them")
      ->capture_default_str();
  churn_app->add_option("--queries", churn.queries, "At most this many")->capture_default_str();
  churn_app->add_option("--live", churn.live, "Live rows of the turnovers and the drift")->capture_default_str();
  churn_app->add_option("--turnovers", churn.turnovers, "So many times the live rows are replaced")
      ->capture_default_str();
  churn_app
      ->add_option("--fresh-every", churn.fresh_every, "In plans of over 20 searches, a fresh build at each of these")
      ->capture_default_str();
  churn_app->add_option("--seed", churn.seed, "Of the generator and of what dies")->capture_default_str();
  churn_app->add_option("--svg", churn.svg, "Writes the curves to this file");
  churn_app->add_flag("!--no-peer", churn.peer, "Only ours");
  churn_app->add_flag("!--no-latency", churn.latency, "Only recall and memory");
  std::string index_path;
  std::string queries_path;
  CLI::App* answer_app =
      app.add_subcommand("answer",
                         "Ours for tests/bench/peers: answers rounds of queries, as lines of standard input ask.\n\n"
                         "Example:\n  echo 10 64 1 1 - | freshet_bench answer --index base.index --queries query.fbin");
  answer_app->add_option("--index", index_path, "An index file")->required();
  answer_app->add_option("--queries", queries_path, "A file of vectors")->required();

  bench::StoreBenchOptions store;
  const auto add_store = [&](const char* name, const char* what) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->add_flag("--json", json, "One JSON object on standard output");
    sub->add_flag("--quick", store.quick, "A smoke test of a few seconds");
    sub->add_option("--directory", store.directory, "Where the data goes: the disk to measure")->capture_default_str();
    sub->add_option("--vectors", store.vectors, "So many items")->capture_default_str();
    sub->add_option("--dim", store.dim, "Of the vectors")->capture_default_str();
    sub->add_option("--batch", store.batch, "Items in a commit")->capture_default_str();
    sub->add_option("--rounds", store.rounds, "Interleaved rounds; medians are reported")->capture_default_str();
    sub->add_option("--seed", store.seed, "Of the generator")->capture_default_str();
    sub->add_flag("!--no-peer", store.peer, "Only ours");
    return sub;
  };
  CLI::App* store_app = add_store("store",
                                  "Commits by durability, beside a raw WriteBatch of the same bytes.\n\n"
                                  "Example:\n  freshet_bench store --json");
  CLI::App* restore_app =
      add_store("restore",
                "A snapshot of a busy engine, and restores of it, beside hnswlib's build of the graph.\n\n"
                "Example:\n  freshet_bench restore --vectors 200000 --json");
  restore_app
      ->add_option("--ef-construction", store.ef_construction,
                   "Of the graph: how big a file is, and what opening it costs, does not depend on it, so that a "
                   "low one shows restores of a big index in less time")
      ->capture_default_str();
  bench::EncodeBenchOptions encode;
  CLI::App* encode_app =
      app.add_subcommand("encode",
                         "One query through each user tower, and the item tower at two batch sizes, one thread.\n\n"
                         "Example:\n  freshet_bench encode --json");
  encode_app->add_flag("--json", json, "One JSON object on standard output");
  encode_app->add_flag("--quick", encode.quick, "A smoke test of a few seconds");
  encode_app->add_option("--dim", encode.dim, "Of the vectors")->capture_default_str();
  encode_app->add_option("--history", encode.history, "Interactions of the user")->capture_default_str();
  encode_app->add_option("--rounds", encode.rounds, "Interleaved rounds; medians are reported")->capture_default_str();
  bench::IngestBenchOptions ingest;
  CLI::App* ingest_app = app.add_subcommand(
      "ingest",
      "From Apache Kafka to typed events: kcat to /dev/null, a bare librdkafka poll loop, our consumer and decoder "
      "into\n"
      "a sink that drops; and memory while a later stage takes nothing. Needs deploy/setup --kafka.\n\n"
      "Example:\n  freshet_bench ingest --json");
  ingest_app->add_flag("--json", json, "One JSON object on standard output");
  ingest_app->add_flag("--quick", ingest.quick, "A smoke test of half a minute");
  ingest_app->add_option("--records", ingest.records, "In the topic")->capture_default_str();
  ingest_app->add_option("--partitions", ingest.partitions, "Of the topic")->capture_default_str();
  ingest_app->add_option("--rounds", ingest.rounds, "Interleaved rounds; medians are reported")->capture_default_str();
  bench::SidecarBenchOptions sidecar;
  const auto add_sidecar = [&](const char* name, const char* what) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->add_flag("--json", json, "One JSON object on standard output");
    sub->add_flag("--quick", sidecar.quick, "A smoke test of a few seconds");
    sub->add_option("--directory", sidecar.directory, "Where the data goes")->capture_default_str();
    sub->add_option("--keep", sidecar.keep, "The data goes here and stays: the next run need not build the index");
    sub->add_option("--vectors", sidecar.vectors, "So many items")->capture_default_str();
    sub->add_option("--dim", sidecar.dim, "Of the vectors")->capture_default_str();
    sub->add_option("--queries", sidecar.queries, "Different ones")->capture_default_str();
    sub->add_option("--rounds", sidecar.rounds, "Interleaved rounds; medians are reported")->capture_default_str();
    sub->add_option("--seed", sidecar.seed, "Of the generator")->capture_default_str();
    return sub;
  };
  CLI::App* sidecar_app = add_sidecar("sidecar",
                                      "The index called directly, RecallService, HTTP with JSON and in binary: one "
                                      "after the other, several at once, and at half load\nin an open loop; idle "
                                      "connections; p99 while updates are applied.\n\n"
                                      "Example:\n  freshet_bench sidecar --vectors 200000 --json");
  sidecar_app->add_option("--k", sidecar.ks, "Result counts")->capture_default_str();
  sidecar_app->add_option("--calls", sidecar.calls, "Of each in a round")->capture_default_str();
  sidecar_app->add_option("--connections", sidecar.connections, "That ask at once, for throughput")
      ->capture_default_str();
  CLI::App* filters_app = add_sidecar("filters",
                                      "Filters from 100% to 0.01% of the items, independent of the query or not: "
                                      "recall of exact, and time beside unfiltered.\n\n"
                                      "Example:\n  freshet_bench filters --vectors 200000 --json");
  bench::SoakOptions soak;
  CLI::App* soak_app = app.add_subcommand(
      "soak",
      "An engine and a sidecar as processes, under updates, snapshots and queries: memory, errors, answers that hold\n"
      "what is gone, and how long after its record's time a new item is found.\n\n"
      "Example:\n  freshet_bench soak --minutes 30");
  soak_app->add_flag("--json", json, "One JSON object on standard output");
  soak_app->add_flag("--quick", soak.quick, "A smoke test of half a minute, on the embedded broker");
  soak_app->add_flag(
      "--embedded", soak.embedded,
      "The embedded broker, which keeps its log in memory; otherwise Apache Kafka (deploy/setup --kafka)");
  soak_app->add_option("--directory", soak.directory, "Where the data goes")->capture_default_str();
  soak_app->add_option("--minutes", soak.minutes, "So long")->capture_default_str();
  soak_app->add_option("--items", soak.items, "That come and go")->capture_default_str();
  soak_app->add_option("--dim", soak.dim, "Of the vectors")->capture_default_str();
  soak_app->add_option("--updates", soak.updates_per_second, "A second")->capture_default_str();
  soak_app->add_option("--queries", soak.queries_per_second, "A second, at most")->capture_default_str();
  soak_app->add_option("--seed", soak.seed, "Of the generator")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  if (answer_app->parsed()) {
    const freshet::Status status = bench::RunAnswer(index_path, queries_path);
    if (!status.ok()) (void)std::fprintf(stderr, "freshet_bench: %s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }

  freshet::Result<bench::Report> report = churn_app->parsed()     ? bench::RunChurnBench(churn)
                                          : encode_app->parsed()  ? bench::RunEncodeBench(encode)
                                          : ingest_app->parsed()  ? bench::RunIngestBench(ingest)
                                          : sidecar_app->parsed() ? bench::RunSidecarBench(sidecar)
                                          : soak_app->parsed()    ? bench::RunSoakBench(soak)
                                          : filters_app->parsed() ? bench::RunFiltersBench(sidecar)
                                          : store_app->parsed()   ? bench::RunStoreBench(store)
                                          : restore_app->parsed() ? bench::RunRestoreBench(store)
                                                                  : bench::RunIndexBench(index);
  if (!report.ok()) {
    (void)std::fprintf(stderr, "freshet_bench: %s\n", report.status().ToString().c_str());
    return 1;
  }
  (void)std::printf("%s\n", (json ? bench::ToJson(*report) : bench::ToTable(*report)).c_str());
  return 0;
}
