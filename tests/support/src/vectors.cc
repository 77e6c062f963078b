#include "freshet_test/vectors.h"

#include <cmath>
#include <cstring>
#include <fstream>

#include "freshet/core/strings.h"

namespace freshet::test {
namespace {

// The standard's distributions differ between libraries; this does not (splitmix64, sum of uniforms).
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : state_(seed) {}
  std::uint64_t Next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  float Uniform() { return static_cast<float>(Next() >> 40) * 0x1p-24F; }
  // About normal: variance 1.
  float Normal() { return (Uniform() + Uniform() + Uniform() + Uniform() - 2) * std::sqrt(3.0F); }

 private:
  std::uint64_t state_;
};

}  // namespace

VectorSet ClusteredVectors(std::uint64_t seed, int part, std::size_t size, int dim, std::size_t clusters,
                           float spread) {
  const auto width = static_cast<std::size_t>(dim);
  std::vector<float> centres(clusters * width);
  Generator centre_generator(seed);
  for (float& x : centres) x = centre_generator.Normal();
  VectorSet set;
  set.dim = dim;
  set.size = size;
  set.values.resize(size * width);
  Generator generator(seed * 31 + static_cast<std::uint64_t>(part) + 1);
  for (std::size_t i = 0; i < size; ++i) {
    const float* centre = centres.data() + generator.Next() % clusters * width;
    float* row = set.values.data() + i * width;
    float norm = 0;
    for (std::size_t j = 0; j < width; ++j) {
      row[j] = centre[j] + spread * generator.Normal();
      norm += row[j] * row[j];
    }
    const float inverse = 1 / std::sqrt(norm);
    for (std::size_t j = 0; j < width; ++j) row[j] *= inverse;
  }
  return set;
}

Result<VectorSet> ReadU8Bin(const std::string& path, std::size_t limit) {
  std::ifstream file(path, std::ios::binary);
  std::uint32_t head[2] = {};
  if (!file.read(reinterpret_cast<char*>(head), sizeof(head))) return NotFound(StrCat(path, ": cannot be read"));
  if (head[1] == 0 || head[1] > 4096) return Corruption(StrCat(path, ": dimension ", head[1]));
  VectorSet set;
  set.dim = static_cast<int>(head[1]);
  set.size = std::min<std::size_t>(head[0], limit);
  std::vector<char> bytes(set.size * head[1]);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    return Corruption(StrCat(path, ": shorter than its header says"));
  }
  set.values.reserve(bytes.size());
  for (const char byte : bytes) set.values.push_back(static_cast<float>(static_cast<unsigned char>(byte)));
  return set;
}

}  // namespace freshet::test
