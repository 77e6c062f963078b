// `freshet config check`: every mistake at once, with line and fix.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/deploy/config.h"

namespace freshet {
namespace {

int Check(const std::string& path, const std::vector<std::string>& overrides, bool json) {
  const auto config = LoadConfig(path, overrides);
  if (json) {
    JsonWriter out;
    out.BeginObject().Key("ok").Bool(config.ok()).Key("errors").BeginArray();
    if (!config.ok()) {
      for (const std::string& line : Split(config.status().message(), '\n')) out.String(line);
    }
    out.EndArray().EndObject();
    std::cout << out.Take() << "\n";
  }
  if (!config.ok()) return ExitCode(config.status());
  if (!json) std::cout << path << ": ok\n";
  return 0;
}

}  // namespace

void AddConfigCommand(CLI::App* app, CommandRunner* run) {
  auto* command = app->add_subcommand("config", "Check a configuration file");
  command->require_subcommand(1);
  auto* check = command->add_subcommand("check", "Report every mistake at once, with line and fix");
  auto path = std::make_shared<std::string>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  auto json = std::make_shared<bool>(false);
  check->add_option("file", *path, "YAML file")->required()->type_name("FILE");
  check->add_option("--set", *overrides, "Override one key of the file; may be repeated")->type_name("KEY.PATH=VALUE");
  check->add_flag("--json", *json, "Print one JSON object");
  check->footer("Example:\n  freshet config check deploy/config/engine.yaml");
  check->callback([=] { *run = [=] { return Check(*path, *overrides, *json); }; });
}

}  // namespace freshet
