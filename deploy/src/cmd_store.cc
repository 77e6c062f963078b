// `freshet store`: what a data directory holds, for audits and for comparing two of them, and whether it is whole.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>

#include "freshet/core/checksum.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/store/index_files.h"
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

// The first line: what all others are of.
void DumpIdentity(const Store& store) {
  JsonWriter out;
  out.BeginObject().Key("format").Uint(store.format()).Key("epoch").Uint(store.epoch());
  out.Key("sequence").Uint(store.sequence()).Key("space_id").String(store.options().space_id);
  out.Key("dim").Int(store.options().dim).Key("metric").String(MetricName(store.options().metric));
  out.Key("vectors").String(store.options().vectors == VectorType::kFp16 ? "fp16" : "fp32").EndObject();
  std::cout << out.Take() << "\n";
}

// Looks only: a store of an older format stays one.
Status Dump(const std::string& directory) {
  FRESHET_ASSIGN(const std::unique_ptr<Store> store, Store::OpenReadOnly(directory));
  DumpIdentity(*store);
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

// Live labels of the index file that the store names, against the store's items.
Status VerifyIndexFile(const Store& store, JsonWriter* out) {
  FRESHET_ASSIGN(const auto row, store.IndexFile());
  out->Key("index_file").BeginObject();
  if (!row) {
    out->Key("state").String("none: the index will be made from the stored vectors").EndObject();
    return Status::Ok();
  }
  HnswOptions options;
  options.dim = store.options().dim;
  options.metric = store.options().metric;
  const auto index = OpenHnswIndex(IndexFiles::PathOf(store.options().directory, row->tag), options);
  if (!index.ok()) {
    out->Key("state").String("cannot be used: " + index.status().message()).EndObject();
    return index.status().code() == Code::kCorruption ? index.status() : Status::Ok();
  }
  std::vector<Label> labels;
  FRESHET_TRY(store.ForEachItem([&](std::string_view, const ItemRow& item) {
    labels.push_back(item.label);
    return Status::Ok();
  }));
  std::sort(labels.begin(), labels.end());
  const std::vector<Label> live = (*index)->LiveLabels();
  const bool same = live == labels;
  const bool older = row->sequence != store.sequence();
  out->Key("state").String(same ? "equal to the store" : older ? "older: the next start makes it equal" : "differs");
  out->Key("live").Uint(live.size()).EndObject();
  return same || older ? Status::Ok() : Corruption("index file and store differ at the same sequence");
}

Status VerifyStore(const std::string& directory, const std::string& items_topic, bool json) {
  FRESHET_ASSIGN(const std::unique_ptr<Store> store, Store::OpenReadOnly(directory));
  auto bar = std::make_unique<ProgressBar>("verifying");
  const auto progress = [&](double fraction) {
    bar->Update(fraction, "");
    return Status::Ok();
  };
  const auto check = store->Check({items_topic, progress});
  bar.reset();
  if (!check.ok()) return check.status();
  JsonWriter out;
  out.BeginObject().Key("format").Uint(store->format());
  out.Key("items").Uint(check->items).Key("users").Uint(check->users);
  out.Key("outbox").Uint(check->outbox).Key("sequence").Uint(store->sequence());
  out.Key("offsets_compared").Uint(check->covered);
  out.Key("differences").Uint(check->differences).Key("examples").BeginArray();
  for (const std::string& example : check->examples) out.String(example);
  out.EndArray();
  const Status index = VerifyIndexFile(*store, &out);
  out.EndObject();
  if (json) {
    std::cout << out.Take() << "\n";
  } else {
    std::cout << directory << ": format " << store->format() << ", " << check->items << " items, " << check->users
              << " users, " << check->outbox << " unpublished records, sequence " << store->sequence() << ", "
              << check->differences << " differences\n";
    if (check->covered == 0 && check->items > 0) {
      std::cout << "  no item's offset was compared: none comes from topic `" << items_topic << "` (--items-topic)\n";
    }
    for (const std::string& example : check->examples) std::cout << "  " << example << "\n";
  }
  if (check->differences > 0) return Corruption(StrCat(directory, ": ", check->differences, " differences"));
  return index;
}

}  // namespace

void AddStoreCommand(CLI::App* app, CommandRunner* run) {
  auto* command = app->add_subcommand("store", "Look into a data directory");
  command->require_subcommand(1);
  auto* dump = command->add_subcommand(
      "dump", "What it is, items, users and offsets as JSON lines; writes nothing; no process may hold the directory");
  auto directory = std::make_shared<std::string>();
  dump->add_option("directory", *directory, "data_dir of an engine or a sidecar")->required()->type_name("DIR");
  dump->footer("Example (after that of run, once it has stopped):\n  freshet store dump /tmp/shop/engine | head -n 3");
  dump->callback([=] { *run = [=] { return ExitCode(Dump(*directory)); }; });

  auto* verify = command->add_subcommand(
      "verify",
      "Read everything: checksums, items against vectors, labels, features and attributes, numbers, the index; writes "
      "nothing");
  auto verified = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  verify->add_option("directory", *verified, "data_dir of an engine or a sidecar")->required()->type_name("DIR");
  auto items_topic = std::make_shared<std::string>(StoreCheckOptions{}.items_topic);
  verify->add_option("--items-topic", *items_topic, "topics.items.name of the engine: whose offsets cover the items")
      ->type_name("TOPIC")
      ->capture_default_str();
  verify->add_flag("--json", *json, "Print one JSON object");
  verify->footer("Example (after that of run, once it has stopped):\n  freshet store verify /tmp/shop/engine --json");
  verify->callback([=] { *run = [=] { return ExitCode(VerifyStore(*verified, *items_topic, *json)); }; });
}

}  // namespace freshet
