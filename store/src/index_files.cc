#include "freshet/store/index_files.h"

#include <cstdio>
#include <filesystem>
#include <random>

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

std::string NameOf(std::uint64_t tag) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(tag));
  return text.data();
}

}  // namespace

std::string IndexFiles::PathOf(const std::string& data_dir, std::uint64_t tag) {
  return data_dir + "/index/" + NameOf(tag);
}

void IndexFiles::RemoveOthers(std::uint64_t tag) const {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(store_->options().directory + "/index", ignored)) {
    if (entry.path().filename() != NameOf(tag)) std::filesystem::remove(entry.path(), ignored);
  }
}

Result<std::unique_ptr<Index>> IndexFiles::Open(
    const std::function<Result<std::unique_ptr<Index>>(const std::string&)>& open,
    const std::function<Result<std::unique_ptr<Index>>()>& make) const {
  const auto row = store_->IndexFile();
  if (!row.ok() || !*row) {
    RemoveOthers(0);
    return make();
  }
  RemoveOthers((*row)->tag);
  auto index = open(PathOf(store_->options().directory, (*row)->tag));
  if (index.ok()) return index;
  if (index.status().code() != Code::kNotFound) {
    LogWarning("store", "the index file cannot be used; the index is made from the stored vectors",
               {{"reason", index.status().ToString()}});
  }
  return make();
}

Result<std::uint64_t> IndexFiles::Save(const IndexCut& cut, std::uint64_t sequence,
                                       const std::function<Status(std::uint64_t)>& written) {
  std::random_device random;
  const std::uint64_t tag = (std::uint64_t{random()} << 32 | random()) | 1;
  const std::string directory = store_->options().directory + "/index";
  const std::string path = PathOf(store_->options().directory, tag);
  if (!store_->writable()) return Unavailable(StrCat(store_->options().directory, ": cannot be written"));
  FRESHET_TRY(CreateDirectories(directory));
  // What a failure before left, so that there are never more than two.
  FRESHET_ASSIGN(const std::optional<IndexFileRow> named, store_->IndexFile());
  RemoveOthers(named ? named->tag : 0);
  FRESHET_TRY(FaultPoint("index_file.before_write"));
  Status status = cut.Write(path, written);
  if (status.ok()) status = FaultPoint("index_file.before_sync");
  if (status.ok()) status = SyncDirectory(directory);
  if (status.ok()) status = FaultPoint("index_file.after_write");
  if (status.ok()) status = store_->PutIndexFile({tag, sequence});
  // The name has to be on the disk before the file that the old one names goes: a power loss would cost both.
  if (status.ok()) status = FaultPoint("index_file.before_log_sync");
  if (status.ok()) status = store_->SyncLog();
  if (status.ok()) status = FaultPoint("index_file.before_remove");
  if (!status.ok()) {
    // The store may have the new name all the same: then the file stays, until the next Save() or start knows.
    const auto row = store_->IndexFile();
    const bool unnamed = row.ok() && (!*row || (*row)->tag != tag) && store_->writable();
    std::error_code ignored;
    if (unnamed) std::filesystem::remove(path, ignored);
    return status;
  }
  RemoveOthers(tag);
  return tag;
}

bool IndexFiles::IsCurrent(std::uint64_t sequence) const {
  const auto row = store_->IndexFile();
  return row.ok() && *row && (*row)->sequence == sequence &&
         FileExists(PathOf(store_->options().directory, (*row)->tag));
}

}  // namespace freshet
