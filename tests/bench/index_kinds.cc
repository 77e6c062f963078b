// The other kinds: `mapped`, opened by several processes, and `flat` beside the bandwidth of memory.
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "freshet/core/strings.h"
#include "index_parts.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kProcesses = 4;
constexpr std::size_t kBatch = 64;
constexpr int kPatienceMs = 60'000;

std::span<const float> QueryOf(const test::VectorSet& queries, std::size_t i, std::size_t count = 1) {
  const auto width = static_cast<std::size_t>(queries.dim);
  return {queries.Row(i), count * width};
}

struct FileMemory {
  double resident_mb = 0;
  double shared_out_mb = 0;  // PSS: a page that n processes have counts 1/n in each
};

// Of this process's mapping of a file.
FileMemory MemoryOf(const std::string& path) {
  FileMemory memory;
  std::ifstream maps("/proc/self/smaps");
  bool of_file = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ') && line.find(':') > line.find('-')) of_file = line.ends_with(path);
    if (!of_file) continue;
    if (line.starts_with("Rss:")) memory.resident_mb += std::stod(line.substr(4)) * 1024 / 1e6;
    if (line.starts_with("Pss:")) memory.shared_out_mb += std::stod(line.substr(4)) * 1024 / 1e6;
  }
  return memory;
}

// One of the processes: opens the file, searches, waits for the others, tells what it has of the file, and waits for
// the others to look, too.
int RunProcess(const std::string& path, const test::VectorSet& queries, int go, int told) {
  const auto opened = OpenMappedIndex(path, false);
  if (!opened.ok()) return 1;
  SearchOptions search;
  search.k = 100;
  for (std::size_t i = 0; i < queries.size; ++i) {
    if (!(*opened)->Search(QueryOf(queries, i), search).ok()) return 1;
  }
  FileMemory memory;
  char turn = 0;
  if (write(told, &memory, sizeof(memory)) != sizeof(memory) || read(go, &turn, 1) != 1) return 1;
  memory = MemoryOf(path);
  return write(told, &memory, sizeof(memory)) == sizeof(memory) && read(go, &turn, 1) == 1 ? 0 : 1;
}

// What each of several processes has of the file when all have searched it.
Result<FileMemory> ShareFile(const std::string& path, const test::VectorSet& queries) {
  int go[2] = {};
  int told[2] = {};
  if (pipe(go) != 0 || pipe(told) != 0) return IoError("pipe");
  std::array<pid_t, kProcesses> children{};
  for (pid_t& child : children) {
    child = fork();
    if (child == 0) _exit(RunProcess(path, queries, go[0], told[1]));
  }
  FileMemory sum;
  bool ok = true;
  const std::string turns(kProcesses, 'x');
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < kProcesses && ok; ++i) {
      FileMemory one;
      // One that failed tells nothing.
      pollfd waiting{told[0], POLLIN, 0};
      ok = poll(&waiting, 1, kPatienceMs) == 1 && read(told[0], &one, sizeof(one)) == sizeof(one);
      sum.resident_mb += one.resident_mb / kProcesses;
      sum.shared_out_mb += one.shared_out_mb / kProcesses;
    }
    ok = write(go[1], turns.data(), turns.size()) == static_cast<ssize_t>(turns.size()) && ok;
  }
  for (const pid_t child : children) {
    int status = 0;
    if (!ok && child > 0) (void)kill(child, SIGKILL);
    ok = child > 0 && waitpid(child, &status, 0) == child && status == 0 && ok;
  }
  for (const int file : {go[0], go[1], told[0], told[1]}) (void)close(file);
  if (!ok) return Internal("a process that shares the file failed");
  return sum;
}

struct Rate {
  double per_second = 0;
  double per_cpu_second = 0;
};

Rate AskAll(const Index& index, const test::VectorSet& queries, const SearchOptions& search, std::size_t threads,
            std::size_t batch) {
  std::atomic<std::size_t> next{0};
  std::atomic<double> cpu{0};
  const auto work = [&] {
    const double begin = CpuSeconds();
    for (std::size_t i = next.fetch_add(batch); i < queries.size; i = next.fetch_add(batch)) {
      const std::size_t count = std::min(batch, queries.size - i);
      if (batch == 1) {
        (void)index.Search(QueryOf(queries, i), search);
      } else {
        (void)index.SearchMany(QueryOf(queries, i, count), search);
      }
    }
    cpu += CpuSeconds() - begin;
  };
  const double begin = Seconds();
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  const auto count = static_cast<double>(queries.size);
  return {count / (Seconds() - begin), count / cpu};
}

}  // namespace

