// Hashes: XXH3 for integrity and bucketing, SHA-256 for content identity of packages. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

// XXH3 64-bit (xxHash specification, stable since 0.8.0): may be persisted.
[[nodiscard]] std::uint64_t Xxh3(std::string_view bytes, std::uint64_t seed = 0);

// XXH3 128-bit of bytes that come in pieces; as text 32 lower-case hex digits, high half first.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();
  Xxh3Stream(const Xxh3Stream&) = delete;
  Xxh3Stream& operator=(const Xxh3Stream&) = delete;
  void Update(std::string_view bytes);
  [[nodiscard]] std::string Hex() const;
  [[nodiscard]] std::uint64_t Low64() const;  // its lower half

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

// Lower-case hex.
[[nodiscard]] std::string Sha256Hex(std::string_view bytes);
[[nodiscard]] Result<std::string> Sha256HexOfFile(const std::string& path);

}  // namespace freshet
