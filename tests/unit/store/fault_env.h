// What is done to a store behind its back. A file system beneath RocksDB that forgets what was not synced, as a power
// loss does, and fails when told to.
//
// After LosePower() nothing more reaches the files; once the store is closed, DropUnsynced() cuts every file that was
// written through this environment back to what was synced, and takes back names that were made or moved since their
// directory was synced. (Names that were deleted stay deleted: coming back, they would harm less.) Thread-safe.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "store_chain.h"

namespace freshet::test {

class FaultFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  enum class Failure { kNone, kNoSpace, kIoError };

  FaultFileSystem() : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  [[nodiscard]] const char* Name() const override { return "FaultFileSystem"; }

  void Fail(Failure failure) { failure_ = failure; }
  // Fails for good from the n-th write or sync on, until Fail(kNone).
  void FailFrom(int n, Failure failure) {
    countdown_failure_ = failure;
    countdown_ = n;
  }
  // Only syncs fail, and only reads.
  void FailSyncs(bool fail) { fail_syncs_ = fail; }
  void FailReads(bool fail) { fail_reads_ = fail; }
  // The n-th read from now fails, that one alone.
  void FailRead(int n) { read_countdown_ = n; }
  [[nodiscard]] int reads_failed() const { return reads_failed_; }
  void LosePower() { dark_ = true; }
  // What was lost stays lost; from now on files are written again.
  void RestorePower() { dark_ = false; }
  // At the n-th write or sync from now.
  void LosePowerAfter(int n) { dark_countdown_ = n; }
  void DropUnsynced() {
    const std::lock_guard lock(mu_);
    for (const auto& [path, sizes] : files_) {
      if (std::filesystem::exists(path)) std::filesystem::resize_file(path, sizes.second);
    }
    files_.clear();
    for (const auto& [path, before] : names_) {
      std::filesystem::remove(path);
      if (before) std::ofstream(path, std::ios::binary) << *before;
      ++names_lost_;
    }
    names_.clear();
    dark_ = false;
  }
  [[nodiscard]] int names_lost() const { return names_lost_; }
  [[nodiscard]] int syncs() const { return syncs_; }

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* dbg) override {
    if (auto status = Check(); !status.ok()) return status;
    std::unique_ptr<rocksdb::FSWritableFile> file;
    auto status = target()->NewWritableFile(name, options, &file, dbg);
    if (!status.ok()) return status;
    const std::lock_guard lock(mu_);
    files_[name] = {0, 0};
    names_.try_emplace(name, std::nullopt);
    *result = std::make_unique<File>(this, name, std::move(file));
    return status;
  }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                        rocksdb::IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> file;
    auto status = target()->NewRandomAccessFile(name, options, &file, dbg);
    if (status.ok()) *result = std::make_unique<Table>(this, std::move(file));
    return status;
  }
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override {
    if (auto status = Check(); !status.ok()) return status;
    const std::lock_guard lock(mu_);
    std::optional<std::string> before;
    if (std::filesystem::exists(to)) {
      std::ostringstream bytes;
      bytes << std::ifstream(to, std::ios::binary).rdbuf();
      before = bytes.str();
    }
    auto status = target()->RenameFile(from, to, options, dbg);
    if (status.ok()) {
      names_.erase(from);
      names_.try_emplace(to, std::move(before));
    }
    if (const auto it = files_.find(from); status.ok() && it != files_.end()) {
      files_[to] = it->second;
      files_.erase(from);
    }
    return status;
  }
  rocksdb::IOStatus DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override {
    if (dark_) return rocksdb::IOStatus::OK();
    const std::lock_guard lock(mu_);
    files_.erase(name);
    names_.erase(name);
    return target()->DeleteFile(name, options, dbg);
  }
  rocksdb::IOStatus NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result, rocksdb::IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSDirectory> directory;
    auto status = target()->NewDirectory(name, options, &directory, dbg);
    if (status.ok()) *result = std::make_unique<Directory>(this, name, std::move(directory));
    return status;
  }

 private:
  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(FaultFileSystem* fs, std::string name, std::unique_ptr<rocksdb::FSWritableFile> file)
        : rocksdb::FSWritableFileOwnerWrapper(std::move(file)), fs_(fs), name_(std::move(name)) {}
    using rocksdb::FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* dbg) override {
      if (auto status = fs_->Check(); !status.ok()) return status;
      if (fs_->dark_) return rocksdb::IOStatus::OK();
      auto status = rocksdb::FSWritableFileOwnerWrapper::Append(data, options, dbg);
      if (status.ok()) fs_->Written(name_, data.size());
      return status;
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             const rocksdb::DataVerificationInfo& /*info*/, rocksdb::IODebugContext* dbg) override {
      return Append(data, options, dbg);
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* dbg) override {
      return Synced(rocksdb::FSWritableFileOwnerWrapper::Sync(options, dbg));
    }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* dbg) override {
      return Synced(rocksdb::FSWritableFileOwnerWrapper::Fsync(options, dbg));
    }

   private:
    rocksdb::IOStatus Synced(rocksdb::IOStatus status) {
      if (fs_->fail_syncs_) return rocksdb::IOStatus::IOError("injected");
      if (auto failed = fs_->Check(); !failed.ok()) return failed;
      if (status.ok()) fs_->Synced(name_);
      return status;
    }
    FaultFileSystem* const fs_;
    const std::string name_;
  };

  class Table final : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    Table(FaultFileSystem* fs, std::unique_ptr<rocksdb::FSRandomAccessFile> file)
        : rocksdb::FSRandomAccessFileOwnerWrapper(std::move(file)), fs_(fs) {}
    rocksdb::IOStatus Read(std::uint64_t offset, std::size_t n, const rocksdb::IOOptions& options,
                           rocksdb::Slice* result, char* scratch, rocksdb::IODebugContext* dbg) const override {
      if (auto status = fs_->CheckRead(); !status.ok()) return status;
      return rocksdb::FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, dbg);
    }

   private:
    FaultFileSystem* const fs_;
  };

  class Directory final : public rocksdb::FSDirectoryWrapper {
   public:
    Directory(FaultFileSystem* fs, std::string name, std::unique_ptr<rocksdb::FSDirectory> directory)
        : rocksdb::FSDirectoryWrapper(std::move(directory)), fs_(fs), name_(std::move(name)) {}
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* dbg) override {
      auto status = rocksdb::FSDirectoryWrapper::Fsync(options, dbg);
      if (status.ok()) fs_->NamesSynced(name_);
      return status;
    }
    rocksdb::IOStatus FsyncWithDirOptions(const rocksdb::IOOptions& options, rocksdb::IODebugContext* dbg,
                                          const rocksdb::DirFsyncOptions& what) override {
      auto status = rocksdb::FSDirectoryWrapper::FsyncWithDirOptions(options, dbg, what);
      if (status.ok()) fs_->NamesSynced(name_);
      return status;
    }

   private:
    FaultFileSystem* const fs_;
    const std::string name_;
  };

  rocksdb::IOStatus Check() {
    if (countdown_ > 0 && --countdown_ == 0) failure_ = countdown_failure_.load();
    if (dark_countdown_ > 0 && --dark_countdown_ == 0) dark_ = true;
    if (failure_ == Failure::kNoSpace) return rocksdb::IOStatus::NoSpace("injected");
    if (failure_ == Failure::kIoError) return rocksdb::IOStatus::IOError("injected");
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus CheckRead() {
    const bool now = read_countdown_ > 0 && --read_countdown_ == 0;
    if (!now && !fail_reads_) return rocksdb::IOStatus::OK();
    ++reads_failed_;
    return rocksdb::IOStatus::IOError("injected");
  }
  void Written(const std::string& name, std::size_t bytes) {
    const std::lock_guard lock(mu_);
    files_[name].first += bytes;
  }
  void NamesSynced(const std::string& directory) {
    if (dark_) return;
    const std::lock_guard lock(mu_);
    std::erase_if(names_, [&](const auto& name) {
      return std::filesystem::path(name.first).parent_path() == std::filesystem::path(directory + "/x").parent_path();
    });
  }
  void Synced(const std::string& name) {
    if (dark_) return;
    ++syncs_;
    const std::lock_guard lock(mu_);
    files_[name].second = files_[name].first;
  }

  std::atomic<Failure> failure_{Failure::kNone};
  std::atomic<Failure> countdown_failure_{Failure::kNone};
  std::atomic<int> countdown_{0};
  std::atomic<int> dark_countdown_{0};
  std::atomic<bool> dark_{false};
  std::atomic<bool> fail_syncs_{false};
  std::atomic<bool> fail_reads_{false};
  std::atomic<int> read_countdown_{0};
  std::atomic<int> reads_failed_{0};
  std::atomic<int> syncs_{0};
  std::mutex mu_;
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> files_;  // bytes written and synced
  // Since their directory was synced: what the name held before; nothing: there was none.
  std::map<std::string, std::optional<std::string>> names_;
  int names_lost_ = 0;
};

