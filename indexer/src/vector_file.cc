#include "freshet/indexer/vector_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "freshet/core/bytes.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr int kMaxDim = 4096;
constexpr std::size_t kMaxNpyHeader = 65'536;

// The value of 'key' in NumPy's header, a Python dictionary of one line: the text up to where the next entry begins.
std::optional<std::string> NpyField(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(StrCat("'", key, "'"));
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = header.substr(at + key.size() + 2);
  rest = Trim(rest);
  if (!rest.starts_with(':')) return std::nullopt;
  rest = Trim(rest.substr(1));
  const std::size_t end = rest.starts_with('(') ? rest.find(')') : rest.find_first_of(",}");
  if (end == std::string_view::npos) return std::nullopt;
  return std::string(Trim(rest.substr(0, rest.starts_with('(') ? end + 1 : end)));
}

template <typename T>
void Convert(const char* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));
    to[i] = static_cast<float>(value);
  }
}

}  // namespace

Status VectorFile::Bad(const std::string& what) const { return Corruption(StrCat(path_, ": ", what)); }

std::size_t VectorFile::ElementBytes() const {
  return element_ == Element::kF64 ? 8 : element_ == Element::kF32 ? 4 : 1;
}

Result<VectorFile> VectorFile::Open(const std::string& path) {
  VectorFile file;
  file.path_ = path;
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(path, error);
  if (!error) file.file_.open(path, std::ios::binary);
  if (error || !file.file_) return NotFound(path + ": cannot be read");
  FRESHET_TRY(file.ReadHeader(size));
  return file;
}

Status VectorFile::ReadHeader(std::uint64_t size) {
  const std::string ending = std::filesystem::path(path_).extension().string();
  if (ending == ".npy") {
    FRESHET_TRY(ReadNpyHeader(size));
  } else if (ending == ".fbin" || ending == ".u8bin" || ending == ".fvecs" || ending == ".bvecs") {
    element_ = ending[1] == 'f' ? Element::kF32 : Element::kU8;
    row_has_dim_ = ending == ".fvecs" || ending == ".bvecs";
    std::uint32_t head[2] = {};
    header_bytes_ = row_has_dim_ ? 0 : sizeof(head);
    const std::size_t wanted = row_has_dim_ ? sizeof(head[0]) : sizeof(head);
    if (!file_.read(reinterpret_cast<char*>(head), static_cast<std::streamsize>(wanted))) {
      return Bad("shorter than its header");
    }
    const std::uint32_t dim = row_has_dim_ ? head[0] : head[1];
    if (dim < 1 || dim > kMaxDim) return Bad(StrCat("dimension ", dim, "; it may be 1 to ", kMaxDim));
    dim_ = static_cast<int>(dim);
    const std::uint64_t row = dim * ElementBytes() + (row_has_dim_ ? sizeof(std::uint32_t) : 0);
    rows_ = row_has_dim_ ? size / row : head[0];
  } else {
    return InvalidArgument(StrCat(path_, ": the ending must be .npy, .fvecs, .bvecs, .fbin or .u8bin"));
  }
  const std::uint64_t row =
      static_cast<std::uint64_t>(dim_) * ElementBytes() + (row_has_dim_ ? sizeof(std::uint32_t) : 0);
  if (rows_ > size / row || header_bytes_ + rows_ * row != size) {
    return Bad(StrCat(size, " bytes are not ", rows_, " rows of dimension ", dim_));
  }
  file_.seekg(static_cast<std::streamoff>(header_bytes_));
  return file_ ? Status::Ok() : Bad("cannot be read");
}

Status VectorFile::ReadNpyHeader(std::uint64_t size) {
  std::string head(10, '\0');
  if (size < head.size() || !file_.read(head.data(), 10) || !head.starts_with("\x93NUMPY")) {
    return Bad("no file of NumPy's");
  }
  const int version = static_cast<unsigned char>(head[6]);
  if (version < 1 || version > 3) return Bad(StrCat("version ", version, " of NumPy's format"));
  if (version > 1) {
    head.resize(12);
    if (!file_.read(head.data() + 10, 2)) return Bad("shorter than its header");
  }
  ByteReader reader(std::string_view(head).substr(8));
  const std::uint64_t text_bytes = version > 1 ? reader.Get<std::uint32_t>() : reader.Get<std::uint16_t>();
  if (text_bytes > kMaxNpyHeader || head.size() + text_bytes > size) return Bad("shorter than its header");
  std::string text(text_bytes, '\0');
  if (!file_.read(text.data(), static_cast<std::streamsize>(text_bytes))) return Bad("shorter than its header");
  header_bytes_ = head.size() + text_bytes;

  const std::string descr = NpyField(text, "descr").value_or("");
  if (descr == "'<f4'") {
    element_ = Element::kF32;
  } else if (descr == "'<f8'") {
    element_ = Element::kF64;
  } else if (descr == "'|u1'") {
    element_ = Element::kU8;
  } else if (descr == "'|i1'") {
    element_ = Element::kI8;
  } else {
    return Bad(StrCat("numbers of type ", descr, "; they may be '<f4', '<f8', '|u1' or '|i1'"));
  }
  if (NpyField(text, "fortran_order").value_or("") != "False") return Bad("columns first; save it in C order");
  const std::string shape = NpyField(text, "shape").value_or("");
  const std::vector<std::string> sizes =
      shape.size() > 2 ? Split(std::string_view(shape).substr(1, shape.size() - 2), ',') : std::vector<std::string>{};
  const auto rows = sizes.size() == 2 ? ParseInt(Trim(sizes[0])) : std::nullopt;
  const auto dim = sizes.size() == 2 ? ParseInt(Trim(sizes[1])) : std::nullopt;
  if (!rows || !dim || *rows < 0) return Bad(StrCat("shape ", shape, "; it must be (rows, dimension)"));
  if (*dim < 1 || *dim > kMaxDim) return Bad(StrCat("dimension ", *dim, "; it may be 1 to ", kMaxDim));
  rows_ = static_cast<std::uint64_t>(*rows);
  dim_ = static_cast<int>(*dim);
  return Status::Ok();
}

Status VectorFile::Read(std::size_t rows, std::vector<float>* out) {
  const auto width = static_cast<std::size_t>(dim_);
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(rows, rows_ - next_));
  const std::size_t prefix = row_has_dim_ ? sizeof(std::int32_t) : 0;
  const std::size_t row_bytes = prefix + width * ElementBytes();
  out->resize(count * width);
  piece_.resize(count * row_bytes);
  if (count > 0 && !file_.read(piece_.data(), static_cast<std::streamsize>(piece_.size()))) {
    return Bad(StrCat("ends within the ", count, " rows after row ", next_));
  }
  for (std::size_t i = 0; i < count; ++i) {
    const char* from = piece_.data() + i * row_bytes;
    float* to = out->data() + i * width;
    if (row_has_dim_) {
      std::int32_t dim = 0;
      std::memcpy(&dim, from, sizeof(dim));
      if (dim != dim_) return Bad(StrCat("row ", next_ + i, " has dimension ", dim, ", the first ", dim_));
      from += prefix;
    }
    switch (element_) {
      case Element::kF32:
        Convert<float>(from, width, to);
        break;
      case Element::kF64:
        Convert<double>(from, width, to);
        break;
      case Element::kU8:
        Convert<std::uint8_t>(from, width, to);
        break;
      case Element::kI8:
        Convert<std::int8_t>(from, width, to);
        break;
    }
  }
  next_ += count;
  return Status::Ok();
}

}  // namespace freshet
