#include "answer.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "bench.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index_builder.h"
#include "freshet/indexer/vector_file.h"

namespace freshet::bench {
namespace {

struct Round {
  SearchOptions options;
  std::size_t threads = 1;
  std::size_t batch = 1;
  std::string file;
};

Result<std::vector<std::vector<Hit>>> AnswerAll(const Index& index, std::span<const float> queries,
                                                const Round& round) {
  const auto width = static_cast<std::size_t>(index.dim());
  const std::size_t count = queries.size() / width;
  std::vector<std::vector<Hit>> answers(count);
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    for (std::size_t i = next.fetch_add(round.batch); i < count; i = next.fetch_add(round.batch)) {
      const std::size_t size = std::min(round.batch, count - i);
      if (round.batch == 1) {
        auto hits = index.Search(queries.subspan(i * width, width), round.options);
        if (hits.ok()) answers[i] = std::move(*hits);
        if (!hits.ok()) failed = true;
      } else {
        auto hits = index.SearchMany(queries.subspan(i * width, size * width), round.options);
        if (hits.ok()) std::move(hits->begin(), hits->end(), answers.begin() + static_cast<std::ptrdiff_t>(i));
        if (!hits.ok()) failed = true;
      }
    }
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < round.threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  if (failed) return Internal("a search failed");
  return answers;
}

void WriteLabels(const std::vector<std::vector<Hit>>& answers, std::size_t k, const std::string& path) {
  std::vector<std::uint32_t> labels;
  for (const std::vector<Hit>& hits : answers) {
    for (std::size_t i = 0; i < k; ++i) {
      labels.push_back(i < hits.size() ? static_cast<std::uint32_t>(hits[i].label) : ~std::uint32_t{0});
    }
  }
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(labels.data()),
             static_cast<std::streamsize>(labels.size() * sizeof(std::uint32_t)));
}

}  // namespace

Status RunAnswer(const std::string& index_path, const std::string& queries_path) {
  FRESHET_ASSIGN(const std::unique_ptr<Index> index, OpenIndexFile(index_path, OpenAs::kMemory));
  FRESHET_ASSIGN(VectorFile file, VectorFile::Open(queries_path));
  const auto width = static_cast<std::size_t>(index->dim());
  if (file.dim() != index->dim()) return InvalidArgument(queries_path + ": another dimension than the index");
  std::vector<float> queries;
  FRESHET_TRY(file.Read(static_cast<std::size_t>(file.rows()), &queries));
  for (std::size_t i = 0; i < queries.size(); i += width) {
    FRESHET_TRY(PrepareVector(index->metric(), index->dim(), std::span(queries).subspan(i, width)));
  }
  for (std::string line; std::getline(std::cin, line);) {
    Round round;
    if (!(std::istringstream(line) >> round.options.k >> round.options.ef >> round.threads >> round.batch >>
          round.file) ||
        round.threads < 1 || round.batch < 1) {
      return InvalidArgument(StrCat("`", line, "` is not K EF THREADS BATCH FILE"));
    }
    const double begin = Seconds();
    const double cpu_begin = ProcessCpuSeconds();
    FRESHET_ASSIGN(const std::vector<std::vector<Hit>> answers, AnswerAll(*index, queries, round));
    std::printf("%.6f %.6f\n", Seconds() - begin, ProcessCpuSeconds() - cpu_begin);
    (void)std::fflush(stdout);
    if (round.file != "-") WriteLabels(answers, round.options.k, round.file);
  }
  return Status::Ok();
}

}  // namespace freshet::bench
