// What engine and sidecar have in common: model, store, index, answers.
//
// Place in the flow: private to engine.cc and sidecar.cc, the composition roots. Members are in order of construction;
// they are torn down in reverse. Errors: see the parts; all are told before anything runs.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/json.h"
#include "freshet/core/metrics.h"
#include "freshet/deploy/config.h"
#include "freshet/encoder/package.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_service.h"
#include "freshet/store/applier.h"
#include "freshet/store/auditor.h"
#include "freshet/store/snapshot_repository.h"
#include "freshet/store/snapshotter.h"
#include "freshet/store/store.h"

namespace freshet {

// The package and where it may lie.
[[nodiscard]] PackageOptions PackageOptionsOf(const EncoderConfig& encoder);

struct Node {
  Node() = default;
  ~Node() { StopAuditing(); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  SystemClock clock;
  Metrics metrics;
  std::unique_ptr<ModelPackage> package;           // null with passthrough
  std::unique_ptr<ItemEncoder> item_encoder;       // null on a sidecar with a model
  std::unique_ptr<UserEncoder> user_encoder;       // null with passthrough
  std::unique_ptr<Reranker> reranker;              // null unless the package has one
  std::unique_ptr<SnapshotRepository> repository;  // null unless configured
  std::unique_ptr<Store> store;
  std::unique_ptr<Applier> applier;
  std::unique_ptr<RecallService> recall;
  std::unique_ptr<HttpServer> http;          // null unless configured
  std::unique_ptr<HttpServer> admin;         // null unless configured
  std::unique_ptr<Snapshotter> snapshotter;  // engine, with a repository
  std::function<std::string()> why_behind;   // told by /readyz with other reasons; before Serve(). Empty text: nothing
  std::string restored;                      // the snapshot that this start began from; empty: none
  double open_seconds = 0;

  // Loads the model, opens the store (restores it where it has to be), makes index and catalog equal to it. See
  // OpenOrRestore() for `log_is_complete`. `from_log`: an empty directory is not restored.
  static Result<std::unique_ptr<Node>> Open(const Config& config, ApplierOptions::Role role,
                                            const std::function<Status()>& log_is_complete,
                                            const std::function<void(double)>& rebuild_progress, bool from_log = false);

  // Starts HTTP where configured: the door, and the one for administration. `status` tells of a stage that has stopped,
  // `stopping` of an end under way: both are reasons not to be ready.
  Status Serve(const Config& config, const std::string& role, const std::function<Status()>& status,
               const std::atomic<bool>* stopping);
  void StopServing();
  // Compares index and store now and then, until StopAuditing().
  void StartAuditing(int interval_seconds);
  void StopAuditing();
  // After everything has stopped: leaves what a quick start wants.
  Status Close();
  // node_status.cc: the report of /v1/status; openapi.yaml describes it.
  [[nodiscard]] std::string StatusJson(const std::string& role, const std::string& data_dir);

 private:
  [[nodiscard]] std::int64_t LagRecords();
  void WriteProgress(JsonWriter* out);
  void WriteSizes(JsonWriter* out);
  Status OpenStore(const Config& config, ApplierOptions::Role role, const StoreOptions& options,
                   const std::function<Status()>& log_is_complete, const std::function<void(double)>& progress,
                   bool from_log);

  std::unique_ptr<Auditor> auditor_;  // null unless configured
};

}  // namespace freshet
