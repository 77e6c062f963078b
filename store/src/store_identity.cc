// What a store is and how far it has come: the rows of the family `meta`, and what opening makes of them.
#include "freshet/core/bytes.h"
#include "freshet/core/clock.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "store_chain.h"
#include "store_rocks.h"

namespace freshet {

Status CheckFormat(std::uint32_t format, const std::string& directory) {
  if (format <= StoreIdentity{}.format) return Status::Ok();
  return FailedPrecondition(StrCat(directory, ": store format ", format, ", this freshet reads formats 1 to ",
                                   StoreIdentity{}.format, ": it was written by a newer one"));
}

Status RocksStore::LoadIdentity() {
  std::string bytes;
  rocksdb::DB* const db = current_->db();
  const rocksdb::Status found = db->Get(rocksdb::ReadOptions(), current_->Of(kMeta), kIdentityKey, &bytes);
  if (found.IsNotFound() && mode_ == Mode::kAsConfigured && db->GetLatestSequenceNumber() == 0) return MakeIdentity();
  if (found.IsNotFound()) return Corruption(StrCat(options_.directory, ": a database without an identity row"));
  FRESHET_TRY(FromRocks(found, options_.directory));
  FRESHET_ASSIGN(identity_, DecodeIdentity(bytes));
  FRESHET_TRY(CheckFormat(identity_.format, options_.directory));
  if (identity_.format < 1) return Corruption(StrCat(options_.directory, ": there is no store format 0"));
  if (mode_ != Mode::kAsConfigured) {
    options_.dim = static_cast<int>(identity_.dim);
    options_.space_id = identity_.space_id;
    const auto metric = ParseMetric(identity_.metric);
    if (!metric.ok()) return Corruption(StrCat(options_.directory, ": ", metric.status().message()));
    options_.metric = *metric;
    options_.vectors = identity_.vectors;
  }
  if (identity_.space_id != options_.space_id || identity_.dim != static_cast<std::uint32_t>(options_.dim) ||
      identity_.metric != MetricName(options_.metric)) {
    return FailedPrecondition(StrCat(options_.directory, ": holds vectors of embedding space ", identity_.space_id,
                                     " (", identity_.dim, "-d ", identity_.metric, "), the configured model makes ",
                                     options_.space_id, " (", options_.dim, "-d ", MetricName(options_.metric),
                                     "): use the model it was made with, or an empty data_dir to embed all again"));
  }
  if (identity_.vectors != options_.vectors) {
    LogWarning("store", "`store.vectors` is of another type than this store's; what the store was made with counts");
    options_.vectors = identity_.vectors;
  }
  FRESHET_ASSIGN(restored_epoch_, GetNumber(kRestoredKey));
  FRESHET_ASSIGN(renumbered_, GetNumber(kRenumberedKey));
  if (identity_.format < StoreIdentity{}.format && mode_ != Mode::kReadOnly) {
    const std::uint32_t was = std::exchange(identity_.format, StoreIdentity{}.format);
    FRESHET_TRY(WriteIdentity(/*begin_chain=*/was < kFirstFormatWithChain));
    LogInfo("store", StrCat("migrated from format ", was, " to ", identity_.format),
            {{"directory", options_.directory}});
  }
  return Status::Ok();
}

Status RocksStore::MakeIdentity() {
  identity_.epoch = static_cast<std::uint64_t>(SystemClock().WallMs()) * 1000;
  identity_.epoch = std::max(identity_.epoch, options_.epoch_above + 1);
  identity_.dim = static_cast<std::uint32_t>(options_.dim);
  identity_.metric = MetricName(options_.metric);
  identity_.space_id = options_.space_id;
  identity_.vectors = options_.vectors;
  return WriteIdentity(/*begin_chain=*/true);
}

Result<std::uint64_t> RocksStore::GetNumber(const char* key) const {
  std::string bytes;
  const rocksdb::Status found = current_->db()->Get(rocksdb::ReadOptions(), current_->Of(kMeta), key, &bytes);
  if (found.IsNotFound()) return std::uint64_t{0};
  // Taken for not there, an error would let an engine number again what it has published.
  FRESHET_TRY(FromRocks(found, StrCat(options_.directory, ": meta `", key, "`")));
  ByteReader in(bytes);
  const auto number = in.Get<std::uint64_t>();
  if (!in.finished()) return Corruption(StrCat(options_.directory, ": meta `", key, "` does not decode"));
  return number;
}

Status RocksStore::WriteIdentity(bool begin_chain) {
  rocksdb::WriteBatch batch;
  batch.Put(current_->Of(kMeta), kIdentityKey, EncodeIdentity(identity_));
  for (std::size_t family = kMeta; begin_chain && family < kFamilies; ++family) {
    batch.Put(current_->families()[family], kChainKey, EncodeLink(0));
  }
  rocksdb::WriteOptions write;
  write.sync = true;
  return FromRocks(current_->db()->Write(write, &batch), options_.directory + ": identity");
}

Status RocksStore::CheckChain(const RocksHandle& handle) const {
  if (identity_.format < kFirstFormatWithChain) return Status::Ok();
  for (std::size_t family = kMeta; family < kFamilies; ++family) {
    const std::string where = StrCat(options_.directory, ": ", kFamilyNames[family]);
    std::string bytes;
    FRESHET_TRY(
        FromOpen(handle.db()->Get(rocksdb::ReadOptions(), handle.families()[family], kChainKey, &bytes), where));
    const Result<std::uint64_t> last = DecodeChain(bytes);
    if (!last.ok()) return last.status().Prefixed(where);
    const std::uint64_t known = family < state_.links.size() ? state_.links[family] : 0;
    if (*last != known) return Corruption(StrCat(where, " ends at commit ", *last, " of ", known));
  }
  return Status::Ok();
}

void RocksStore::PutState(const RocksHandle& handle, std::initializer_list<std::pair<Family, bool>> touched,
                          StoreState* state, rocksdb::WriteBatch* batch) {
  state->links.resize(kFamilies);
  for (const auto& [family, is] : touched) {
    if (is) batch->Merge(handle.Of(family), kChainKey, EncodeLink(++state->links[family]));
  }
  batch->Put(handle.Of(kMeta), kStateKey, EncodeState(*state));
}

Status RocksStore::LoadState() {
  std::string bytes;
  const std::shared_ptr<RocksHandle> handle = Current();
  const rocksdb::Status state = handle->db()->Get(rocksdb::ReadOptions(), handle->Of(kMeta), kStateKey, &bytes);
  if (!state.IsNotFound()) {
    FRESHET_TRY(FromRocks(state, options_.directory));
    FRESHET_ASSIGN(state_, DecodeState(bytes));
  }
  committed_sequence_ = state_.sequence;
  durable_sequence_ = state_.sequence;  // see avoid_flush_during_recovery
  FRESHET_TRY(CheckChain(*handle));
  std::uint64_t records = 0;
  std::uint64_t total = 0;
  std::uint64_t first = state_.sequence + 1;
  FRESHET_TRY(Scan(kOutbox, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (key.size() != 8) return Corruption("outbox key does not decode");
    if (records++ == 0) first = FromOrderedKey(key);
    total += value.size();
    return true;
  }));
  outbox_first_ = first;
  outbox_records_ = records;
  outbox_bytes_ = total;
  return Status::Ok();
}

}  // namespace freshet
