// The bearer tokens that a server takes (RFC 6750), from a file.
//
// Place in the flow: asked by HttpApi before anything of a request is looked at. Thread-safe. What was sent is compared
// by its hash, with every token and to the end, so that the time tells nothing of them. Never logged.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"

namespace freshet {

class HttpTokens {
 public:
  // One a line, 16 to 512 visible characters; empty lines and those that begin with '#' are passed over. More than one,
  // so that they can be replaced one after the other. Errors: kConfig; it names the file and the line, not what is
  // there.
  [[nodiscard]] static Result<HttpTokens> Load(const std::string& path);
  // Whether an Authorization header brings one of them.
  [[nodiscard]] bool Allows(std::string_view authorization) const;

 private:
  std::vector<std::string> hashes_;  // SHA-256, hex
};

}  // namespace freshet
