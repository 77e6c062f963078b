// UCI Online Retail (Chen, 2015; CC BY 4.0): the lines of a shop's invoices.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <unordered_map>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "importers.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxRecordBytes = std::size_t{1} << 20;
constexpr std::int64_t kDayMs = 86'400'000;

// "2011-03-01 08:30:00", taken as UTC: the shop's clock, which names no zone.
std::optional<std::int64_t> ParseTimeMs(std::string_view text) {
  if (text.size() != 19 || text[4] != '-' || text[7] != '-' || text[10] != ' ' || text[13] != ':' || text[16] != ':') {
    return std::nullopt;
  }
  std::int64_t part[6];
  const std::size_t at[6] = {0, 5, 8, 11, 14, 17};
  for (int i = 0; i < 6; ++i) {
    const auto number = ParseInt(text.substr(at[i], i == 0 ? 4 : 2));
    if (!number || *number < 0) return std::nullopt;
    part[i] = *number;
  }
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(part[0])),
                                         std::chrono::month(static_cast<unsigned>(part[1])),
                                         std::chrono::day(static_cast<unsigned>(part[2]))};
  if (!date.ok() || part[3] > 23 || part[4] > 59 || part[5] > 60) return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return days * kDayMs + (part[3] * 3600 + part[4] * 60 + part[5]) * 1000;
}

// Pandas wrote the customers as floats: "14620.0".
std::string CustomerId(std::string_view text) {
  text = Trim(text);
  if (text.ends_with(".0")) text.remove_suffix(2);
  return std::string(text);
}

struct Purchase {
  std::int64_t time_ms = 0;
  std::string product;
  std::string description;
  std::string customer;
  std::string country;
  double quantity = 0;
  double price = 0;
};

// Where the columns are, by the header's names.
struct Columns {
  static constexpr std::size_t kCount = 7;
  static constexpr const char* kNames[kCount] = {"StockCode", "Description", "Quantity", "InvoiceDate",
                                                 "UnitPrice", "CustomerID",  "Country"};
  std::size_t at[kCount] = {};
  std::size_t width = 0;

  Status Read(const std::vector<std::string>& header) {
    width = header.size();
    for (std::size_t i = 0; i < kCount; ++i) {
      const auto found = std::find_if(header.begin(), header.end(), [&](const std::string& h) {
        return Trim(h) == kNames[i] || (h.starts_with("\xef\xbb\xbf") && h.substr(3) == kNames[i]);
      });
      if (found == header.end()) return InvalidArgument(StrCat("no column `", kNames[i], "`: not Online Retail's CSV"));
      at[i] = static_cast<std::size_t>(found - header.begin());
    }
    return Status::Ok();
  }
  const std::string& Get(const std::vector<std::string>& row, std::size_t i) const { return row[at[i]]; }
};

class Reader {
 public:
  Reader(ImportReport* report, std::vector<Purchase>* purchases) : report_(report), purchases_(purchases) {}

  Status ReadOne(const std::string& path, const ImportProgress& progress, double from, double share) {
    CsvRecords records;
    std::optional<Columns> columns;
    std::size_t number = 0;
    const Status status = ForEachLine(path, [&](std::string_view line, double fraction) -> Status {
      ++number;
      if (progress && number % 4096 == 0)
        progress(from + share * fraction, std::to_string(purchases_->size()) + " sales");
      if (line.empty() && !records.incomplete()) return Status::Ok();
      const auto located = [&](const Status& s) { return s.Prefixed(StrCat(path, ":", number)); };
      auto row = records.Add(line);
      if (!row.ok()) return located(row.status());
      if (!*row) return Status::Ok();
      if (!columns) return located(columns.emplace().Read(**row));
      if ((*row)->size() != columns->width) {
        return located(InvalidArgument(StrCat((*row)->size(), " fields; the header has ", columns->width)));
      }
      Take(*columns, **row);
      return Status::Ok();
    });
    FRESHET_TRY(status);
    if (records.incomplete()) return InvalidArgument(StrCat(path, ": ends within a quoted field"));
    if (!columns) return InvalidArgument(StrCat(path, ": is empty"));
    return Status::Ok();
  }

 private:
  void Take(const Columns& columns, const std::vector<std::string>& row) {
    Purchase p;
    p.product = std::string(Trim(columns.Get(row, 0)));
    // The same product is written 84029G and 84029g.
    std::transform(p.product.begin(), p.product.end(), p.product.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const auto quantity = ParseDouble(Trim(columns.Get(row, 2)));
    const auto time_ms = ParseTimeMs(Trim(columns.Get(row, 3)));
    const auto price = ParseDouble(Trim(columns.Get(row, 4)));
    p.customer = CustomerId(columns.Get(row, 5));
    if (!quantity || !time_ms || !price) return Drop("unreadable number or time", "");
    if (!IsProductCode(p.product)) return Drop("stock code is no product", p.product);
    if (!IsValidId(p.customer)) return Drop("no customer", "");
    if (*quantity <= 0) return Drop("quantity is not positive (returns, corrections)", "");
    p.time_ms = *time_ms;
    p.quantity = *quantity;
    p.price = *price;
    p.description = std::string(Trim(columns.Get(row, 1)));
    if (!IsValidUtf8(p.description)) p.description = Latin1ToUtf8(p.description);
    p.country = std::string(Trim(columns.Get(row, 6)));
    purchases_->push_back(std::move(p));
  }

  void Drop(const std::string& reason, const std::string& what) {
    ++report_->dropped[reason];
    if (!what.empty()) ++report_->of[reason][what];
  }

  ImportReport* const report_;
  std::vector<Purchase>* const purchases_;
};

// Turns purchases in time order into events.
class Writer {
 public:
  void Add(const Purchase& p, ImportReport* report) {
    AddItem(p, report);
    AddUser(p, report);
    ++report->interactions;
    JsonWriter json;
    json.BeginObject().Key("user_id").String(p.customer).Key("item_id").String(p.product);
    json.Key("event").String("purchase").Key("value").Double(p.quantity).Key("timestamp").Int(p.time_ms).EndObject();
    interactions.append(json.Take()).push_back('\n');
  }

