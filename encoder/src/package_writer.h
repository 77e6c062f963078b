// Writes a model package so that it is there completely or not at all.
//
// Place in the flow: the last step of training. Thread-compatible.
#pragma once

#include <string>

#include "freshet/core/status.h"
#include "freshet/encoder/package.h"
#include "goldens.h"

namespace freshet {

struct PackageContents {
  ModelManifest manifest;  // space_id and sha256 are filled in by the writer
  std::string item_tower;  // TorchScript bytes
  std::string user_tower;
  std::string reranker = {};  // written where manifest.reranker is there
  Goldens goldens;
};

// Writes a directory beside `directory`, fsyncs, and renames; a package already there is exchanged in one step. What
// writers of the same package left that were killed is removed. Returns the space id. Errors: kFailedPrecondition when
// `directory` holds something that is no package; kIoError.
[[nodiscard]] Result<std::string> WritePackage(PackageContents contents, const std::string& directory);

// Ok where it may write: nothing is there yet, an empty directory, or a package. Errors: kFailedPrecondition.
Status CheckReplaceable(const std::string& directory);

// `<directory><suffix>`: what belongs to a package and is no part of it.
[[nodiscard]] std::string PathBeside(const std::string& directory, const std::string& suffix);

}  // namespace freshet
