// freshet: one binary, one sub-command a job.
#include <dlfcn.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

#include "freshet/deploy/commands.h"
#include "freshet/encoder/package.h"
#include "freshet/encoder/training.h"

namespace {

// What libraries read when they are loaded, where nobody has set it: commands that compute for long begin anew, as the
// same process, with it. If that fails they only are slower.
//
// OpenBLAS chooses its kernels by a processor that it may not know. A training asks for the same large matrices at each
// step, and jemalloc gives what is large back to the system at once: a third of the time went into page faults. Only
// where the allocator is jemalloc.
void BeginAsItComputes(const CLI::App& app, char** argv) {
  const auto set = [](const char* name, const std::string& value) {
    return std::getenv(name) == nullptr && ::setenv(name, value.c_str(), 0) == 0;
  };
  for (const char* name : {"run", "sidecar", "train", "evaluate"}) {
    if (!app.got_subcommand(name)) continue;
    const std::string core = freshet::BetterBlasCore();
    bool changed = !core.empty() && set("OPENBLAS_CORETYPE", core);
    if (std::string_view(name) == "train" && ::dlsym(RTLD_DEFAULT, "mallctl") != nullptr) {
      changed |= set("MALLOC_CONF", freshet::kTrainingMallocConf);
    }
    if (changed) (void)::execv("/proc/self/exe", argv);
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
    BeginAsItComputes(app, argv);
    return run ? run() : 2;
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::cerr << "freshet: " << e.what() << "\n";
    return 1;
  }
}
