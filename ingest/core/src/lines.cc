// The lines of a text file: apart from file.cc, so that those who need no zstd do without.
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;
using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

std::string Errno() { return std::error_code(errno, std::generic_category()).message(); }

// Splits a stream of chunks into lines.
class LineSplitter {
 public:
  LineSplitter(const std::string& path, const std::function<Status(std::string_view, double)>& line)
      : path_(path), line_(line) {}

  Status Add(std::string_view chunk, double fraction) {
    while (!chunk.empty()) {
      const std::size_t end = chunk.find('\n');
      if (end == std::string_view::npos) {
        if (partial_.size() + chunk.size() > kMaxLineBytes) return Corruption(path_ + ": a line is longer than 16 MiB");
        partial_.append(chunk);
        return Status::Ok();
      }
      if (partial_.empty()) {
        FRESHET_TRY(Emit(chunk.substr(0, end), fraction));
      } else {
        partial_.append(chunk.substr(0, end));
        FRESHET_TRY(Emit(partial_, fraction));
        partial_.clear();
      }
      chunk.remove_prefix(end + 1);
    }
    return Status::Ok();
  }
  Status Finish() { return partial_.empty() ? Status::Ok() : Emit(partial_, 1.0); }

 private:
  Status Emit(std::string_view line, double fraction) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return line_(line, fraction);
  }
  const std::string& path_;
  const std::function<Status(std::string_view, double)>& line_;
  std::string partial_;
};

}  // namespace

Status ForEachLine(const std::string& path, const std::function<Status(std::string_view, double)>& line) {
  const File file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) return NotFound(StrCat(path, ": cannot be opened: ", Errno()));
  std::error_code error;
  const auto total = static_cast<double>(std::max<std::uintmax_t>(1, std::filesystem::file_size(path, error)));
  LineSplitter splitter(path, line);
  std::vector<char> input(1 << 16);
  std::vector<char> output(1 << 18);
  const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> zstd(ZSTD_createDCtx(), &ZSTD_freeDCtx);
  bool first = true;
  bool compressed = false;
  std::size_t frame_state = 0;
  double read_bytes = 0;
  while (const std::size_t n = std::fread(input.data(), 1, input.size(), file.get())) {
    if (first) compressed = n >= 4 && std::memcmp(input.data(), "\x28\xB5\x2F\xFD", 4) == 0;
    first = false;
    read_bytes += static_cast<double>(n);
    const double fraction = read_bytes / total;
    if (!compressed) {
      FRESHET_TRY(splitter.Add({input.data(), n}, fraction));
      continue;
    }
    ZSTD_inBuffer in{input.data(), n, 0};
    bool output_full = false;
    while (in.pos < in.size || output_full) {
      ZSTD_outBuffer out{output.data(), output.size(), 0};
      frame_state = ZSTD_decompressStream(zstd.get(), &out, &in);
      if (ZSTD_isError(frame_state) != 0) return Corruption(StrCat(path, ": zstd: ", ZSTD_getErrorName(frame_state)));
      output_full = out.pos == out.size;
      FRESHET_TRY(splitter.Add({output.data(), out.pos}, fraction));
    }
  }
  if (std::ferror(file.get()) != 0) return IoError(StrCat(path, ": ", Errno()));
  if (compressed && frame_state != 0) return Corruption(StrCat(path, ": the zstd stream ends early"));
  return splitter.Finish();
}

}  // namespace freshet
