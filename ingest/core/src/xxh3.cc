#include <xxhash.h>

#include <array>
#include <cstdio>
#include <memory>
#include <new>

#include "freshet/core/checksum.h"

namespace freshet {

std::uint64_t Xxh3(std::string_view bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

struct Xxh3Stream::State {
  XXH3_state_t* const xxh3 = XXH3_createState();
};

Xxh3Stream::Xxh3Stream() : state_(std::make_unique<State>()) {
  if (state_->xxh3 == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_->xxh3);
}
Xxh3Stream::~Xxh3Stream() { XXH3_freeState(state_->xxh3); }

void Xxh3Stream::Update(std::string_view bytes) { XXH3_128bits_update(state_->xxh3, bytes.data(), bytes.size()); }

std::uint64_t Xxh3Stream::Low64() const { return XXH3_128bits_digest(state_->xxh3).low64; }

std::string Xxh3Stream::Hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh3);
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text.data();
}

}  // namespace freshet
