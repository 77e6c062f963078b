// The index file in the data directory, so that a plain restart costs seconds.
//
// Place in the flow: written at a graceful stop and with each snapshot, opened for Applier::Rebuild(), which makes
// the index equal to the store whatever the file's age. A file is written, synced, and only then named in the store
// (Store::PutIndexFile), durably before the one before it goes; what the store does not name is garbage. One thread at
// a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "freshet/core/status.h"
#include "freshet/indexer/index.h"
#include "freshet/store/store.h"

namespace freshet {

class IndexFiles {
 public:
  explicit IndexFiles(Store* store) : store_(store) {}

  // Where the file with this tag is, or would be.
  [[nodiscard]] static std::string PathOf(const std::string& data_dir, std::uint64_t tag);

  // Opens what the store names with `open`. Where there is none or it cannot be used, which is logged, the index is
  // what `make` makes, to be filled from the stored vectors. Removes every other file.
  [[nodiscard]] Result<std::unique_ptr<Index>> Open(
      const std::function<Result<std::unique_ptr<Index>>(const std::string&)>& open,
      const std::function<Result<std::unique_ptr<Index>>()>& make) const;

  // Writes `cut`, which was taken when the store was at `sequence`, and names it; the one before goes. Returns its tag.
  // Errors: kResourceExhausted, kIoError, kUnavailable (the store cannot be written); the one before is still there
  // then, whichever the store names.
  [[nodiscard]] Result<std::uint64_t> Save(const IndexCut& cut, std::uint64_t sequence,
                                           const std::function<Status(std::uint64_t bytes)>& written = {});
  // Whether Save() would write what is there already.
  [[nodiscard]] bool IsCurrent(std::uint64_t sequence) const;

 private:
  void RemoveOthers(std::uint64_t tag) const;

  Store* const store_;
};

}  // namespace freshet
