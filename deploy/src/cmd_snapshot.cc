// `freshet snapshot`: create, list, verify, restore, prune and compare snapshots.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <map>
#include <memory>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/deploy/config.h"
#include "freshet/store/restore.h"
#include "freshet/store/snapshot_repository.h"
#include "freshet/store/snapshotter.h"

namespace freshet {
namespace {

struct SnapshotArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string directory;
  std::string data_dir;
  std::vector<std::string> ids;
  std::string id;
  bool follower = false;
  bool json = false;
  bool dry_run = false;
  int timeout_seconds = 3600;
  Retention keep;
  std::int64_t keep_hours = 0;
};

// What the command line does not say comes from the configuration file.
Status FillIn(SnapshotArguments* arguments, bool wants_data_dir) {
  if (!arguments->config.empty()) {
    FRESHET_ASSIGN(const Config config, LoadConfig(arguments->config, arguments->overrides));
    if (arguments->directory.empty()) arguments->directory = config.snapshots.directory;
    if (arguments->data_dir.empty()) arguments->data_dir = config.data_dir;
  }
  if (arguments->directory.empty()) return ConfigError("say where the snapshots are: --directory, or --config");
  if (wants_data_dir && arguments->data_dir.empty()) {
    return ConfigError("say where the data is: --data-dir, or --config");
  }
  return Status::Ok();
}

std::string TimeText(std::int64_t unix_ms) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

void WriteEntry(const SnapshotEntry& entry, JsonWriter* out) {
  out->BeginObject().Key("id").String(entry.id).Key("ok").Bool(entry.status.ok());
  if (entry.status.ok()) {
    const SnapshotManifest& manifest = entry.manifest;
    out->Key("created").String(TimeText(manifest.created_ms)).Key("epoch").Uint(manifest.epoch);
    out->Key("sequence").Uint(manifest.sequence).Key("items").Uint(manifest.items).Key("users").Uint(manifest.users);
    out->Key("bytes").Uint(manifest.bytes()).Key("space_id").String(manifest.space_id);
    out->Key("host").String(manifest.host).Key("model").String(manifest.model);
  } else {
    out->Key("reason").String(entry.status.message());
  }
  out->EndObject();
}

void PrintEntry(const SnapshotEntry& entry, const std::string& more) {
  if (entry.status.ok()) {
    std::cout << entry.id << "  " << TimeText(entry.manifest.created_ms) << "  sequence " << entry.manifest.sequence
              << "  " << entry.manifest.items << " items  " << entry.manifest.bytes() << " bytes  "
              << entry.manifest.host << more << "\n";
  } else {
    std::cout << entry.id << "  DAMAGED: " << entry.status.message() << "\n";
  }
}

Status PrintEntries(const std::vector<SnapshotEntry>& entries, bool json) {
  JsonWriter out;
  out.BeginObject().Key("snapshots").BeginArray();
  for (const SnapshotEntry& entry : entries) {
    if (json) {
      WriteEntry(entry, &out);
    } else {
      PrintEntry(entry, "");
    }
  }
  if (json) std::cout << out.EndArray().EndObject().Take() << "\n";
  if (!json && entries.empty()) std::cerr << "there are no snapshots\n";
  return Status::Ok();
}

Status List(const SnapshotArguments& arguments) {
  FRESHET_ASSIGN(const auto entries, OpenLocalRepository(arguments.directory)->List());
  return PrintEntries(entries, arguments.json);
}

Status Verify(const SnapshotArguments& arguments) {
  const auto repository = OpenLocalRepository(arguments.directory);
  FRESHET_ASSIGN(std::vector<SnapshotEntry> entries, repository->List());
  if (!arguments.ids.empty()) {
    std::vector<SnapshotEntry> chosen;
    for (const std::string& id : arguments.ids) {
      const auto it = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.id == id; });
      if (it == entries.end()) return NotFound(StrCat(arguments.directory, ": holds no snapshot ", id));
      chosen.push_back(*it);
    }
    entries = std::move(chosen);
  }
  // Who relies on there being some asks, and a wrong path has none.
  if (entries.empty()) return NotFound(StrCat(arguments.directory, ": there are no snapshots"));
  std::uint64_t total = 1;
  for (const SnapshotEntry& entry : entries) total += entry.manifest.bytes();
  std::uint64_t done = 0;
  Status first;
  {
    ProgressBar bar("verifying");
    for (SnapshotEntry& entry : entries) {
      if (entry.status.ok()) {
        entry.status = repository->Verify(entry.manifest, [&](std::uint64_t bytes) {
          done += bytes;
          bar.Update(static_cast<double>(done) / static_cast<double>(total), entry.id);
          return Status::Ok();
        });
      }
      if (first.ok()) first = entry.status;
    }
  }
  FRESHET_TRY(PrintEntries(entries, arguments.json));
  return first;
}

