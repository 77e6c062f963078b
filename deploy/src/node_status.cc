// What /v1/status tells of a process. Names are those of answers and metrics where they say the same.
#include <algorithm>

#include "freshet/core/json.h"
#include "freshet/store/restore.h"
#include "node.h"

namespace freshet {

std::string Node::StatusJson(const std::string& role, const std::string& data_dir) {
  Histogram& freshness =
      metrics.GetHistogram("freshet_freshness_seconds", "Record timestamp to searchable here, per change");
  Histogram& query = metrics.GetHistogram("freshet_query_seconds", "Time to answer a recall");
  JsonWriter out;
  out.BeginObject();
  out.Key("role").String(role).Key("version").String(FRESHET_VERSION);
  if (admin) out.Key("admin_address").String(admin->address());
  if (package) {
    out.Key("model").BeginObject().Key("name").String(package->manifest().name);
    out.Key("version").String(package->manifest().version);
    out.Key("reranker").Bool(reranker != nullptr).EndObject();
  }
  WriteProgress(&out);
  out.Key("freshness_p50_seconds").Double(freshness.Quantile(0.5));
  out.Key("freshness_p99_seconds").Double(freshness.Quantile(0.99));
  out.Key("query_p50_seconds").Double(query.Quantile(0.5)).Key("query_p99_seconds").Double(query.Quantile(0.99));
  WriteSizes(&out);
  const StoreSizes sizes = store->Sizes();
  out.Key("store").BeginObject();
  out.Key("sst_bytes").Uint(sizes.sst_bytes);
  out.Key("write_amplification")
      .Double(static_cast<double>(sizes.written_bytes) /
              static_cast<double>(std::max<std::uint64_t>(1, sizes.user_bytes)));
  out.Key("space_amplification")
      .Double(static_cast<double>(sizes.sst_bytes) / static_cast<double>(std::max<std::uint64_t>(1, sizes.live_bytes)));
  out.Key("blocked").String(applier->blocked());
  out.Key("restored_from").String(RestoredFrom(data_dir)).Key("restored_at_start").Bool(!restored.empty());
  out.Key("open_seconds").Double(open_seconds).EndObject();
  if (snapshotter) {
    const Snapshotter::Report report = snapshotter->report();
    out.Key("snapshots").BeginObject().Key("last_id").String(report.last_id);
    out.Key("last_failure").String(report.last_failure).Key("running").Bool(report.running);
    out.Key("created").Uint(report.created).Key("failed").Uint(report.failed);
    out.Key("stall_seconds").Double(report.stall_seconds).EndObject();
  }
  out.EndObject();
  return out.Take();
}

void Node::WriteProgress(JsonWriter* out) {
  const auto dead_letters = [this](const char* stage) {
    return metrics
        .GetCounter("freshet_dead_letters_total", "Records that left the stream as poison", {{"stage", stage}})
        .Value();
  };
  out->Key("items_live").Uint(applier->catalog().live()).Key("items_hidden").Uint(applier->catalog().hidden());
  out->Key("users").Uint(applier->user_count());
  const std::uint64_t sequence = applier->sequence();
  out->Key("index_version").Uint(sequence).Key("model_version").String(applier->space_id());
  out->Key("sequence").Uint(sequence).Key("epoch").Uint(store->epoch()).Key("space_id").String(applier->space_id());
  const std::int64_t as_of_ms = applier->as_of_ms();
  out->Key("as_of_ms").Int(as_of_ms).Key("lag_seconds");
  if (as_of_ms > 0) {
    out->Double(std::max(0.0, static_cast<double>(clock.WallMs() - as_of_ms) * 1e-3));
  } else {
    out->Null();
  }
  out->Key("lag_records").Int(LagRecords()).Key("applied_records").Uint(applier->applied_records());
  out->Key("dead_letters")
      .Int(static_cast<std::int64_t>(dead_letters("KEY_CONVERTER") + dead_letters("VALUE_CONVERTER") +
                                     dead_letters("TRANSFORMATION")));
  out->Key("outbox_records").Uint(store->outbox_records());
}

void Node::WriteSizes(JsonWriter* out) {
  const IndexStats index = applier->index().Stats();
  out->Key("index").BeginObject().Key("live").Uint(index.live).Key("fresh").Uint(index.fresh);
  out->Key("tombstones").Uint(index.tombstones).Key("capacity").Uint(index.capacity);
  out->Key("rebuilds").Uint(index.rebuilds).Key("consolidations").Uint(index.consolidations).EndObject();
  out->Key("memory").BeginObject().Key("index_bytes").Uint(index.memory_bytes);
  out->Key("attribute_index_bytes").Uint(applier->catalog().attribute_stats().bytes).EndObject();
  out->Key("resident_bytes").Double(ResidentBytes());
}

}  // namespace freshet