  std::string items;
  std::string interactions;
  std::string users;

 private:
  struct Emitted {
    std::string description;
    double price = 0;
    std::int64_t day = 0;
  };

  // When first seen, and when description or price changed since; once a day, for wholesale and retail prices
  // alternate.
  void AddItem(const Purchase& p, ImportReport* report) {
    const std::int64_t day = p.time_ms / kDayMs;
    const auto [it, fresh] = emitted_.try_emplace(p.product);
    Emitted& last = it->second;
    const std::string& description = p.description.empty() ? last.description : p.description;
    const double price = p.price > 0 ? p.price : last.price;
    if (!fresh && (last.day == day || (description == last.description && price == last.price))) return;
    last = {std::string(description), price, day};
    ++report->items;
    JsonWriter json;
    json.BeginObject().Key("item_id").String(p.product).Key("features").BeginObject();
    if (!last.description.empty()) json.Key("description").String(last.description);
    if (price > 0) json.Key("price").Double(price);
    json.EndObject().Key("attributes").BeginObject();
    if (!last.description.empty()) json.Key("title").String(last.description);
    if (price > 0) json.Key("price").Double(price);
    json.EndObject().Key("timestamp").Int(p.time_ms).EndObject();
    items.append(json.Take()).push_back('\n');
  }

  void AddUser(const Purchase& p, ImportReport* report) {
    if (p.country.empty() || !IsValidUtf8(p.country)) return;
    std::string& country = countries_[p.customer];
    if (country == p.country) return;
    country = p.country;
    ++report->users;
    JsonWriter json;
    json.BeginObject().Key("user_id").String(p.customer).Key("features").BeginObject();
    json.Key("country").String(country).EndObject().Key("timestamp").Int(p.time_ms).EndObject();
    users.append(json.Take()).push_back('\n');
  }

  std::unordered_map<std::string, Emitted> emitted_;
  std::unordered_map<std::string, std::string> countries_;
};

Result<std::vector<std::string>> SourceFiles(const std::string& source) {
  std::error_code error;
  if (!std::filesystem::is_directory(source, error)) return std::vector<std::string>{source};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(source, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".csv") || name.ends_with(".csv.zst")) files.push_back(entry.path().string());
  }
  if (error) return IoError(StrCat(source, ": ", error.message()));
  if (files.empty()) return NotFound(StrCat(source, ": holds no .csv or .csv.zst file"));
  std::sort(files.begin(), files.end());  // one a day, named by date
  return files;
}

}  // namespace

Result<std::optional<std::vector<std::string>>> CsvRecords::Add(std::string_view line) {
  if (in_quotes_) {
    fields_.back().push_back('\n');
  } else {
    fields_.assign(1, "");
    bytes_ = 0;
  }
  bytes_ += line.size() + 1;
  if (bytes_ > kMaxRecordBytes) return InvalidArgument("a CSV record is above 1 MiB: is a quote missing?");
  bool quoted = in_quotes_;  // the current field began with a quote
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    std::string& field = fields_.back();
    if (in_quotes_) {
      if (c != '"') {
        field.push_back(c);
      } else if (i + 1 < line.size() && line[i + 1] == '"') {
        field.push_back('"');
        ++i;
      } else {
        in_quotes_ = false;
      }
    } else if (c == ',') {
      fields_.emplace_back();
      quoted = false;
    } else if (c == '"' && field.empty() && !quoted) {
      in_quotes_ = quoted = true;
    } else if (quoted || c == '"') {
      return InvalidArgument("a quote stands where CSV does not allow one");
    } else {
      field.push_back(c);
    }
  }
  if (in_quotes_) return std::optional<std::vector<std::string>>();
  return std::optional<std::vector<std::string>>(std::move(fields_));
}

bool IsProductCode(std::string_view code) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto letter = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  return code.size() >= 5 && code.size() <= 7 && std::all_of(code.begin(), code.begin() + 5, digit) &&
         std::all_of(code.begin() + 5, code.end(), letter);
}

Result<ImportReport> ImportOnlineRetail(const std::string& source, const std::string& out,
                                        const ImportProgress& progress) {
  FRESHET_ASSIGN(const std::vector<std::string> files, SourceFiles(source));
  ImportReport report;
  std::vector<Purchase> purchases;
  Reader reader(&report, &purchases);
  const double share = 0.9 / static_cast<double>(files.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    FRESHET_TRY(reader.ReadOne(files[i], progress, share * static_cast<double>(i), share));
  }
  // Stable: the lines of an invoice stay as they were.
  std::stable_sort(purchases.begin(), purchases.end(),
                   [](const Purchase& a, const Purchase& b) { return a.time_ms < b.time_ms; });
  Writer writer;
  for (const Purchase& purchase : purchases) writer.Add(purchase, &report);
  FRESHET_TRY(CreateDirectories(out));
  FRESHET_TRY(WriteFileAtomically(out + "/items.jsonl", writer.items));
  FRESHET_TRY(WriteFileAtomically(out + "/interactions.jsonl", writer.interactions));
  FRESHET_TRY(WriteFileAtomically(out + "/users.jsonl", writer.users));
  if (progress) progress(1, std::to_string(report.interactions) + " sales");
  return report;
}

}  // namespace freshet
