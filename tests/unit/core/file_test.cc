#include "freshet/core/file.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

void Write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A frame with a checksum, as the zstd tool writes it.
std::string Compressed(const std::string& text) {
  const std::unique_ptr<ZSTD_CCtx, std::size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), &ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress2(context.get(), out.data(), out.size(), text.data(), text.size()));
  return out;
}

Result<std::vector<std::string>> Lines(const std::string& path) {
  std::vector<std::string> lines;
  FRESHET_TRY(ForEachLine(path, [&](std::string_view line, double fraction) {
    EXPECT_GT(fraction, 0);
    EXPECT_LE(fraction, 1);
    lines.emplace_back(line);
    return Status::Ok();
  }));
  return lines;
}

TEST(FileTest, WritesAndReadsBack) {
  const test::TempDir dir;
  const std::string path = dir / "a";
  ASSERT_OK(WriteFileAtomically(path, std::string("x\0y", 3)));
  const auto content = ReadFile(path);
  ASSERT_OK(content);
  EXPECT_EQ(*content, std::string("x\0y", 3));
  ASSERT_OK(WriteFileAtomically(path, "second"));
  EXPECT_EQ(*ReadFile(path), "second");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(FileTest, TheDirectoryOfAFileMayBeTheRootOrTheCurrentOne) {
  const test::TempDir dir;
  EXPECT_OK(SyncDirectoryOf("/a-file"));
  EXPECT_OK(SyncDirectoryOf("a-file"));
  EXPECT_OK(SyncDirectoryOf(dir / "a-file"));
  EXPECT_EQ(SyncDirectoryOf(dir / "none/a-file").code(), Code::kNotFound);
}

TEST(FileTest, ReadingIsBounded) {
  const test::TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "a", "12345"));
  EXPECT_EQ(ReadFile(dir / "a", 4).status().code(), Code::kResourceExhausted);
  EXPECT_OK(ReadFile(dir / "a", 5));
  EXPECT_EQ(ReadFile(dir / "missing").status().code(), Code::kNotFound);
  EXPECT_FALSE(ReadFile(dir.path()).ok()) << "a directory is no file";
}

TEST(FileTest, AFailedWriteLeavesTheOldContent) {
  const test::TempDir dir;
  const std::string path = dir / "a";
  ASSERT_OK(WriteFileAtomically(path, "old"));
  ASSERT_OK(CreateDirectories(path + ".tmp"));  // cannot be opened for writing
  EXPECT_EQ(WriteFileAtomically(path, "new").code(), Code::kIoError);
  EXPECT_EQ(*ReadFile(path), "old");
}

// /dev/full takes every open and refuses every byte: a full disk.
TEST(FileTest, AFullDiskIsAnError) {
  const test::TempDir dir;
  const std::string path = dir / "a";
  std::filesystem::create_symlink("/dev/full", path + ".tmp");
  EXPECT_EQ(WriteFileAtomically(path, "new").code(), Code::kResourceExhausted);
  EXPECT_EQ(ReadFile(path).status().code(), Code::kNotFound);
}

TEST(FileTest, LinesOfPlainFiles) {
  const test::TempDir dir;
  Write(dir / "a", "one\r\n\ntwo\nlast");
  const auto lines = Lines(dir / "a");
  ASSERT_OK(lines);
  EXPECT_EQ(*lines, (std::vector<std::string>{"one", "", "two", "last"}));
  Write(dir / "empty", "");
  EXPECT_TRUE(Lines(dir / "empty")->empty());
  EXPECT_EQ(Lines(dir / "missing").status().code(), Code::kNotFound);
}

TEST(FileTest, LinesOfZstdFilesAcrossBuffersAndFrames) {
  const test::TempDir dir;
  std::string text;
  std::vector<std::string> expected;
  for (int i = 0; i < 50'000; ++i) {
    expected.push_back("line " + std::to_string(i * 7919));
    text += expected.back() + "\n";
  }
  const std::size_t half = text.size() / 2;  // within a line
  Write(dir / "a.zst", Compressed(text.substr(0, half)) + Compressed(text.substr(half)));
  const auto lines = Lines(dir / "a.zst");
  ASSERT_OK(lines);
  EXPECT_EQ(*lines, expected);
}

TEST(FileTest, DamagedZstdIsCorruption) {
  const test::TempDir dir;
  std::string text;
  for (int i = 0; i < 5000; ++i) text += std::to_string(i * 7919) + "\n";
  const std::string good = Compressed(text);
  ASSERT_GT(good.size(), 64u);
  for (const std::size_t size : {std::size_t{5}, good.size() / 2, good.size() - 1}) {
    Write(dir / "cut.zst", good.substr(0, size));
    EXPECT_EQ(Lines(dir / "cut.zst").status().code(), Code::kCorruption) << size;
  }
  std::string flipped = good;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 0x10);
  Write(dir / "flipped.zst", flipped);
  EXPECT_EQ(Lines(dir / "flipped.zst").status().code(), Code::kCorruption);
}

TEST(FileTest, AnEndlessLineIsCorruption) {
  const test::TempDir dir;
  Write(dir / "a", std::string((std::size_t{16} << 20) + 70'000, 'x'));
  EXPECT_EQ(Lines(dir / "a").status().code(), Code::kCorruption);
}

TEST(FileTest, ReturnsTheHandlersStatusAsItIs) {
  const test::TempDir dir;
  Write(dir / "a", "1\n2\n3");
  int seen = 0;
  const Status status = ForEachLine(dir / "a", [&](std::string_view, double) {
    return ++seen == 2 ? Status(Code::kCancelled, "enough") : Status::Ok();
  });
  EXPECT_EQ(status.code(), Code::kCancelled);
  EXPECT_EQ(status.message(), "enough");
  EXPECT_EQ(seen, 2);
}

}  // namespace
}  // namespace freshet
