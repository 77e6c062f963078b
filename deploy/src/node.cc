#include "node.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/index_files.h"
#include "freshet/store/restore.h"

namespace freshet {
namespace {

// What a tower reads beyond what is kept it never sees, and it was trained with it.
void WarnOfShortHistory(const ModelManifest& manifest, std::size_t kept) {
  std::size_t most = 0;
  for (const FeatureSpec* spec : {&manifest.user, manifest.reranker ? &manifest.reranker->user : nullptr}) {
    if (spec == nullptr) continue;
    for (const FeatureDef& def : spec->features) {
      if (def.kind == FeatureKind::kHistory) most = std::max(most, static_cast<std::size_t>(def.max_values));
    }
  }
  if (most <= kept) return;
  LogWarning("encoder",
             StrCat("the model reads ", most, " interactions of a user's history, and ", kept,
                    " are kept: set store.history to ", most, " here and wherever else this model answers"),
             {{"store.history", StrCat(kept)}, {"max_values", StrCat(most)}});
}

Status LoadModel(const Config& config, ApplierOptions::Role role, Node* node, StoreOptions* store) {
  if (config.encoder.passthrough) {
    node->item_encoder = MakePassthroughEncoder(config.encoder.dim, config.encoder.metric);
    store->space_id = node->item_encoder->space_id();
    store->dim = config.encoder.dim;
    store->metric = config.encoder.metric;
    return Status::Ok();
  }
  FRESHET_ASSIGN(node->package, OpenModelPackage(PackageOptionsOf(config.encoder)));
  if (role == ApplierOptions::Role::kEngine) {
    FRESHET_ASSIGN(node->item_encoder, node->package->LoadItemEncoder());
  }
  FRESHET_ASSIGN(node->user_encoder, node->package->LoadUserEncoder());
  const ModelManifest& manifest = node->package->manifest();
  if (manifest.reranker) {
    FRESHET_ASSIGN(node->reranker, node->package->LoadReranker());
  }
  store->space_id = manifest.space_id;
  store->dim = manifest.dim;
  store->metric = manifest.metric;
  if (BlasInUse() == "reference") {
    LogWarning("encoder", "LibTorch runs on the reference BLAS, about 25 times slower: install libopenblas0-pthread");
  }
  LogInfo("encoder", "model loaded",
          {{"name", manifest.name}, {"version", manifest.version}, {"space", manifest.space_id}});
  WarnOfShortHistory(manifest, config.applier.history);
  return Status::Ok();
}

}  // namespace

PackageOptions PackageOptionsOf(const EncoderConfig& encoder) {
  PackageOptions package;
  package.directory = encoder.package;
  package.allowed_root = encoder.allowed_root;
  if (package.allowed_root.empty()) {
    const auto parent = std::filesystem::absolute(package.directory).lexically_normal().parent_path();
    package.allowed_root = parent.string();
  }
  package.intra_op_threads = encoder.threads;
  package.device = encoder.device;
  return package;
}

Status Node::OpenStore(const Config& config, ApplierOptions::Role role, const StoreOptions& options,
                       const std::function<Status()>& log_is_complete, const std::function<void(double)>& progress,
                       bool from_log) {
  HnswOptions index = config.index;
  index.dim = options.dim;
  index.metric = options.metric;
  ApplierOptions apply = config.applier;
  apply.role = role;
  apply.outbox = role == ApplierOptions::Role::kEngine && config.changelog;
  apply.vectors_topic = config.publisher.vectors_topic;
  apply.items_topic = config.items.name;
  apply.users_topic = config.users ? config.users->name : "";
  const bool follower = role == ApplierOptions::Role::kFollower;
  for (bool damaged = false;; damaged = true) {
    FRESHET_ASSIGN(OpenedStore opened, OpenOrRestore(options, from_log ? nullptr : repository.get(), follower, damaged,
                                                     log_is_complete, progress));
    store = std::move(opened.store);
    if (opened.restored) restored = opened.restored->manifest.id;
    applier = std::make_unique<Applier>(apply, options, store.get(), &clock, &metrics);
    const auto open_index = [&] {
      return IndexFiles(store.get())
          .Open([&](const std::string& path) { return OpenHnswIndex(path, index); },
                [&] { return MakeHnswIndex(index); });
    };
    const Status rebuilt = applier->Rebuild(open_index, progress);
    // A table may turn out to be damaged only when it is read. What was just restored was verified: that is told.
    if (rebuilt.code() != Code::kCorruption || damaged || opened.restored) return rebuilt;
    LogError("store", "rows cannot be read", {{"reason", rebuilt.ToString()}});
    applier.reset();
    store.reset();
  }
}

Result<std::unique_ptr<Node>> Node::Open(const Config& config, ApplierOptions::Role role,
                                         const std::function<Status()>& log_is_complete,
                                         const std::function<void(double)>& rebuild_progress, bool from_log) {
  auto node = std::make_unique<Node>();
  StoreOptions store = config.store;
  FRESHET_TRY(LoadModel(config, role, node.get(), &store));
  store.directory = config.data_dir;
  if (!config.snapshots.directory.empty()) node->repository = OpenLocalRepository(config.snapshots.directory);
  const std::int64_t begin_us = node->clock.MonotonicUs();
  FRESHET_TRY(node->OpenStore(config, role, store, log_is_complete, rebuild_progress, from_log));
  node->open_seconds = static_cast<double>(node->clock.MonotonicUs() - begin_us) * 1e-6;
  node->metrics.GetGauge("freshet_open_seconds", "Time from opening the store to being able to answer, at start")
      .Set(node->open_seconds);
  LogInfo("store", "opened",
          {{"directory", config.data_dir},
           {"items", StrCat(node->applier->catalog().live())},
           {"sequence", StrCat(node->applier->sequence())},
           {"into_the_index", StrCat(node->applier->rebuilt_items())},
           {"seconds", StrCat(node->open_seconds)}});
  node->recall = std::make_unique<RecallService>(node->applier.get(), node->user_encoder.get(), &node->clock,
                                                 &node->metrics, RecallLimits{}, node->reranker.get());
  node->metrics.GetGauge("freshet_build_info", "Constant 1; the labels tell the build", {{"version", FRESHET_VERSION}})
      .Set(1);
  return node;
}

void Node::StartAuditing(int interval_seconds) {
  if (interval_seconds == 0) return;
  auditor_ = std::make_unique<Auditor>(applier.get(), &metrics);
  auditor_->Start(std::chrono::seconds(interval_seconds));
}

void Node::StopAuditing() {
  if (auditor_) auditor_->Stop();
}

Status Node::Serve(const Config& config, const std::string& role, const std::function<Status()>& status,
                   const std::atomic<bool>* stopping) {
  const auto ready = [this, status, stopping, max_lag_ms = std::int64_t{config.max_lag_seconds} * 1000,
                      max_lag_records = config.max_lag_records] {
    std::vector<std::string> reasons;
    if (const Status now = status(); !now.ok()) reasons.push_back(now.ToString());
    if (*stopping) reasons.push_back("stopping");
    if (std::string blocked = applier->blocked(); !blocked.empty()) reasons.push_back(std::move(blocked));
    const std::int64_t as_of_ms = applier->as_of_ms();
    if (as_of_ms == 0) {
      reasons.push_back("has not caught up with the log yet");
    } else if (const std::int64_t behind_ms = clock.WallMs() - as_of_ms; behind_ms > max_lag_ms) {
      reasons.push_back(
          StrCat("answers are ", behind_ms / 1000, " s behind the log, the bound is ", max_lag_ms / 1000));
    }
    if (const std::int64_t lag = LagRecords(); max_lag_records > 0 && lag > max_lag_records) {
      reasons.push_back(StrCat(lag, " records of the log were not read yet, the bound is ", max_lag_records));
    }
    if (std::string why = reasons.empty() || !why_behind ? "" : why_behind(); !why.empty()) {
      reasons.push_back(std::move(why));
    }
    return reasons;
  };
  const auto report = [this, role, data_dir = config.data_dir] { return StatusJson(role, data_dir); };
  Gauge& staleness = metrics.GetGauge("freshet_staleness_seconds",
                                      "How far answers are behind now (now minus their as_of); +Inf: not known yet");
  const auto before_metrics = [this, &staleness] {
    const std::int64_t as_of_ms = applier->as_of_ms();
    const double behind_ms = static_cast<double>(clock.WallMs() - as_of_ms);
    staleness.Set(as_of_ms > 0 ? std::max(0.0, behind_ms * 1e-3) : std::numeric_limits<double>::infinity());
  };
  if (config.serve) {
    http = MakeHttpServer(config.http, recall.get(), &metrics, ready, report, {}, before_metrics);
    FRESHET_TRY(http->Start());
    LogInfo("query", "listening", {{"address", http->address()}});
    if (!http->grpc_address().empty()) LogInfo("query", "listening for gRPC", {{"address", http->grpc_address()}});
  }
  if (config.admin) {
    SnapshotRequest snapshot;
    if (snapshotter) snapshot = [this] { snapshotter->Request(); };
    admin = MakeHttpServer(*config.admin, nullptr, &metrics, ready, report, std::move(snapshot), before_metrics);
    FRESHET_TRY(admin->Start().Prefixed("admin"));
    LogInfo("admin", "listening", {{"address", admin->address()}});
  }
  return Status::Ok();
}

std::int64_t Node::LagRecords() {
  return static_cast<std::int64_t>(
      metrics.GetGauge("freshet_consumer_lag_records", "Records in the log that were not read yet").Value());
}

void Node::StopServing() {
  if (http) http->Stop();
  if (admin) admin->Stop();
}

Status Node::Close() {
  FRESHET_TRY(store->Flush());
  IndexFiles files(store.get());
  if (files.IsCurrent(applier->sequence())) return Status::Ok();
  auto cut = applier->CutIndex();
  // Not a failure: the next start makes the index from the stored vectors.
  if (!cut.ok()) return Status::Ok();
  return files.Save(**cut, applier->sequence()).status();
}

}  // namespace freshet
