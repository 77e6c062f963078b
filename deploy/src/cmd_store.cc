// `freshet store dump`: what a data directory holds, for audits and for comparing two of them.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "freshet/core/checksum.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/store/store.h"

namespace freshet {
namespace {

Status DumpItems(const Store& store) {
  return store.ForEachItem([&](std::string_view id, const ItemRow& row) -> Status {
    FRESHET_ASSIGN(const auto vector, store.GetVector(row.label));
    FRESHET_ASSIGN(const auto attributes, store.GetAttributes(id));
    if (!vector || !attributes) return Corruption(StrCat("item `", id, "` has no vector or no attributes"));
    JsonWriter out;
    out.BeginObject().Key("item_id").String(id).Key("sequence").Uint(row.sequence);
    out.Key("partition").Int(row.position.partition).Key("offset").Int(row.position.offset);
    out.Key("vector_xxh3").Uint(Xxh3({reinterpret_cast<const char*>(vector->data()), vector->size() * sizeof(float)}));
    out.Key("attributes").Raw(AttributesToJson(*attributes)).EndObject();
    std::cout << out.Take() << "\n";
    return Status::Ok();
  });
}

Status DumpUsers(const Store& store) {
  return store.ForEachUser([](std::string_view id, const UserState& user) {
    JsonWriter out;
    out.BeginObject().Key("user_id").String(id).Key("history").BeginArray();
    for (const HistoryEntry& entry : user.history) {
      out.BeginObject().Key("item_id").String(entry.item_id).Key("event").String(entry.event);
      out.Key("value").Double(entry.value).Key("timestamp").Int(entry.timestamp_ms).EndObject();
    }
    out.EndArray().Key("seen").Uint(user.seen.size()).EndObject();
    std::cout << out.Take() << "\n";
    return Status::Ok();
  });
}

Status Dump(const std::string& directory) {
  FRESHET_ASSIGN(const std::unique_ptr<Store> store, Store::OpenExisting(directory));
  FRESHET_TRY(DumpItems(*store));
  FRESHET_TRY(DumpUsers(*store));
  FRESHET_ASSIGN(const auto progress, store->Progress());
  for (const auto& [partition, row] : progress) {
    JsonWriter out;
    out.BeginObject().Key("topic").String(partition.topic).Key("partition").Int(partition.partition);
    out.Key("next_offset").Int(row.next_offset).EndObject();
    std::cout << out.Take() << "\n";
  }
  return Status::Ok();
}

}  // namespace

void AddStoreCommand(CLI::App* app, CommandRunner* run) {
  auto* command = app->add_subcommand("store", "Look into a data directory");
  command->require_subcommand(1);
  auto* dump =
      command->add_subcommand("dump", "Items, users and offsets as JSON lines; no process may hold the directory");
  auto directory = std::make_shared<std::string>();
  dump->add_option("directory", *directory, "data_dir of an engine or a sidecar")->required()->type_name("DIR");
  dump->footer("Example (after that of run, once it has stopped):\n  freshet store dump /tmp/shop/engine | head -n 3");
  dump->callback([=] { *run = [=] { return ExitCode(Dump(*directory)); }; });
}

}  // namespace freshet
