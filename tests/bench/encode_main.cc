// freshet_encode_bench [--json] [--quick]: `freshet_bench encode` where nothing but the encoder is built.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "encode_bench.h"
#include "freshet/encoder/package.h"

int main(int argc, char** argv) {
  // As freshet_bench does.
  if (const std::string core = freshet::BetterBlasCore();
      !core.empty() && ::setenv("OPENBLAS_CORETYPE", core.c_str(), 0) == 0) {
    (void)::execv("/proc/self/exe", argv);
  }
  freshet::bench::EncodeBenchOptions options;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      json = true;
    } else if (argument == "--quick") {
      options.quick = true;
    } else {
      std::fprintf(stderr, "usage: freshet_encode_bench [--json] [--quick]\n");
      return 2;
    }
  }
  const auto report = freshet::bench::RunEncodeBench(options);
  if (!report.ok()) {
    std::fprintf(stderr, "freshet_encode_bench: %s\n", report.status().ToString().c_str());
    return 1;
  }
  std::fputs((json ? ToJson(*report) : ToTable(*report)).c_str(), stdout);
  return 0;
}
