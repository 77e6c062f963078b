#include "http_tokens.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 16;
constexpr std::size_t kLeastChars = 16;
constexpr std::size_t kMostChars = 512;
constexpr std::string_view kScheme = "bearer ";

// As long whatever differs.
bool SameHash(const std::string& a, const std::string& b) {
  unsigned different = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    different |= static_cast<unsigned>(static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]));
  }
  return different == 0 && a.size() == b.size();
}

}  // namespace

Result<HttpTokens> HttpTokens::Load(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return ConfigError(StrCat(path, ": others than its owner may read it: chmod 600"));
  }
  const Result<std::string> text = ReadFile(path, kMaxFileBytes);
  if (!text.ok()) return ConfigError(text.status().message());
  HttpTokens tokens;
  int number = 0;
  for (const std::string& raw : Split(*text, '\n')) {
    ++number;
    const std::string_view line = Trim(raw);
    if (line.empty() || line.front() == '#') continue;
    const bool visible = std::all_of(line.begin(), line.end(), [](char c) { return c > ' ' && c <= '~'; });
    if (!visible || line.size() < kLeastChars || line.size() > kMostChars) {
      return ConfigError(
          StrCat(path, ":", number, ": a token is ", kLeastChars, " to ", kMostChars, " visible characters"));
    }
    tokens.hashes_.push_back(Sha256Hex(line));
  }
  if (tokens.hashes_.empty()) return ConfigError(StrCat(path, ": holds no token"));
  return tokens;
}

bool HttpTokens::Allows(std::string_view authorization) const {
  if (authorization.size() <= kScheme.size() || authorization.size() > kScheme.size() + kMostChars) return false;
  const bool is_bearer = std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char wanted, char c) {
    return wanted == static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  });
  const std::string hash = Sha256Hex(Trim(authorization.substr(kScheme.size())));
  bool allowed = false;
  for (const std::string& one : hashes_) allowed = SameHash(hash, one) || allowed;
  return is_bearer && allowed;
}

}  // namespace freshet
