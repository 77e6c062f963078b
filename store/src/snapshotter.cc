#include "freshet/store/snapshotter.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "directory_lock.h"
#include "freshet/core/checksum.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "rate_limit.h"
#include "snapshot_files.h"

namespace freshet {
namespace {

constexpr char kRequestFile[] = "/snapshot.request";
constexpr char kReplyFile[] = "/snapshot.reply";
constexpr auto kLookEvery = std::chrono::milliseconds(100);
constexpr std::int64_t kFirstRetryUs = 1'000'000;
constexpr std::int64_t kLongestRetryUs = 300'000'000;
constexpr std::int64_t kLongestPauseUs = 50'000;  // between two looks at whether it is to stop

std::string HostName() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// What a crash within Checkpoint() leaves has a name of RocksDB's.
Status RemoveCheckpoint(const std::string& staging) {
  FRESHET_TRY(RemoveTree(staging));
  return RemoveTree(staging + ".tmp");
}

// Of the store: what is not in tables yet.
std::uint64_t LogBytes(const std::string& data) {
  std::uint64_t bytes = 0;
  const auto names = ListDirectory(data);
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
    if (name.ends_with(".log")) bytes += FileBytes(data + "/" + name).ok() ? *FileBytes(data + "/" + name) : 0;
  }
  return bytes;
}

}  // namespace

Status SnapshotOptions::Validate() const {
  if (keep.max_count < 1) return ConfigError("snapshots.keep.count must be at least 1");
  if (interval_seconds < 0) return ConfigError("snapshots.interval_seconds must not be negative");
  return Status::Ok();
}

Snapshotter::Snapshotter(const SnapshotOptions& options, SnapshotContext context, SnapshotRepository* repository,
                         Store* store, Applier* applier, const Clock* clock, Metrics* metrics)
    : options_(options),
      context_(std::move(context)),
      repository_(repository),
      store_(store),
      applier_(applier),
      clock_(clock),
      staging_(store->options().directory + "/checkpoint"),
      created_(metrics->GetCounter("freshet_snapshots_total", "Snapshots", {{"outcome", "published"}})),
      failed_(metrics->GetCounter("freshet_snapshots_total", "Snapshots", {{"outcome", "failed"}})),
      prune_failed_(metrics->GetCounter("freshet_snapshot_prune_failures_total",
                                        "Times that old snapshots could not be removed after a new one")),
      retry_seconds_(metrics->GetGauge("freshet_snapshot_retry_seconds",
                                       "How long the next scheduled snapshot waits after a failure; 0: none failed")),
      last_success_seconds_(metrics->GetGauge("freshet_snapshot_last_success_timestamp_seconds",
                                              "When the newest snapshot was published, Unix time")),
      last_bytes_(
          metrics->GetGauge("freshet_snapshot_last_bytes", "Size of the newest snapshot, shared files included")),
      seconds_(metrics->GetHistogram("freshet_snapshot_seconds", "Time to take and publish a snapshot")),
      stall_seconds_(metrics->GetHistogram("freshet_snapshot_stall_seconds",
                                           "Time for which nothing was applied, at the cut of a snapshot")),
      index_files_(store) {
  last_us_ = clock_->MonotonicUs();
  last_sequence_ = store_->sequence();
}

Snapshotter::~Snapshotter() { Stop(); }

void Snapshotter::Start() {
  for (const Status& status : {RemoveCheckpoint(staging_), repository_->CollectGarbage().status()}) {
    if (!status.ok()) LogWarning("snapshot", "what a crash left cannot be removed", {{"reason", status.ToString()}});
  }
  // What the newest snapshot of this store holds need not be taken again.
  if (const auto entries = repository_->List(); entries.ok()) {
    last_sequence_ = 0;
    for (const SnapshotEntry& entry : *entries) {
      if (!entry.status.ok() || entry.manifest.epoch != store_->epoch()) continue;
      if (repository_->CheckFiles(entry.manifest).ok()) {
        last_sequence_ = std::max(last_sequence_, entry.manifest.sequence);
      }
    }
  }
  thread_ = std::thread([this] { Run(); });
}