// The environment, and the file system in it.
struct FaultEnv {
  std::shared_ptr<FaultFileSystem> files = std::make_shared<FaultFileSystem>();
  std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(files);
};

// Writes one row of a store that is closed, and a family that it does not have, where `new_family` names one.
inline bool PutRaw(const std::string& directory, const std::string& family, const std::string& key,
                   const std::string& value, const std::string& new_family = "") {
  rocksdb::Options options;
  options.merge_operator = ChainOperator();
  std::vector<std::string> names;
  if (!rocksdb::DB::ListColumnFamilies(options, directory, &names).ok()) return false;
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (const std::string& name : names) descriptors.emplace_back(name, options);
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  rocksdb::DB* opened = nullptr;
  if (!rocksdb::DB::Open(options, directory, descriptors, &families, &opened).ok()) return false;
  const std::unique_ptr<rocksdb::DB> db(opened);
  bool done = false;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == family) done = db->Put({}, families[i], key, value).ok();
  }
  if (!new_family.empty()) {
    rocksdb::ColumnFamilyHandle* made = nullptr;
    done = done && db->CreateColumnFamily(options, new_family, &made).ok();
    if (made != nullptr) families.push_back(made);
  }
  for (auto* handle : families) done = db->DestroyColumnFamilyHandle(handle).ok() && done;
  return done;
}

}  // namespace freshet::test
