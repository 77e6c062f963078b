// Little-endian encoding of our persistent and wire formats, and a reader that validates every byte.
//
// Place in the flow: store rows and changelog records. ByteReader never reads past its input: the first short or
// malformed field makes it fail() for good, later reads return zeros, and the caller checks ok() once at the end.
// Thread-compatible.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace freshet {

static_assert(std::endian::native == std::endian::little, "formats are written in native order; port bytes.h first");

class ByteWriter {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> ByteWriter& Put(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    out_.append(raw, sizeof(T));
    return *this;
  }
  // u32 length, then the bytes.
  ByteWriter& PutString(std::string_view text) {
    Put(static_cast<std::uint32_t>(text.size()));
    out_.append(text);
    return *this;
  }
  // Raw, without a length.
  ByteWriter& PutBytes(std::string_view bytes) {
    out_.append(bytes);
    return *this;
  }
  ByteWriter& PutFloats(std::span<const float> values) {
    out_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    return *this;
  }
  [[nodiscard]] const std::string& bytes() const { return out_; }
  [[nodiscard]] std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  requires std::is_arithmetic_v<T> T Get() {
    T value{};
    if (rest_.size() < sizeof(T)) {
      Fail();
      return value;
    }
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  // A view into the input; empty after a failure.
  std::string_view GetString() {
    const auto size = Get<std::uint32_t>();
    return GetBytes(size);
  }
  std::string_view GetBytes(std::size_t size) {
    if (rest_.size() < size) {
      Fail();
      return {};
    }
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }
  void GetFloats(std::span<float> out) {
    const std::string_view bytes = GetBytes(out.size_bytes());
    if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  }

  void Fail() {
    failed_ = true;
    rest_ = {};
  }
  [[nodiscard]] bool ok() const { return !failed_; }
  // Everything was read and nothing was missing.
  [[nodiscard]] bool finished() const { return !failed_ && rest_.empty(); }
  [[nodiscard]] std::size_t remaining() const { return rest_.size(); }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
  bool failed_ = false;
};

// Big-endian u64, so that byte order is number order in a key-value store.
[[nodiscard]] inline std::string OrderedKey(std::uint64_t value) {
  std::string key(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) key[i] = static_cast<char>(value >> (56 - 8 * i));
  return key;
}
// REQUIRES: key.size() == 8.
[[nodiscard]] inline std::uint64_t FromOrderedKey(std::string_view key) {
  std::uint64_t value = 0;
  for (const char c : key) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

}  // namespace freshet
