// deploy/docs/api.md does what it says of gRPC: its example as it stands, against a live server.
#include <cstdlib>

#include "freshet/core/file.h"
#include "grpc_fixture.h"

namespace freshet {
namespace {

class GrpcDocTest : public test::GrpcTest {
 protected:
  void SetUp() override {
    const Attributes film = {
        {"category", std::string("film")}, {"title", std::string("Les glaneurs")}, {"year", std::int64_t{2000}}};
    replica_.Put("85123A", {1, 0}, film);
    replica_.Put("47566", {0.5F, 0}, film);
    replica_.Put("22423", {0.9F, 0}, {{"category", std::string("film")}, {"year", std::int64_t{1999}}});
    replica_.users["14620"].history = {{"85123A", "buy", 2, 1'306'863'000'000}};
    replica_.users["14620"].seen = {"85123A"};
    StartServer();
  }
  // The indented block beneath the heading.
  static std::string Example() {
    const Result<std::string> page = ReadFile(test::SourceRoot() + "/deploy/docs/api.md", std::size_t{1} << 20);
    EXPECT_OK(page);
    std::string example;
    bool here = false;
    for (const std::string& line : Split(page.ok() ? *page : "", '\n')) {
      if (line.starts_with("## ")) here = line == "## Over gRPC";
      if (here && line.starts_with("    ")) example += line.substr(4) + "\n";
    }
    return example;
  }

  test::TempDir dir_;
};

TEST_F(GrpcDocTest, TheExampleGivesWhatItSays) {
  std::string script = Example();
  const auto replace = [&](const std::string& from, const std::string& to) {
    EXPECT_NE(script.find(from), std::string::npos) << from;
    for (std::size_t at = script.find(from); at != std::string::npos; at = script.find(from, at + to.size())) {
      script.replace(at, from.size(), to);
    }
  };
  replace("127.0.0.1:8082", server_->grpc_address());
  replace("/tmp/freshet-client", dir_.path());
  // Debian's own Python has Debian's packages, whatever else is installed.
  const std::string prelude = StrCat("set -e\nexport PATH=/usr/bin:$PATH\ncd ", test::SourceRoot(), "\n");
  ASSERT_OK(WriteFileAtomically(dir_ / "example.sh", prelude + script));
  const std::string command = StrCat("timeout 60 bash ", dir_ / "example.sh", " >", dir_ / "out", " 2>", dir_ / "err");
  const int status = std::system(command.c_str());
  const auto out = ReadFile(dir_ / "out", std::size_t{1} << 20);
  const auto err = ReadFile(dir_ / "err", std::size_t{1} << 20);
  ASSERT_OK(out);
  ASSERT_OK(err);
  EXPECT_EQ(status, 0) << *err;
  EXPECT_EQ(*out,
            "47566 0.5 Les glaneurs\n"
            "INVALID_ARGUMENT /k: must be between 1 and 1000\n");
}

}  // namespace
}  // namespace freshet
