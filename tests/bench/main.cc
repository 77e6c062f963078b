// freshet_bench NAME [--json] [--quick]: the benchmarks, each beside a peer in the same run.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "index_bench.h"

int main(int argc, char** argv) {
  using namespace freshet;
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
  index_app->add_option("--rounds", index.rounds, "Interleaved rounds; medians are reported")->capture_default_str();
  index_app->add_option("--seed", index.seed, "Of the generator")->capture_default_str();
  index_app->add_option("--k", index.ks, "Result counts")->capture_default_str();
  index_app->add_flag("!--no-peer", index.peer, "Only ours: to compare two builds of it");
  CLI11_PARSE(app, argc, argv);

  Result<bench::Report> report = bench::RunIndexBench(index);
  if (!report.ok()) {
    (void)std::fprintf(stderr, "freshet_bench: %s\n", report.status().ToString().c_str());
    return 1;
  }
  (void)std::printf("%s\n", (json ? bench::ToJson(*report) : bench::ToTable(*report)).c_str());
  return 0;
}