Status RestoreTo(const SnapshotArguments& arguments) {
  RestoreOptions options;
  options.data_dir = arguments.data_dir;
  options.id = arguments.id;
  options.follower = arguments.follower;
  auto bar = std::make_unique<ProgressBar>("restoring");
  options.progress = [&](double fraction) { bar->Update(fraction, ""); };
  const auto restored = RestoreSnapshot(*OpenLocalRepository(arguments.directory), options);
  bar.reset();
  if (!restored.ok()) return restored.status();
  if (arguments.json) {
    JsonWriter out;
    out.BeginObject().Key("restored").String(restored->manifest.id).Key("data_dir").String(arguments.data_dir);
    out.Key("items").Uint(restored->manifest.items).Key("sequence").Uint(restored->manifest.sequence);
    out.Key("refused").BeginArray();
    for (const std::string& reason : restored->refused) out.String(reason);
    std::cout << out.EndArray().EndObject().Take() << "\n";
  } else {
    for (const std::string& reason : restored->refused) std::cerr << "refused " << reason << "\n";
    std::cout << arguments.data_dir << " is as " << restored->manifest.id << ": " << restored->manifest.items
              << " items, sequence " << restored->manifest.sequence << "\n";
  }
  return Status::Ok();
}

Status PruneNow(const SnapshotArguments& arguments) {
  Retention keep = arguments.keep;
  keep.max_age_ms = arguments.keep_hours * 3'600'000;
  const auto repository = OpenLocalRepository(arguments.directory);
  FRESHET_ASSIGN(const auto removed, Prune(repository.get(), keep, SystemClock().WallMs(), arguments.dry_run));
  if (arguments.json) {
    JsonWriter out;
    out.BeginObject().Key("dry_run").Bool(arguments.dry_run).Key("removed").BeginArray();
    for (const std::string& id : removed) out.String(id);
    std::cout << out.EndArray().EndObject().Take() << "\n";
  } else {
    for (const std::string& id : removed) std::cout << (arguments.dry_run ? "would remove " : "removed ") << id << "\n";
  }
  return Status::Ok();
}

Status Diff(const SnapshotArguments& arguments) {
  if (arguments.ids.size() != 2) return ConfigError("name two snapshots");
  const auto repository = OpenLocalRepository(arguments.directory);
  FRESHET_ASSIGN(const SnapshotManifest a, repository->Read(arguments.ids[0]));
  FRESHET_ASSIGN(const SnapshotManifest b, repository->Read(arguments.ids[1]));
  std::uint64_t shared = 0;
  for (const SnapshotFile& file : b.files) {
    const SnapshotFile* other = a.Find(file.name);
    if (other != nullptr && other->xxh3 == file.xxh3) shared += file.bytes;
  }
  std::map<TopicPartition, std::pair<std::int64_t, std::int64_t>> offsets;
  for (const PartitionProgress& row : a.offsets) offsets[row.partition].first = row.next_offset;
  for (const PartitionProgress& row : b.offsets) offsets[row.partition].second = row.next_offset;
  const auto change = [](std::uint64_t from, std::uint64_t to) {
    return static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from);
  };
  JsonWriter out;
  out.BeginObject().Key("from").String(a.id).Key("to").String(b.id).Key("same_store").Bool(a.epoch == b.epoch);
  out.Key("same_space").Bool(a.space_id == b.space_id).Key("sequence").Int(change(a.sequence, b.sequence));
  out.Key("items").Int(change(a.items, b.items)).Key("users").Int(change(a.users, b.users));
  out.Key("seconds").Double(static_cast<double>(b.created_ms - a.created_ms) * 1e-3);
  out.Key("bytes").Uint(b.bytes()).Key("shared_bytes").Uint(shared).Key("offsets").BeginArray();
  for (const auto& [partition, pair] : offsets) {
    if (pair.first == pair.second) continue;
    out.BeginObject().Key("topic").String(partition.topic).Key("partition").Int(partition.partition);
    out.Key("from").Int(pair.first).Key("to").Int(pair.second).EndObject();
  }
  const std::string json = out.EndArray().EndObject().Take();
  if (arguments.json) {
    std::cout << json << "\n";
    return Status::Ok();
  }
  std::cout << a.id << " -> " << b.id << (a.epoch == b.epoch ? "" : " (another store)")
            << (a.space_id == b.space_id ? "" : " (another embedding space)") << "\n"
            << "sequence " << std::showpos << change(a.sequence, b.sequence) << ", items " << change(a.items, b.items)
            << ", users " << change(a.users, b.users) << std::noshowpos << "\n"
            << b.bytes() << " bytes, " << shared << " of them shared\n";
  for (const auto& [partition, pair] : offsets) {
    if (pair.first == pair.second) continue;
    std::cout << partition.topic << "[" << partition.partition << "] " << pair.first << " -> " << pair.second << "\n";
  }
  return Status::Ok();
}

