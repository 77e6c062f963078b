#include "store_bench.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <memory>

#include "freshet/core/bytes.h"
#include "freshet/core/strings.h"
#include "freshet/store/changelog.h"
#include "freshet/store/store.h"
#include "freshet_test/vectors.h"

namespace freshet::bench {
namespace {

std::string IdOf(std::size_t i) { return StrCat("item-", 100'000'000 + i); }

// One micro-batch of new items, as the applier makes it.
struct Made {
  std::vector<ItemUpdate> updates;
  Commit commit;
};
Made Batch(const test::VectorSet& vectors, std::size_t begin, std::size_t end, bool changelog) {
  Made made;
  made.updates.resize(end - begin);
  for (std::size_t i = begin; i < end; ++i) {
    ItemUpdate& update = made.updates[i - begin];
    update.item_id = IdOf(i);
    update.attributes = {{"category", std::string("film")}, {"in_stock", true}, {"year", std::int64_t{1995}}};
    update.features = {{"category", std::string("film")}, {"price", 3.5}};
    update.vector.assign(vectors.Row(i), vectors.Row(i) + vectors.dim);
    Commit::Item& item = made.commit.items.emplace_back();
    item.item_id = update.item_id;
    item.update = &update;
    item.row.label = i + 1;
    item.row.sequence = i + 1;
    item.row.position = {0, static_cast<std::int64_t>(i)};
    if (changelog) {
      ItemChange change;
      change.update = update;
      made.commit.outbox.push_back({i + 1, false, update.item_id, EncodeItemValue(change, "bench")});
    }
  }
  made.commit.progress.push_back(PartitionProgress{{"items", 0}, static_cast<std::int64_t>(end), 0, 0, 0, 0});
  made.commit.next_label = end + 1;
  made.commit.sequence = end;
  return made;
}

// Rows of the same keys' and values' sizes, into as many families, with RocksDB's own settings.
class RawPeer {
 public:
  Status Open(const std::string& directory) {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.create_missing_column_families = true;
    options.compression = rocksdb::kNoCompression;
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : {"default", "a", "b", "c", "d"}) families.emplace_back(name, options);
    rocksdb::DB* opened = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, directory, families, &handles_, &opened);
    db_.reset(opened);
    return status.ok() ? Status::Ok() : Internal(status.ToString());
  }
  ~RawPeer() {
    for (auto* handle : handles_) delete handle;
  }
  Status Write(const test::VectorSet& vectors, std::size_t begin, std::size_t end) {
    rocksdb::WriteBatch batch;
    for (std::size_t i = begin; i < end; ++i) {
      const std::string id = IdOf(i);
      const std::string label = OrderedKey(i + 1);
      const rocksdb::Slice vector(reinterpret_cast<const char*>(vectors.Row(i)),
                                  static_cast<std::size_t>(vectors.dim) * sizeof(float));
      batch.Put(handles_[0], id, row_);
      batch.Put(handles_[1], label, vector);
      batch.Put(handles_[2], label, id);
      batch.Put(handles_[3], id, features_);
      batch.Put(handles_[4], id, attributes_);
    }
    const rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &batch);
    return status.ok() ? Status::Ok() : Internal(status.ToString());
  }

 private:
  const std::string row_ = std::string(45, 'r');
  const std::string features_ = std::string(52, 'f');
  const std::string attributes_ = std::string(70, 'a');
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
};

struct Way {
  std::string name;
  StoreOptions options;
  bool changelog = false;
  std::unique_ptr<Store> store;
  std::vector<double> rates;
};

}  // namespace

Result<Report> RunStoreBench(const StoreBenchOptions& asked) {
  StoreBenchOptions options = asked;
  if (options.quick) {
    options.vectors = 10'000;
    options.rounds = 2;
  }
  const Directory directory(options.directory);
  const test::VectorSet vectors = test::ClusteredVectors(options.seed, 0, options.vectors, options.dim, 256);
  std::vector<Way> ways(5);
  ways[0].name = "commit, wal";
  ways[1].name = "commit, wal, with changelog";
  ways[1].changelog = true;
  ways[2].name = "commit, wal, fp16";
  ways[2].options.vectors = VectorType::kFp16;
  ways[3].name = "commit, interval 100 ms";
  ways[3].options.durability = Durability::kInterval;
  ways[4].name = "commit, sync";
  ways[4].options.durability = Durability::kSync;
  for (std::size_t i = 0; i < ways.size(); ++i) {
    ways[i].options.directory = StrCat(directory.path, "/", i);
    ways[i].options.space_id = "bench";
    ways[i].options.dim = options.dim;
    FRESHET_ASSIGN(ways[i].store, Store::Open(ways[i].options));
  }
  RawPeer peer;
  FRESHET_TRY(peer.Open(directory.path + "/peer"));
  std::vector<double> peer_rates;
  // Rounds alternate; each goes on where the one before ended.
  for (std::size_t round = 0; round < options.rounds; ++round) {
    const std::size_t begin = options.vectors * round / options.rounds;
    const std::size_t end = options.vectors * (round + 1) / options.rounds;
    for (Way& way : ways) {
      // fsync at each commit is the disk's time: a part is enough.
      const bool sync = way.options.durability == Durability::kSync;
      const std::size_t until = sync ? begin + (end - begin) / 20 : end;
      double seconds = 0;
      for (std::size_t at = begin; at < until; at += options.batch) {
        const std::size_t to = std::min(until, at + options.batch);
        const Made made = Batch(vectors, at, to, way.changelog);
        const double from = Seconds();
        FRESHET_TRY(way.store->Write(made.commit));
        seconds += Seconds() - from;
      }
      way.rates.push_back(static_cast<double>(until - begin) / seconds);
    }
    const double from = Seconds();
    for (std::size_t at = begin; at < end; at += options.batch) {
      FRESHET_TRY(peer.Write(vectors, at, std::min(end, at + options.batch)));
    }
    peer_rates.push_back(static_cast<double>(end - begin) / (Seconds() - from));
  }
  Report report;
  report.benchmark = "store";
  const auto params = std::vector<std::pair<std::string, std::string>>{
      {"vectors", StrCat(options.vectors)}, {"dim", StrCat(options.dim)}, {"batch", StrCat(options.batch)}};
  for (Way& way : ways) {
    FRESHET_TRY(way.store->Flush());
    const StoreSizes sizes = way.store->Sizes();
    const double rows =
        static_cast<double>(way.options.durability == Durability::kSync ? options.vectors / 20 : options.vectors);
    const auto [low, high] = std::minmax_element(way.rates.begin(), way.rates.end());
    report.rows.push_back(
        {way.name,
         false,
         params,
         {{"vectors_per_second", Median(way.rates)},
          {"slowest_round", *low},
          {"fastest_round", *high},
          {"bytes_per_vector_on_disk", static_cast<double>(sizes.sst_bytes) / rows},
          {"write_amplification", static_cast<double>(sizes.written_bytes) / static_cast<double>(sizes.user_bytes)},
          {"space_amplification",
           static_cast<double>(sizes.sst_bytes) / static_cast<double>(std::max<std::uint64_t>(1, sizes.live_bytes))}}});
  }
  report.rows.push_back(
      {"raw WriteBatch of the same bytes", true, params, {{"vectors_per_second", Median(peer_rates)}}});
  report.goals.push_back({"commits per second, wal", 200'000, Median(ways[0].rates), false});
  report.goals.push_back({"commits to raw RocksDB, ratio", 0.8, Median(ways[0].rates) / Median(peer_rates), false});
  return report;
}

}  // namespace freshet::bench