Status MeasureBatches(const Index& index, const std::string& name, const test::VectorSet& queries,
                      const IndexPartOptions& options, Report* report) {
  for (const std::size_t k : options.ks) {
    SearchOptions search;
    search.k = k;
    search.ef = k < 50 ? 4 * k : k;
    for (const std::size_t threads : {1U, 2U}) {
      std::array<std::vector<double>, 2> rates;
      std::array<std::vector<double>, 2> cpu_rates;
      for (std::size_t round = 0; round < options.rounds; ++round) {
        for (const std::size_t batched : {0U, 1U}) {
          const Rate rate = AskAll(index, queries, search, threads, batched == 0 ? 1 : kBatch);
          rates[batched].push_back(rate.per_second);
          cpu_rates[batched].push_back(rate.per_cpu_second);
        }
      }
      for (const std::size_t batched : {0U, 1U}) {
        report->rows.push_back(
            {name,
             false,
             {{"data", options.set},
              {"part", batched == 0 ? "single" : StrCat("batch of ", kBatch)},
              {"k", StrCat(k)},
              {"ef", StrCat(search.ef)},
              {"threads", StrCat(threads)}},
             {{"queries_per_second", Median(rates[batched])}, {"queries_per_cpu_second", Median(cpu_rates[batched])}}});
      }
      report->goals.push_back({StrCat(name, ", top-", k, ", ", threads, threads == 1 ? " thread" : " threads",
                                      ": batch of ", kBatch, ", ratio to single"),
                               1.3, Median(cpu_rates[1]) / Median(cpu_rates[0])});
    }
  }
  return Status::Ok();
}

Status MeasureMapped(const std::string& path, const test::VectorSet& queries, const IndexPartOptions& options,
                     Report* report) {
  SearchOptions search;
  search.k = 100;
  std::vector<double> open_ms;
  std::vector<double> first_us;
  std::vector<double> warm_us;
  for (std::size_t round = 0; round < std::max<std::size_t>(options.rounds, 5); ++round) {
    const double begin = Seconds();
    FRESHET_ASSIGN(const auto index, OpenMappedIndex(path, false));
    const double opened = Seconds();
    const std::size_t query = round % queries.size;
    FRESHET_TRY(index->Search(QueryOf(queries, query), search).status());
    first_us.push_back((Seconds() - opened) * 1e6);
    open_ms.push_back((opened - begin) * 1e3);
    for (std::size_t i = 0; i < queries.size; ++i) FRESHET_TRY(index->Search(QueryOf(queries, i), search).status());
    const double again = Seconds();
    FRESHET_TRY(index->Search(QueryOf(queries, query), search).status());
    warm_us.push_back((Seconds() - again) * 1e6);
  }
  FRESHET_ASSIGN(const FileMemory memory, ShareFile(path, queries));
  report->rows.push_back({"freshet mapped",
                          false,
                          {{"data", options.set}, {"part", "open"}, {"k", "100"}, {"processes", StrCat(kProcesses)}},
                          {{"open_ms", Median(open_ms)},
                           {"first_us", Median(first_us)},
                           {"warm_us", Median(warm_us)},
                           {"resident_mb_each", memory.resident_mb},
                           {"pss_mb_each", memory.shared_out_mb}}});
  report->goals.push_back({"mapped: open, ms", 10, Median(open_ms), true});
  report->goals.push_back({"mapped: first query, ratio to warm", 2, Median(first_us) / Median(warm_us), true});
  FRESHET_ASSIGN(const auto index, OpenMappedIndex(path, false));
  return MeasureBatches(*index, "freshet mapped", queries, options, report);
}

Status MeasureFlat(const test::VectorSet& base, Metric metric, const test::VectorSet& queries,
                   const IndexPartOptions& options, Report* report) {
  const std::unique_ptr<Index> flat = MakeFlatIndex(base.dim, metric);
  std::vector<Label> labels(base.size);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = i;
  FRESHET_TRY(flat->Insert(labels, base.values));
  SearchOptions search;
  search.k = 10;
  std::vector<double> scan;
  std::vector<double> sum;
  std::uint32_t kept = 0;
  for (std::size_t round = 0; round < 3 * options.rounds; ++round) {
    double begin = CpuSeconds();
    FRESHET_TRY(flat->Search(QueryOf(queries, round % queries.size), search).status());
    scan.push_back(CpuSeconds() - begin);
    begin = CpuSeconds();
    // Whole numbers, which the compiler adds up many at a time.
    const auto* words = reinterpret_cast<const std::uint32_t*>(base.values.data());
    std::uint32_t total = 0;
    for (std::size_t i = 0; i < base.values.size(); ++i) total += words[i];
    kept ^= total;
    sum.push_back(CpuSeconds() - begin);
  }
  const double gigabytes = static_cast<double>(base.values.size() * sizeof(float)) / 1e9;
  report->rows.push_back({"freshet flat",
                          false,
                          {{"data", options.set}, {"part", "flat"}, {"k", "10"}, {"sum", StrCat(kept)}},
                          {{"scan_gb_per_cpu_second", gigabytes / Median(scan)},
                           {"sum_gb_per_cpu_second", gigabytes / Median(sum)},
                           {"queries_per_cpu_second", 1 / Median(scan)}}});
  report->goals.push_back({"flat, bandwidth, ratio to a plain sum", 0.7, Median(sum) / Median(scan)});
  return Status::Ok();
}

}  // namespace freshet::bench
