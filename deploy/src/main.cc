// freshet: one binary, one sub-command a job.
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <exception>
#include <iostream>

#include "freshet/deploy/commands.h"
#include "freshet/encoder/package.h"

namespace {

// OpenBLAS chooses its kernels when it is loaded. Where it does not know the processor, commands that compute for long
// begin anew, as the same process, with the choice made for it. If that fails they only are slower.
void ChooseBlas(const CLI::App& app, char** argv) {
  for (const char* name : {"run", "sidecar", "train", "evaluate"}) {
    if (!app.got_subcommand(name)) continue;
    const std::string core = freshet::BetterBlasCore();
    if (core.empty() || ::setenv("OPENBLAS_CORETYPE", core.c_str(), 0) != 0) return;
    (void)::execv("/proc/self/exe", argv);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "freshet: a streaming vector-recall engine for recommenders.\n"
      "What a producer writes to Kafka comes back as a recommendation, within milliseconds.",
      "freshet");
  app.set_version_flag("--version", std::string("freshet ") + FRESHET_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Try it:\n  deploy/demo\n\n"
      "Each sub-command explains itself with --help and an example. The examples follow each other, from the\n"
      "repository's root and with build/release in PATH: import, train, evaluate, model, broker, run, sidecar, replay, "
      "query.\n"
      "Exit codes: 0, 1 failure, 2 usage, 69 dependency unavailable, 78 configuration.");
  freshet::CommandRunner run;
  freshet::AddRunCommand(&app, &run);
  freshet::AddSidecarCommand(&app, &run);
  freshet::AddBrokerCommand(&app, &run);
  freshet::AddImportCommand(&app, &run);
  freshet::AddReplayCommand(&app, &run);
  freshet::AddTrainCommand(&app, &run);
  freshet::AddEvaluateCommand(&app, &run);
  freshet::AddModelCommand(&app, &run);
  freshet::AddIndexCommand(&app, &run);
  freshet::AddQueryCommand(&app, &run);
  freshet::AddDeadLettersCommand(&app, &run);
  freshet::AddStoreCommand(&app, &run);
  freshet::AddSnapshotCommand(&app, &run);
  freshet::AddConfigCommand(&app, &run);
  try {
    app.parse(argc, argv);
    ChooseBlas(app, argv);
    return run ? run() : 2;
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::cerr << "freshet: " << e.what() << "\n";
    return 1;
  }
}
