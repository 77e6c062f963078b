// Hashes: XXH3 for integrity and bucketing, SHA-256 for content identity of packages. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

// XXH3 64-bit (xxHash specification, stable since 0.8.0): may be persisted.
[[nodiscard]] std::uint64_t Xxh3(std::string_view bytes, std::uint64_t seed = 0);

// Lower-case hex.
[[nodiscard]] std::string Sha256Hex(std::string_view bytes);
[[nodiscard]] Result<std::string> Sha256HexOfFile(const std::string& path);

}  // namespace freshet
