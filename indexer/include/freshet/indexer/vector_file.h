// Vectors from the files that ANN benchmarks and NumPy have.
//
// Place in the flow: vector files -> IndexBuilder and `freshet index`. A file is validated when it is opened (header,
// dimension, and that its size is that of its rows) and read in pieces, never whole.
// Formats, all little-endian, by the name's ending: .npy (NumPy 1 to 3, two dimensions, C order, f4, f8, u1 or i1);
// .fvecs and .bvecs (each row: int32 dimension, then floats or bytes); .fbin and .u8bin (uint32 rows, uint32 dimension,
// then floats or bytes). Not thread-safe.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "freshet/core/status.h"

namespace freshet {

class VectorFile {
 public:
  // Errors: kNotFound; kInvalidArgument (an ending that is none of these); kCorruption, with what is wrong.
  [[nodiscard]] static Result<VectorFile> Open(const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int dim() const { return dim_; }
  [[nodiscard]] std::uint64_t rows() const { return rows_; }
  // Replaces *out by the next rows, at most `rows`, as floats; by nothing at the end. What the numbers are is not
  // looked at: PrepareVector() is. Errors: kCorruption (a row of another dimension, a file that became shorter).
  Status Read(std::size_t rows, std::vector<float>* out);

 private:
  enum class Element { kF32, kF64, kU8, kI8 };

  VectorFile() = default;
  Status ReadHeader(std::uint64_t size);
  Status ReadNpyHeader(std::uint64_t size);
  [[nodiscard]] Status Bad(const std::string& what) const;
  [[nodiscard]] std::size_t ElementBytes() const;

  std::string path_;
  std::ifstream file_;
  Element element_ = Element::kF32;
  bool row_has_dim_ = false;
  int dim_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t next_ = 0;
  std::uint64_t header_bytes_ = 0;
  std::vector<char> piece_;
};

}  // namespace freshet
