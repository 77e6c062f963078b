#include "sequence_floor.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 16;
constexpr std::size_t kMaxEpochs = 64;
constexpr std::string_view kChecksum = "xxh3 ";

std::string SumOf(std::string_view lines) {
  Xxh3Stream stream;
  stream.Update(lines);
  return stream.Hex();
}

bool ReadNumber(std::string_view text, std::uint64_t* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Result<SequenceFloors> ReadSequenceFloors(const std::string& path) {
  const auto text = ReadFile(path, kMaxBytes);
  if (text.status().code() == Code::kNotFound) return SequenceFloors();
  if (!text.ok()) return text.status();
  const std::size_t end = text->rfind(kChecksum);
  if (end == std::string::npos) return Corruption(path + ": has no checksum");
  const std::string_view lines = std::string_view(*text).substr(0, end);
  if (text->substr(end) != StrCat(kChecksum, SumOf(lines), "\n")) return Corruption(path + ": its checksum differs");
  SequenceFloors floors;
  for (const std::string& line : Split(lines, '\n')) {
    if (line.empty()) continue;
    const std::size_t space = line.find(' ');
    std::uint64_t epoch = 0;
    std::uint64_t sequence = 0;
    if (space == std::string::npos || !ReadNumber(std::string_view(line).substr(0, space), &epoch) ||
        !ReadNumber(std::string_view(line).substr(space + 1), &sequence)) {
      return Corruption(StrCat(path, ": `", line, "` is not an epoch and a sequence"));
    }
    floors[epoch] = sequence;
  }
  return floors;
}

Status RaiseSequenceFloor(const std::string& path, std::uint64_t epoch, std::uint64_t sequence) {
  auto read = ReadSequenceFloors(path);
  if (!read.ok() && read.status().code() != Code::kCorruption) return read.status();
  SequenceFloors floors = read.ok() ? std::move(*read) : SequenceFloors();
  std::uint64_t& floor = floors[epoch];
  floor = std::max(floor, sequence);
  while (floors.size() > kMaxEpochs) floors.erase(floors.begin());
  std::string lines;
  for (const auto& [of, number] : floors) lines += StrCat(of, " ", number, "\n");
  return WriteFileAtomically(path, StrCat(lines, kChecksum, SumOf(lines), "\n"));
}

}  // namespace freshet
