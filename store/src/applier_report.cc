// What the Applier tells of the sizes of store, index and catalog, every few seconds, whether it applies or waits.
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/applier.h"

namespace freshet {
namespace {

constexpr std::int64_t kReportEveryUs = 5'000'000;

}  // namespace

void Applier::ReportWhenDue() {
  const std::int64_t now_us = clock_->MonotonicUs();
  if (now_us - reported_us_ < kReportEveryUs) return;
  Report();
  reported_us_ = now_us;
}

void Applier::Report() {
  const auto set = [this](const char* name, const char* help, double value, const MetricLabels& labels = {}) {
    metrics_->GetGauge(name, help, labels).Set(value);
  };
  const auto ratio = [](std::uint64_t of, std::uint64_t to) {
    return to == 0 ? 0 : static_cast<double>(of) / static_cast<double>(to);
  };
  const StoreSizes sizes = store_->Sizes();
  set("freshet_store_table_bytes", "Tables of the store on disk", static_cast<double>(sizes.sst_bytes));
  set("freshet_store_space_amplification_ratio", "Table bytes to what of them is live, as RocksDB estimates it",
      ratio(sizes.sst_bytes, sizes.live_bytes));
  set("freshet_store_write_amplification_ratio",
      "Bytes written (log, flushes, compactions) to bytes committed, since start",
      ratio(sizes.written_bytes, sizes.user_bytes));
  set("freshet_outbox_bytes", "Changelog records that are not published yet",
      static_cast<double>(store_->outbox_bytes()));

  const AttributeIndexStats attributes = catalog_.attribute_stats();
  set("freshet_attribute_index_bytes", "Memory of the filters' attribute index", static_cast<double>(attributes.bytes));
  set("freshet_attribute_index_dropped_attributes", "Attributes that are not filterable because the index is full",
      static_cast<double>(attributes.dropped_columns));
  const FilterCache::Stats filters = catalog_.filter_cache_stats();
  set("freshet_filter_cache_bytes", "Memory of what filters matched that are asked with again and again",
      static_cast<double>(filters.bytes));
  const char* const lookups = "Filters of requests, by whether it was remembered what they match";
  set("freshet_filter_cache_lookups", lookups, static_cast<double>(filters.found), {{"result", "found"}});
  set("freshet_filter_cache_lookups", lookups, static_cast<double>(filters.missed), {{"result", "missed"}});

  const IndexStats index = index_->Stats();
  const char* const rows =
      "Rows of the index, by state: live (fresh ones too), fresh (scanned until they are linked), dead";
  set("freshet_index_rows", rows, static_cast<double>(index.live), {{"state", "live"}});
  set("freshet_index_rows", rows, static_cast<double>(index.fresh), {{"state", "fresh"}});
  set("freshet_index_rows", rows, static_cast<double>(index.tombstones), {{"state", "dead"}});
  set("freshet_index_memory_bytes", "Memory of the index", static_cast<double>(index.memory_bytes));
  set("freshet_index_filter_bytes", "Memory of which rows such filters match, beside that of the index",
      static_cast<double>(index.filter_bytes));
  set("freshet_index_over_memory",
      "1: the index takes more than index.max_memory_bytes, 2: its live rows alone do, which no repair changes",
      index.live_over_memory ? 2
      : index.over_memory    ? 1
                             : 0);
  set("freshet_index_unreachable_ratio", "Share of the index's nodes that the last audit could not reach",
      index.unreachable);
  set("freshet_index_rebuild_failures", "Rebuilds of the index that failed, since start",
      static_cast<double>(index.rebuild_failures));
  set("freshet_index_rebuild_rests", "Times a rebuild rested (index.rebuild_cpu_share), since start",
      static_cast<double>(index.rebuild_rests));
  set("freshet_index_rebuilds", "Rebuilds of the index since start", static_cast<double>(index.rebuilds));
  set("freshet_index_consolidations", "Times the dead were taken out of the graph, since start",
      static_cast<double>(index.consolidations));
  set("freshet_index_failures", "Times the index's background work had no memory, and was put off, since start",
      static_cast<double>(index.failures));
  set("freshet_index_wait_timeouts", "Times an insert or a cut waited in vain for the index's background work",
      static_cast<double>(index.wait_timeouts));
  TellOfIndex(index);
}

void Applier::TellOfIndex(const IndexStats& index) {
  if (index.rebuilds_begun > told_index_.rebuilds_begun) {
    LogInfo("index", "a rebuild was begun", {{"reason", index.rebuild_reason}});
  }
  if (index.rebuild_failures > told_index_.rebuild_failures) {
    LogWarning("index", "a rebuild failed; the old index keeps serving", {{"reason", index.rebuild_failure}});
  }
  if (index.rebuilds > told_index_.rebuilds) {
    LogInfo("index", "it was rebuilt", {{"memory_bytes", StrCat(index.memory_bytes)}});
  }
  if (index.live_over_memory && !told_index_.live_over_memory) {
    LogWarning("index", "its live rows alone take more than index.max_memory_bytes; rows are taken all the same",
               {{"memory_bytes", StrCat(index.memory_bytes)}, {"live", StrCat(index.live)}});
  }
  if (index.consolidations > told_index_.consolidations) {
    LogInfo("index", "the dead were taken out of the graph",
            {{"live", StrCat(index.live)}, {"slots", StrCat(index.slots)}});
  }
  const bool failing = index.failures > told_index_.failures;
  if (failing && index.failure != told_index_.failure) {
    LogWarning("index", "its background work failed, and is tried again; new rows are scanned meanwhile",
               {{"reason", index.failure}});
  }
  told_index_ = index;
  if (!failing) told_index_.failure.clear();  // the next time is told of again, whatever the reason
}

}  // namespace freshet
