// An index file taken apart, changed and put together again, with the right checksums: what is wrong in it then is for
// the validation of its contents to find.
#pragma once

#include <array>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "index_file.h"

namespace freshet::test {

struct IndexFileParts {
  IndexFileHeader header;
  std::array<std::vector<std::byte>, kIndexSections> sections;

  template <typename T>
  [[nodiscard]] T* Items(IndexSection id) {
    return reinterpret_cast<T*>(sections[static_cast<std::size_t>(id)].data());
  }
  // {count, 2 m slots} of a slot's node.
  [[nodiscard]] std::uint32_t* Links(std::uint32_t slot) {
    return Items<std::uint32_t>(IndexSection::kLinks) + std::size_t{slot} * (2 * header.m + 1);
  }
  [[nodiscard]] bool IsNode(std::uint32_t slot) {
    return (Items<std::uint64_t>(IndexSection::kNodes)[slot / 64] >> (slot % 64) & 1) != 0;
  }
  // Takes the slot out of every list of level 0.
  void LeadNothingTo(std::uint32_t slot) {
    for (std::uint32_t other = 0; other < header.rows; ++other) {
      std::uint32_t* list = Links(other);
      std::uint32_t kept = 0;
      for (std::uint32_t i = 1; i <= list[0]; ++i) {
        if (list[i] != slot) list[++kept] = list[i];
      }
      list[0] = kept;
    }
  }
};

inline Status RewriteIndexFile(const std::string& path, const std::function<void(IndexFileParts*)>& change) {
  IndexFileParts parts;
  {
    FRESHET_ASSIGN(const std::unique_ptr<IndexFile> file, IndexFile::Open(path, true));
    parts.header = file->header();
    for (std::size_t i = 0; i < kIndexSections; ++i) {
      const auto bytes = file->Items<std::byte>(static_cast<IndexSection>(i));
      parts.sections[i].assign(bytes.begin(), bytes.end());
    }
  }
  change(&parts);
  IndexFileWriter writer(path);
  FRESHET_TRY(writer.Open());
  for (std::size_t i = 0; i < kIndexSections; ++i) {
    const std::vector<std::byte>& bytes = parts.sections[i];
    FRESHET_TRY(writer.Section(static_cast<IndexSection>(i), bytes.size(), 1,
                               [&](std::uint64_t at, std::byte* to) { *to = bytes[at]; }));
  }
  return writer.Finish(parts.header);
}

}  // namespace freshet::test
