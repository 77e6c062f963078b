// Certificates for tests, made by the openssl command: NAME.crt and NAME.key in a directory of their own.
#pragma once

#include <cstdlib>
#include <string>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

class Certificates {
 public:
  void Authority(const std::string& name) const {
    Shell(StrCat("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=", name, " -keyout ", name, ".key -out ",
                 name, ".crt"));
  }
  // `for_name`: as "IP:127.0.0.1".
  void Certify(const std::string& name, const std::string& for_name, const std::string& authority) const {
    Shell(
        StrCat("openssl req -newkey rsa:2048 -nodes -subj /CN=", name, " -keyout ", name, ".key -out ", name, ".csr"));
    EXPECT_OK(WriteFileAtomically(At(name + ".ext"), StrCat("subjectAltName=", for_name, "\n")));
    Shell(StrCat("openssl x509 -req -days 2 -in ", name, ".csr -CA ", authority, ".crt -CAkey ", authority,
                 ".key -CAcreateserial -extfile ", name, ".ext -out ", name, ".crt"));
  }
  [[nodiscard]] std::string At(const std::string& name) const { return dir_ / name; }

 private:
  void Shell(const std::string& command) const {
    EXPECT_EQ(std::system(StrCat("cd ", dir_.path(), " && ", command, " 2>>log").c_str()), 0) << command;
  }
  TempDir dir_;
};

}  // namespace freshet::test