Status Create(const SnapshotArguments& arguments) {
  FRESHET_ASSIGN(const std::string reply,
                 AskForSnapshot(arguments.data_dir, std::chrono::seconds(arguments.timeout_seconds)));
  FRESHET_ASSIGN(const SnapshotManifest manifest, OpenLocalRepository(arguments.directory)->Read(reply));
  return PrintEntries({{manifest.id, Status::Ok(), manifest}}, arguments.json);
}

using Job = Status (*)(const SnapshotArguments&);

}  // namespace

void AddSnapshotCommand(CLI::App* app, CommandRunner* run) {
  auto* command = app->add_subcommand("snapshot", "Take, look at and restore snapshots");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, const std::string& footer, Job job, bool wants_data_dir) {
    auto* sub = command->add_subcommand(name, what);
    auto arguments = std::make_shared<SnapshotArguments>();
    sub->add_option("--config", arguments->config, "Take snapshots.directory and data_dir from this file")
        ->type_name("FILE");
    sub->add_option("--set", arguments->overrides, "Override one key of the file; may be repeated")
        ->type_name("KEY.PATH=VALUE");
    sub->add_option("--directory", arguments->directory, "Where the snapshots are")->type_name("DIR");
    sub->add_flag("--json", arguments->json, "Print one JSON object");
    sub->footer(footer);
    sub->callback([=] {
      *run = [=] {
        if (const Status armed = ArmFaultsFromEnvironment(); !armed.ok()) return ExitCode(armed);
        const Status filled = FillIn(arguments.get(), wants_data_dir);
        return ExitCode(filled.ok() ? job(*arguments) : filled);
      };
    });
    if (wants_data_dir) {
      sub->add_option("--data-dir", arguments->data_dir, "data_dir of the engine or sidecar")->type_name("DIR");
    }
    return std::pair(sub, arguments);
  };
  {
    const auto [sub, arguments] =
        add("create", "Have the engine that runs on this data directory take one, and wait for it",
            "Example (while the engine runs):\n  freshet snapshot create --config engine.yaml", &Create, true);
    sub->add_option("--timeout", arguments->timeout_seconds, "Seconds to wait")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
  }
  add("list", "Newest first; what is damaged last, with the reason",
      "Example:\n  freshet snapshot list --directory /var/lib/freshet/snapshots --json", &List, false);
  {
    const auto [sub, arguments] = add("verify", "Read every byte of all snapshots, or of those named",
                                      "Example:\n  freshet snapshot verify --directory /var/lib/freshet/snapshots\n"
                                      "Exit codes: 0 all are whole, 1 one is not.",
                                      &Verify, false);
    sub->add_option("ids", arguments->ids, "Which; default: all")->type_name("ID");
  }
  {
    const auto [sub, arguments] = add(
        "restore", "Put a snapshot into a data directory that no process holds; what was there goes to DIR/damaged",
        "Examples:\n"
        "  freshet snapshot restore --config engine.yaml                        # the newest that is whole\n"
        "  freshet snapshot restore --config engine.yaml --snapshot 20261121t131502-12345   # roll back to that one\n"
        "  freshet snapshot restore --config sidecar.yaml --follower",
        &RestoreTo, true);
    sub->add_option("--snapshot", arguments->id, "Which; default: the newest that is whole")->type_name("ID");
    sub->add_flag("--follower", arguments->follower, "For a sidecar: it goes on at the changelog's position");
  }
  {
    const auto [sub, arguments] =
        add("prune", "Remove what the bounds do not allow, oldest first; the newest good one always stays",
            "Example:\n  freshet snapshot prune --directory /var/lib/freshet/snapshots --keep-count 3 --dry-run",
            &PruneNow, false);
    sub->add_option("--keep-count", arguments->keep.max_count, "At most so many")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    sub->add_option("--keep-hours", arguments->keep_hours, "None older than that (0: no limit)");
    sub->add_option("--keep-bytes", arguments->keep.max_bytes, "At most so many bytes, shared ones once (0: no limit)");
    sub->add_flag("--dry-run", arguments->dry_run, "Only say what would go");
  }
  {
    const auto [sub, arguments] =
        add("diff", "What changed between two snapshots",
            "Example:\n  freshet snapshot diff --directory /var/lib/freshet/snapshots A B", &Diff, false);
    sub->add_option("ids", arguments->ids, "Two snapshots")->required()->expected(2)->type_name("ID");
  }
}

}  // namespace freshet
