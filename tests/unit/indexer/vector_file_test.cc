#include "freshet/indexer/vector_file.h"

#include <fstream>

#include "freshet/core/bytes.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

const std::vector<float> kRows = {1, 2, 3, 4, 5, 250};  // three of two

std::string Npy(const std::string& dictionary, const std::string& data, int version = 1) {
  ByteWriter out;
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  if (version == 1) {
    out.Put(static_cast<std::uint16_t>(dictionary.size()));
  } else {
    out.Put(static_cast<std::uint32_t>(dictionary.size()));
  }
  return bytes + out.bytes() + dictionary + data;
}

template <typename T>
std::string Numbers(const std::vector<float>& values) {
  ByteWriter out;
  for (const float value : values) out.Put(static_cast<T>(value));
  return out.Take();
}

// Rows of two with their dimension before each.
template <typename T>
std::string Vecs(std::int32_t third_dim = 2) {
  ByteWriter out;
  for (std::size_t i = 0; i < 3; ++i) {
    out.Put(i == 2 ? third_dim : 2).Put(static_cast<T>(kRows[2 * i])).Put(static_cast<T>(kRows[2 * i + 1]));
  }
  return out.Take();
}

template <typename T>
std::string Bin(std::uint32_t rows = 3, std::uint32_t dim = 2) {
  ByteWriter out;
  out.Put(rows).Put(dim);
  return out.Take() + Numbers<T>(kRows);
}

class VectorFileTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = directory_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  // All rows, read two at a time, or why not.
  static Result<std::vector<float>> ReadAll(const std::string& path) {
    FRESHET_ASSIGN(VectorFile file, VectorFile::Open(path));
    std::vector<float> all;
    std::vector<float> piece;
    while (true) {
      FRESHET_TRY(file.Read(2, &piece));
      if (piece.empty()) break;
      all.insert(all.end(), piece.begin(), piece.end());
    }
    EXPECT_EQ(file.dim(), 2);
    EXPECT_EQ(all.size(), file.rows() * 2);
    return all;
  }

  test::TempDir directory_;
};

constexpr const char* kF4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";

TEST_F(VectorFileTest, EveryFormatGivesTheSameRows) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"a.npy", Npy(kF4, Numbers<float>(kRows))},
      {"b.npy", Npy("{'shape': (3, 2), 'fortran_order': False, 'descr': '<f8'}  \n", Numbers<double>(kRows), 2)},
      {"c.npy", Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 2), }", Numbers<std::uint8_t>(kRows), 3)},
      {"d.fvecs", Vecs<float>()},
      {"e.bvecs", Vecs<std::uint8_t>()},
      {"f.fbin", Bin<float>()},
      {"g.u8bin", Bin<std::uint8_t>()},
  };
  for (const auto& [name, bytes] : files) {
    const auto rows = ReadAll(Write(name, bytes));
    ASSERT_OK(rows);
    EXPECT_EQ(*rows, kRows) << name;
  }
}

TEST_F(VectorFileTest, SignedBytesOfNumPy) {
  const auto rows = ReadAll(
      Write("a.npy", Npy("{'descr': '|i1', 'fortran_order': False, 'shape': (1, 2)}", Numbers<std::int8_t>({-3, 7}))));
  ASSERT_OK(rows);
  EXPECT_EQ(*rows, (std::vector<float>{-3, 7}));
}

// Each is whole but for its last byte, or has one too many.
TEST_F(VectorFileTest, EveryTruncationIsRefused) {
  const std::vector<std::pair<std::string, std::string>> files = {{"a.npy", Npy(kF4, Numbers<float>(kRows))},
                                                                  {"d.fvecs", Vecs<float>()},
                                                                  {"e.bvecs", Vecs<std::uint8_t>()},
                                                                  {"f.fbin", Bin<float>()},
                                                                  {"g.u8bin", Bin<std::uint8_t>()}};
  for (const auto& [name, bytes] : files) {
    for (std::size_t size = 0; size <= bytes.size() + 1; ++size) {
      if (size == bytes.size()) continue;
      // Files whose rows say their own dimension do not say how many there are.
      const std::size_t row = name[0] == 'd' ? 12 : name[0] == 'e' ? 6 : ~std::size_t{0};
      if (size > 0 && size % row == 0) continue;
      std::string part = bytes;
      part.resize(size);
      const auto read = ReadAll(Write(name, part));
      ASSERT_FALSE(read.ok()) << name << " of " << size << " bytes";
      EXPECT_EQ(read.status().code(), Code::kCorruption);
      EXPECT_NE(read.status().message().find(name), std::string::npos);
    }
  }
}

TEST_F(VectorFileTest, BadHeadersAreRefused) {
  const auto code = [&](const std::string& name, const std::string& bytes) {
    return VectorFile::Open(Write(name, bytes)).status().code();
  };
  const std::string data = Numbers<float>(kRows);
  for (const char* dictionary : {
           "{'descr': '>f4', 'fortran_order': False, 'shape': (3, 2), }",
           "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, 1), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2",
           "{'descr': '<f4', 'shape': (3, 2), }",
           "{}",
           "",
       }) {
    EXPECT_EQ(code("x.npy", Npy(dictionary, data)), Code::kCorruption) << dictionary;
  }
  EXPECT_EQ(code("x.npy", "PK" + Npy(kF4, data)), Code::kCorruption);
  EXPECT_EQ(code("x.npy", Npy(kF4, data, 9)), Code::kCorruption);
  EXPECT_EQ(code("x.fbin", Bin<float>(4)), Code::kCorruption);
  EXPECT_EQ(code("x.fbin", Bin<float>(2)), Code::kCorruption);
  EXPECT_EQ(code("x.fbin", Bin<float>(3, 0)), Code::kCorruption);
  EXPECT_EQ(code("x.fbin", Bin<float>(1, 4097)), Code::kCorruption);
  EXPECT_EQ(code("x.fbin", Bin<float>(0xffffffff, 0xffffffff)), Code::kCorruption);
  EXPECT_EQ(code("x.txt", Bin<float>()), Code::kInvalidArgument);
  EXPECT_EQ(VectorFile::Open(directory_ / "none.fbin").status().code(), Code::kNotFound);
}

TEST_F(VectorFileTest, ARowOfAnotherDimensionIsRefusedByItsNumber) {
  const auto read = ReadAll(Write("a.fvecs", Vecs<float>(3)));
  ASSERT_EQ(read.status().code(), Code::kCorruption);
  EXPECT_NE(read.status().message().find("row 2"), std::string::npos) << read.status().message();
}

}  // namespace
}  // namespace freshet
