// `freshet run` and `freshet sidecar`: the long-running processes.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <thread>

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/deploy/sidecar.h"
#include "freshet/query/http_server.h"

namespace freshet {
namespace {

constexpr auto kWatchEvery = std::chrono::milliseconds(50);

struct ServiceArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string address_file;
};

template <typename Service>
bool WantsRestart(const Service& service) {
  if constexpr (requires { service.wants_restart(); }) return service.wants_restart();
  return false;
}

// Starts a Service (Engine or Sidecar), watches it until a signal, a failure, or its wish to be started anew, stops it.
template <typename Service>
Status RunOnce(const ServiceArguments& arguments, const Config& config, const char* name, bool* again) {
  *again = false;
  auto bar = std::make_unique<ProgressBar>("rebuilding the index");
  auto service = Service::Start(config, [&](double fraction) { bar->Update(fraction, ""); });
  bar.reset();
  if (!service.ok()) return service.status().Prefixed(name);
  if (!arguments.address_file.empty()) {
    FRESHET_TRY(WriteFileAtomically(arguments.address_file, (*service)->http_address() + "\n"));
  }
  LogInfo(name, "running", {{"items", StrCat((*service)->applier().catalog().live())}});
  while (!StopRequested() && (*service)->status().ok() && !WantsRestart(**service)) {
    std::this_thread::sleep_for(kWatchEvery);
  }
  *again = !StopRequested() && (*service)->status().ok();
  LogInfo(name, *again ? "stopping, to start anew" : "stopping");
  const Status stopped = (*service)->Stop();
  LogInfo(name, "stopped", {{"sequence", StrCat((*service)->applier().sequence())}});
  return stopped.Prefixed(name);
}

template <typename Service>
int RunService(const ServiceArguments& arguments, const char* name) {
  const auto config = LoadConfig(arguments.config, arguments.overrides);
  if (!config.ok()) return ExitCode(config.status());
  ConfigureLog(config->log_format, config->log_level);
  if (const Status armed = ArmFaultsFromEnvironment(); !armed.ok()) return ExitCode(armed);
  InstallStopSignals();
  RaiseFileLimit();
  Status status;
  bool again = true;
  while (status.ok() && again) status = RunOnce<Service>(arguments, *config, name, &again);
  return ExitCode(status);
}

template <typename Service>
void AddService(CLI::App* app, CommandRunner* run, const char* name, const char* what, const std::string& footer) {
  auto* command = app->add_subcommand(name, what);
  auto arguments = std::make_shared<ServiceArguments>();
  command->add_option("--config", arguments->config, "YAML file; see deploy/config")->required()->type_name("FILE");
  command->add_option("--set", arguments->overrides, "Override one key of the file; may be repeated")
      ->type_name("KEY.PATH=VALUE");
  command->add_option("--address-file", arguments->address_file, "Write host:port to this file once it answers")
      ->type_name("FILE");
  command->footer(footer);
  command->callback(
      [arguments, run, name] { *run = [arguments, name] { return RunService<Service>(*arguments, name); }; });
}

}  // namespace

void AddRunCommand(CLI::App* app, CommandRunner* run) {
  AddService<Engine>(
      app, run, "run", "The engine: Kafka -> encoder -> index and store -> changelog; answers if `query:` is set",
      "Example (after those of import, train and broker):\n"
      "  freshet run --config deploy/config/demo-engine.yaml --set data_dir=/tmp/shop/engine \\\n"
      "    --set encoder.package=/tmp/shop/model --set encoder.allowed_root=/tmp/shop \\\n"
      "    --set kafka.bootstrap_servers=\"$(cat /tmp/broker.address)\" --set query.listen=127.0.0.1:8080 &\n\n"
      "deploy/config/engine.yaml explains every setting. SIGTERM drains, commits and exits 0; a second one exits at\n"
      "once and loses nothing either.");
}

void AddSidecarCommand(CLI::App* app, CommandRunner* run) {
  AddService<Sidecar>(
      app, run, "sidecar", "Follow the changelog and answer, beside the recommender",
      "Example (after that of run):\n"
      "  freshet sidecar --config deploy/config/demo-sidecar.yaml --set data_dir=/tmp/shop/sidecar \\\n"
      "    --set encoder.package=/tmp/shop/model --set encoder.allowed_root=/tmp/shop \\\n"
      "    --set kafka.bootstrap_servers=\"$(cat /tmp/broker.address)\" --set query.listen=127.0.0.1:8081 &\n\n"
      "Its model package must be the engine's: vectors of two models are never mixed.");
}

}  // namespace freshet
