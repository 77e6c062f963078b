// `freshet index`, as a user calls it.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "freshet/core/bytes.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr std::uint32_t kRows = 2000;
constexpr std::uint32_t kDim = 8;

class IndexCommandTest : public testing::Test {
 protected:
  IndexCommandTest() {
    ByteWriter out;
    out.Put(kRows).Put(kDim);
    std::uint32_t state = 1;
    for (std::uint32_t i = 0; i < kRows * kDim; ++i) {
      state = state * 1664525 + 1013904223;
      out.Put(static_cast<std::uint8_t>(state >> 24));
    }
    std::ofstream(directory_ / "base.u8bin", std::ios::binary) << out.bytes();
  }
  // The exit code; what it printed is in out_.
  int Run(const std::string& line) {
    CLI::App app("freshet");
    CommandRunner run;
    AddIndexCommand(&app, &run);
    testing::internal::CaptureStdout();
    int code = 2;
    try {
      app.parse("index " + line);
      code = run();
    } catch (const CLI::ParseError&) {
    }
    out_ = testing::internal::GetCapturedStdout();
    return code;
  }
  [[nodiscard]] std::unique_ptr<JsonDocument> Json() const {
    auto json = ParseJson(out_);
    EXPECT_OK(json);
    return std::move(*json);
  }

  test::TempDir directory_;
  std::string out_;
};

TEST_F(IndexCommandTest, BuildInspectAndQueryEveryKind) {
  const std::string base = directory_ / "base.u8bin";
  for (const std::string kind : {"hnsw", "flat"}) {
    const std::string index = directory_ / kind;
    ASSERT_EQ(Run(StrCat("build ", base, " --metric l2 --kind ", kind, " --json --out ", index)), 0);
    EXPECT_EQ(JsonText((*Json())["kind"]), kind);
    EXPECT_EQ((*Json())["rows"].GetUint(), kRows);
    EXPECT_EQ(Run(StrCat("build ", base, " --out ", index)), 1) << "an index that is there is not replaced";

    ASSERT_EQ(Run(StrCat("inspect ", index, " --verify --json")), 0);
    EXPECT_EQ((*Json())["live"].GetUint(), kRows);
    EXPECT_TRUE((*Json())["verified"].GetBool());

    for (const std::string open : {"mapped", "memory"}) {
      ASSERT_EQ(Run(StrCat("query ", index, " --queries ", base, " --limit 100 --k 3 --recall --json --open ", open)),
                0);
      const auto json = Json();
      ASSERT_EQ((*json)["results"].Size(), 100U);
      EXPECT_GE((*json)["recall"].GetDouble(), 0.98);
      for (unsigned i = 0; i < 100; ++i) {
        ASSERT_EQ((*json)["results"][i].Size(), 3U);
        EXPECT_EQ((*json)["results"][i][0]["label"].GetUint(), i) << "each finds itself";
      }
    }
    ASSERT_EQ(Run(StrCat("query ", index, " --queries ", base, " --limit 2 --k 3")), 0);
    EXPECT_EQ(Split(Trim(out_), '\n').size(), 6U);
    EXPECT_TRUE(out_.starts_with("0\t1\t0\t")) << out_;
  }
}

TEST_F(IndexCommandTest, MistakesEndWithOneAndLeaveNoFile) {
  std::ofstream(directory_ / "short.fbin", std::ios::binary) << "xx";
  EXPECT_EQ(Run(StrCat("build ", directory_ / "short.fbin", " --out ", directory_ / "a")), 1);
  EXPECT_FALSE(std::ifstream(directory_ / "a").good());
  EXPECT_EQ(Run(StrCat("inspect ", directory_ / "short.fbin")), 1);
  EXPECT_EQ(Run(StrCat("query ", directory_ / "none", " --queries ", directory_ / "base.u8bin")), 1);
  EXPECT_EQ(Run(StrCat("build ", directory_ / "base.u8bin", " --metric far --out ", directory_ / "a")), 2);
}

// Before anything is read: what is wrong with the vectors is not yet known.
TEST_F(IndexCommandTest, WhereNoFileCanBeIsSaidFirst) {
  std::ofstream(directory_ / "short.fbin", std::ios::binary) << "xx";
  testing::internal::CaptureStderr();
  const int code = Run(StrCat("build ", directory_ / "short.fbin", " --out ", directory_ / "none/x"));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, 1);
  EXPECT_NE(said.find("none/x"), std::string::npos) << said;
  EXPECT_EQ(said.find("short.fbin"), std::string::npos) << said;
  // And that it can be leaves nothing behind.
  EXPECT_EQ(Run(StrCat("build ", directory_ / "short.fbin", " --out ", directory_ / "x")), 1);
  EXPECT_FALSE(std::ifstream(directory_ / "x.tmp").good());
}

using IndexCommandDeathTest = IndexCommandTest;

TEST_F(IndexCommandDeathTest, AnInterruptedQueryIsNoSuccess) {
  const std::string base = directory_ / "base.u8bin";
  const std::string index = directory_ / "index";
  ASSERT_EQ(Run(StrCat("build ", base, " --kind flat --out ", index)), 0);
  const auto interrupted = [&](const std::string& line) {
    InstallStopSignals();
    (void)std::raise(SIGTERM);
    std::_Exit(Run(line));
  };
  EXPECT_EXIT(interrupted(StrCat("query ", index, " --queries ", base)), testing::ExitedWithCode(1),
              "stopped by a signal after 0 of 2000");
  EXPECT_EXIT(interrupted(StrCat("build ", base, " --out ", directory_ / "other")), testing::ExitedWithCode(1),
              "nothing was written");
  EXPECT_FALSE(std::ifstream(directory_ / "other").good());
}

TEST_F(IndexCommandDeathTest, OutputThatGoesNowhereIsNoSuccess) {
  const std::string base = directory_ / "base.u8bin";
  const std::string index = directory_ / "index";
  ASSERT_EQ(Run(StrCat("build ", base, " --kind flat --out ", index)), 0);
  const auto to_a_full_disk = [&](const std::string& line) {
    CLI::App app("freshet");
    CommandRunner run;
    AddIndexCommand(&app, &run);
    app.parse("index " + line);
    if (::dup2(::open("/dev/full", O_WRONLY | O_CLOEXEC), STDOUT_FILENO) < 0) std::_Exit(99);
    std::_Exit(run());
  };
  for (const std::string json : {"", " --json"}) {
    EXPECT_EXIT(to_a_full_disk(StrCat("query ", index, " --queries ", base, json)), testing::ExitedWithCode(1),
                "standard output: ");
    EXPECT_EXIT(to_a_full_disk(StrCat("inspect ", index, json)), testing::ExitedWithCode(1), "standard output: ");
  }
}

}  // namespace
}  // namespace freshet
