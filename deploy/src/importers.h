// Public data sets as files of events (event_file.h): what `freshet import` runs.
//
// Place in the flow: private to deploy; the files feed training and replay. An importer reads its source as it was
// published, drops what is no positive (and says how many of what), and leaves items.jsonl, interactions.jsonl and,
// where there are any, users.jsonl in time order. Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"

namespace freshet {

struct ImportReport {
  std::size_t items = 0;  // events, that is lines
  std::size_t interactions = 0;
  std::size_t users = 0;
  std::map<std::string, std::size_t> dropped;                    // reason -> rows
  std::map<std::string, std::map<std::string, std::size_t>> of;  // reason -> what exactly -> rows
};

// fraction 0..1
using ImportProgress = std::function<void(double fraction, const std::string& label)>;

// Errors of all: kNotFound for a missing source; kInvalidArgument, file:line, for one that has another form; kIoError.
[[nodiscard]] Result<ImportReport> ImportOnlineRetail(const std::string& source, const std::string& out,
                                                      const ImportProgress& progress);
[[nodiscard]] Result<ImportReport> ImportMovieLens100k(const std::string& source, const std::string& out,
                                                       const ImportProgress& progress);
[[nodiscard]] Result<ImportReport> ImportMovieLens1m(const std::string& source, const std::string& out,
                                                     const ImportProgress& progress);
[[nodiscard]] Result<ImportReport> ImportAmazonBeauty(const std::string& source, const std::string& out,
                                                      const ImportProgress& progress);

// One RFC 4180 record from consecutive lines: Add() returns the fields once a record is complete, nothing while a
// quoted field goes on in the next line. Errors: kInvalidArgument for stray quotes and records above 1 MiB.
class CsvRecords {
 public:
  [[nodiscard]] Result<std::optional<std::vector<std::string>>> Add(std::string_view line);
  [[nodiscard]] bool incomplete() const { return in_quotes_; }

 private:
  std::vector<std::string> fields_;
  bool in_quotes_ = false;
  std::size_t bytes_ = 0;
};

// The text of ISO 8859-1 bytes.
[[nodiscard]] std::string Latin1ToUtf8(std::string_view bytes);

// A stock code of the shop that names a product, and not postage, fees, vouchers or corrections.
[[nodiscard]] bool IsProductCode(std::string_view code);

}  // namespace freshet