void Snapshotter::Stop() {
  stopping_ = true;
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Snapshotter::Request() {
  const std::lock_guard lock(mu_);
  requested_ = true;
  wake_.notify_all();
}

Snapshotter::Report Snapshotter::report() const {
  const std::lock_guard lock(mu_);
  return report_;
}

bool Snapshotter::IsBehind() const {
  const std::lock_guard lock(mu_);
  return applier_->sequence() != last_sequence_;
}

bool Snapshotter::IsDue() const {
  const std::uint64_t sequence = applier_->sequence();
  if (requested_) return true;
  if (sequence == last_sequence_) return false;
  if (retry_wait_us_ > 0 && clock_->MonotonicUs() < retry_us_) return false;
  const std::int64_t waited_us = clock_->MonotonicUs() - last_us_;
  return (options_.interval_seconds > 0 && waited_us >= std::int64_t{options_.interval_seconds} * 1'000'000) ||
         (options_.records > 0 && sequence - last_sequence_ >= options_.records) ||
         (options_.wal_bytes > 0 && store_->wal_bytes() - last_wal_bytes_ >= options_.wal_bytes);
}

void Snapshotter::Run() {
  std::unique_lock lock(mu_);
  while (!stopping_) {
    wake_.wait_for(lock, kLookEvery);
    if (stopping_) break;
    const bool due = IsDue();
    requested_ = false;
    lock.unlock();
    if (due) (void)Create();  // reported and counted there
    AnswerRequest();
    lock.lock();
  }
}

void Snapshotter::AnswerRequest() {
  const std::string directory = store_->options().directory;
  const auto token = ReadFile(directory + kRequestFile, 256);
  if (!token.ok()) return;
  ::unlink((directory + kRequestFile).c_str());
  const auto manifest = Create();
  const Status answered = WriteFileAtomically(
      directory + kReplyFile,
      manifest.ok() ? StrCat(*token, "\nid ", manifest->id) : StrCat(*token, "\nfailed ", manifest.status().message()));
  if (!answered.ok()) LogWarning("snapshot", "a request cannot be answered", {{"reason", answered.ToString()}});
}

Result<std::string> AskForSnapshot(const std::string& data_dir, std::chrono::seconds timeout) {
  {
    if (!FileExists(data_dir)) return NotFound(data_dir + ": no such directory");
    DirectoryLock lock;
    if (lock.Acquire(data_dir).ok()) return FailedPrecondition(data_dir + ": no engine runs there");
  }
  const std::string token = StrCat(::getpid(), " ", SystemClock().MonotonicUs());
  ::unlink((data_dir + kReplyFile).c_str());
  FRESHET_TRY(WriteFileAtomically(data_dir + kRequestFile, token));
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (std::chrono::steady_clock::now() < deadline) {
    const auto reply = ReadFile(data_dir + kReplyFile, std::size_t{1} << 16);
    if (reply.ok() && reply->starts_with(token + "\n")) {
      ::unlink((data_dir + kReplyFile).c_str());
      const std::string_view what = std::string_view(*reply).substr(token.size() + 1);
      if (what.starts_with("id ")) return std::string(what.substr(3));
      return Unavailable(std::string(what.substr(std::min(what.size(), std::size_t{7}))));
    }
    std::this_thread::sleep_for(kLookEvery);
  }
  ::unlink((data_dir + kRequestFile).c_str());
  return DeadlineExceeded(data_dir + ": the engine did not answer in time");
}

Result<SnapshotManifest> Snapshotter::Create(bool hurry) {
  const std::lock_guard one(taking_);
  {
    const std::lock_guard lock(mu_);
    report_.running = true;
  }
  const std::int64_t begin_us = clock_->MonotonicUs();
  RateLimit limit(
      hurry ? 0 : options_.bytes_per_second, [] { return SystemClock().MonotonicUs(); },
      [&](std::int64_t wait_us) {
        if (!hurry && stopping_) return false;
        std::this_thread::sleep_for(std::chrono::microseconds(std::min(wait_us, kLongestPauseUs)));
        return hurry || !stopping_;
      });
  auto manifest = Take([&](std::uint64_t bytes) { return limit(bytes); });
  if (const Status cleaned = RemoveCheckpoint(staging_); !cleaned.ok()) {
    LogWarning("snapshot", "the checkpoint cannot be removed", {{"reason", cleaned.ToString()}});
  }
  const double seconds = static_cast<double>(clock_->MonotonicUs() - begin_us) * 1e-6;
  {
    const std::lock_guard lock(mu_);
    report_.running = false;
    report_.paced_bytes = limit.bytes();
    if (!manifest.ok()) {
      Failed(manifest.status());
      return manifest;
    }
    last_us_ = clock_->MonotonicUs();
    last_wal_bytes_ = cut_wal_bytes_;
    last_sequence_ = manifest->sequence;
    retry_wait_us_ = 0;
    report_.retry_seconds = 0;
    created_.Add();
    ++report_.created;
    report_.last_id = manifest->id;
    report_.last_failure.clear();
    retry_seconds_.Set(0);
    last_success_seconds_.Set(static_cast<double>(clock_->WallMs()) * 1e-3);
    last_bytes_.Set(static_cast<double>(manifest->bytes()));
    seconds_.Observe(seconds);
    LogInfo("snapshot", "published",
            {{"id", manifest->id},
             {"bytes", StrCat(manifest->bytes())},
             {"seconds", StrCat(seconds)},
             {"stall_ms", StrCat(report_.stall_seconds * 1e3)}});
  }
  RemoveOld();
  return manifest;
}

// REQUIRES: mu_ is held. What was due stays due; each try costs a flush and an index file.
void Snapshotter::Failed(const Status& reason) {
  failed_.Add();
  ++report_.failed;
  report_.last_failure = reason.ToString();
  retry_wait_us_ = retry_wait_us_ == 0 ? kFirstRetryUs : std::min(2 * retry_wait_us_, kLongestRetryUs);
  retry_us_ = clock_->MonotonicUs() + retry_wait_us_;
  report_.retry_seconds = static_cast<double>(retry_wait_us_) * 1e-6;
  retry_seconds_.Set(report_.retry_seconds);
  LogError("snapshot", "no snapshot was taken",
           {{"reason", report_.last_failure}, {"retry_seconds", StrCat(report_.retry_seconds)}});
}

void Snapshotter::RemoveOld() {
  const auto removed = Prune(repository_, options_.keep, clock_->WallMs());
  const std::lock_guard lock(mu_);
  report_.last_prune_failure = removed.status().ok() ? "" : removed.status().ToString();
  if (!removed.ok()) {
    prune_failed_.Add();
    ++report_.prune_failures;
    LogError("snapshot", "old ones cannot be removed", {{"reason", report_.last_prune_failure}});
  } else if (!removed->empty()) {
    LogInfo("snapshot", "removed old ones", {{"count", StrCat(removed->size())}});
  }
}

Status Snapshotter::CheckSpace() const {
  const std::string& data = store_->options().directory;
  const std::uint64_t tables = store_->Sizes().sst_bytes;
  // The file takes about what the index takes in memory, or what the last one took, where some of it is not in memory.
  const std::uint64_t index =
      std::max<std::uint64_t>(applier_->index().Stats().memory_bytes, TreeBytes(data + "/index"));
  const std::uint64_t log = LogBytes(data);  // becomes tables; what comes meanwhile is copied
  std::uint64_t model = 0;
  for (const auto& [name, sha256] : context_.model_files) {
    FRESHET_ASSIGN(const std::uint64_t bytes, FileBytes(context_.model_directory + "/" + name));
    model += bytes;
  }
  const auto check = [](const std::string& where, std::uint64_t free, std::uint64_t wanted) {
    return free >= wanted ? Status::Ok()
                          : ResourceExhausted(StrCat(where, ": ", free, " bytes are free, a snapshot wants ", wanted));
  };
  // The index file and what the log becomes are new each time, on the data's disk; the model is always copied. Tables
  // and the index are there already where they can be shared.
  const std::uint64_t here = index + log + kSpareBytes;
  const bool shared = repository_->SharesWith(data);
  FRESHET_TRY(check(data, FreeBytes(data), here + (shared ? model : 0)));
  return check(repository_->name(), repository_->free_bytes(), here + model + (shared ? 0 : tables));
}

Status Snapshotter::Cut(SnapshotManifest* manifest, std::unique_ptr<IndexCut>* index) {
  return applier_->AtRest([&]() -> Status {
    const std::int64_t begin_us = clock_->MonotonicUs();
    FRESHET_TRY(store_->Checkpoint(staging_));
    cut_wal_bytes_ = store_->wal_bytes();
    if (auto cut = applier_->CutIndex(); cut.ok()) {
      *index = std::move(*cut);
    } else if (cut.status().code() != Code::kFailedPrecondition) {
      return cut.status();
    }
    manifest->sequence = store_->sequence();
    // What was read without a change is in no commit: the store knows less.
    manifest->as_of_ms = std::max(store_->as_of_ms(), applier_->as_of_ms());
    manifest->items = applier_->catalog().live();
    manifest->users = applier_->user_count();
    manifest->outbox_records = store_->outbox_records();
    FRESHET_ASSIGN(const auto progress, store_->Progress());
    for (const auto& [partition, row] : progress) manifest->offsets.push_back(row);
    const double stall = static_cast<double>(clock_->MonotonicUs() - begin_us) * 1e-6;
    stall_seconds_.Observe(stall);
    const std::lock_guard lock(mu_);
    report_.stall_seconds = stall;
    return Status::Ok();
  });
}

Status Snapshotter::Sources(std::vector<SnapshotSource>* sources) const {
  FRESHET_ASSIGN(const std::vector<std::string> tables, ListDirectory(staging_));
  for (const std::string& name : tables) {
    // Tables are never written again; the log is, by the one who restores it, but this copy is ours.
    sources->push_back({"store/" + name, staging_ + "/" + name, /*stable=*/true});
  }
  for (const auto& [name, sha256] : context_.model_files) {
    sources->push_back({"model/" + name, context_.model_directory + "/" + name, /*stable=*/false});
  }
  return Status::Ok();
}

// Nothing goes into a snapshot that is known to be wrong.
Status Snapshotter::Check(const SnapshotSource& source, const Throttle& throttle) const {
  const bool table = source.name.ends_with(".sst");
  if (!table && !source.name.starts_with("model/")) return Status::Ok();
  // The whole file is read, in one go.
  FRESHET_ASSIGN(const std::uint64_t bytes, FileBytes(source.path));
  FRESHET_TRY(throttle(bytes));
  if (table) return Store::CheckTable(source.path);
  const auto wanted = context_.model_files.find(source.name.substr(source.name.find('/') + 1));
  FRESHET_ASSIGN(const std::string sha256, Sha256HexOfFile(source.path));
  if (wanted != context_.model_files.end() && sha256 == wanted->second) return Status::Ok();
  return FailedPrecondition(StrCat(
      source.path, ": changed since it was loaded; put back the model that runs, or start again with the new one"));
}

Result<SnapshotManifest> Snapshotter::Take(const Throttle& throttle) {
  if (!store_->writable()) return Unavailable("the store cannot be written");
  FRESHET_TRY(RemoveCheckpoint(staging_));
  FRESHET_TRY(CheckSpace());
  SnapshotManifest manifest;
  manifest.host = HostName();
  manifest.version = context_.version;
  manifest.epoch = store_->epoch();
  manifest.space_id = store_->options().space_id;
  manifest.dim = store_->options().dim;
  manifest.metric = MetricName(store_->options().metric);
  manifest.vectors = store_->options().vectors == VectorType::kFp16 ? "fp16" : "fp32";
  manifest.model = context_.model;
  if (context_.changelog_ends) {
    manifest.vectors_topic = context_.vectors_topic;
    manifest.user_events_topic = context_.user_events_topic;
    if (auto ends = context_.changelog_ends(); ends.ok()) {
      changelog_ends_ = std::move(*ends);
    } else if (changelog_ends_.empty()) {
      return ends.status().Prefixed("the changelog's position");
    }
    manifest.changelog = changelog_ends_;
  }
  // Twice: the first flush may take long while commits go on, the second leaves little for the pause to copy.
  FRESHET_TRY(FaultPoint("snapshot.before_flush"));
  FRESHET_TRY(store_->Flush());
  FRESHET_TRY(FaultPoint("snapshot.after_flush"));
  FRESHET_TRY(store_->Flush());
  std::unique_ptr<IndexCut> cut;
  FRESHET_TRY(Cut(&manifest, &cut));
  manifest.created_ms = clock_->WallMs();
  manifest.id = MakeSnapshotId(manifest.created_ms, manifest.sequence);
  for (int i = 2; repository_->Read(manifest.id).status().code() != Code::kNotFound; ++i) {
    manifest.id = StrCat(MakeSnapshotId(manifest.created_ms, manifest.sequence), "-", i);
  }
  std::vector<SnapshotSource> sources;
  FRESHET_TRY(Sources(&sources));
  if (cut) {
    FRESHET_ASSIGN(const std::uint64_t tag, index_files_.Save(*cut, manifest.sequence, throttle));
    cut.reset();
    sources.push_back({"index", IndexFiles::PathOf(store_->options().directory, tag), /*stable=*/true});
  }
  const auto check = [&](const SnapshotSource& source) { return Check(source, throttle); };
  FRESHET_TRY(repository_->Put(&manifest, sources, check, throttle));
  return manifest;
}

}  // namespace freshet
