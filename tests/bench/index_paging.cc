#include <sys/mman.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include "freshet/core/strings.h"
#include "index_parts.h"

namespace freshet::bench {
namespace {

struct Mapping {
  void* begin = nullptr;
  std::size_t bytes = 0;
};

// What is mapped from files of a directory that have no name.
std::vector<Mapping> MappedFrom(const std::string& directory) {
  std::vector<Mapping> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(directory) == std::string::npos || !line.ends_with("(deleted)")) continue;
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR, &begin, &end) != 2) continue;
    found.push_back({reinterpret_cast<void*>(begin), end - begin});
  }
  return found;
}

}  // namespace

Status MeasurePaging(const Index& index, const test::VectorSet& queries, const std::string& directory,
                     const IndexPartOptions& options, Report* report) {
  const std::vector<Mapping> mappings = MappedFrom(directory);
  if (mappings.empty()) return Internal(StrCat("nothing is mapped from ", directory));
  const auto drop = [&] {
    for (const Mapping& mapping : mappings) {
      // Addresses beyond the end of the file are in the mapping too: what can be, is.
      (void)::msync(mapping.begin, mapping.bytes, MS_SYNC);
      (void)::madvise(mapping.begin, mapping.bytes, MADV_PAGEOUT);
    }
  };
  for (const std::size_t k : options.ks) {
    SearchOptions search;
    search.k = k;
    for (const bool dropped : {false, true}) {
      // All rows in memory first: an exact search reads them.
      SearchOptions all = search;
      all.exact = true;
      FRESHET_TRY(index.Search({queries.Row(0), static_cast<std::size_t>(queries.dim)}, all).status());
      std::vector<double> each_us;
      for (std::size_t i = 0; i < std::min<std::size_t>(queries.size, 200); ++i) {
        if (dropped) drop();
        const double begin = Seconds();
        FRESHET_TRY(index.Search({queries.Row(i), static_cast<std::size_t>(queries.dim)}, search).status());
        each_us.push_back((Seconds() - begin) * 1e6);
      }
      const double resident_file = ResidentMb("RssFile");
      std::sort(each_us.begin(), each_us.end());
      report->rows.push_back(
          {"freshet hnsw",
           false,
           {{"data", options.set}, {"part", dropped ? "rows dropped" : "rows in memory"}, {"k", StrCat(k)}},
           {{"p50_us", each_us[each_us.size() / 2]},
            {"p99_us", each_us[each_us.size() * 99 / 100]},
            {"resident_file_mb", resident_file}}});
    }
  }
  return Status::Ok();
}

}  // namespace freshet::bench
