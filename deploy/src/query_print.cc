#include "query_print.h"

#include <algorithm>
#include <cstdio>

#include "freshet/core/clock.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

// Ids and titles come from outside: no control bytes on a terminal.
std::string Printable(std::string_view text) {
  std::string out(text);
  std::replace_if(
      out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return out;
}

// Code points, near enough to columns for ids.
std::size_t Width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// New, risen or fallen; ' ': where it was.
char MarkOf(const std::string& id, int place, const std::vector<std::string>& before) {
  const auto at = std::find(before.begin(), before.end(), id);
  if (at == before.end()) return '+';
  const auto old_place = at - before.begin();
  return old_place > place ? '^' : old_place < place ? 'v' : ' ';
}

}  // namespace

std::string Member(const JsonValue& object, std::string_view key) {
  const JsonValue* value = JsonFind(object, key);
  return value != nullptr && value->IsString() ? Printable(JsonText(*value)) : std::string();
}

std::vector<std::string> IdsOf(const JsonValue& results) {
  std::vector<std::string> ids;
  for (const JsonValue& hit : results.GetArray()) ids.push_back(Member(hit, "id"));
  return ids;
}

void PrintTable(const JsonValue& results, bool with_attributes, const std::vector<std::string>* before) {
  std::size_t id_width = 2;
  for (const JsonValue& hit : results.GetArray()) id_width = std::max(id_width, Width(Member(hit, "id")));
  const std::vector<std::string> ids = IdsOf(results);
  std::printf("rank    score  id%s  title\n", std::string(id_width - 2, ' ').c_str());
  int rank = 0;
  for (const JsonValue& hit : results.GetArray()) {
    const JsonValue* score = JsonFind(hit, "score");
    const JsonValue* attributes = JsonFind(hit, "attributes");
    const std::string id = Member(hit, "id");
    std::string text = attributes != nullptr ? Member(*attributes, "title") : "";
    if (with_attributes && attributes != nullptr) text += StrCat(text.empty() ? "" : "  ", ToJson(*attributes));
    const char mark = before == nullptr ? ' ' : MarkOf(id, rank, *before);
    std::printf("%4d %c%7.4f  %s%s  %s\n", ++rank, mark,
                score != nullptr && score->IsNumber() ? score->GetDouble() : 0.0, id.c_str(),
                std::string(id_width - Width(id), ' ').c_str(), text.c_str());
  }
  if (before == nullptr) return;
  std::string gone;
  for (const std::string& id : *before) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) gone += StrCat(gone.empty() ? "" : ", ", id);
  }
  if (!gone.empty()) std::printf("gone: %s\n", gone.c_str());
}

// "12 answers in 0.8 ms, as of 2011-05-31T17:39:00.123Z (35 ms ago), index version 4711, model demo-1"
void PrintFreshness(const JsonValue& answer, std::size_t count) {
  const JsonValue* took_ms = JsonFind(answer, "took_ms");
  const JsonValue* version = JsonFind(answer, "index_version");
  const JsonValue* as_of_ms = JsonFind(answer, "as_of_ms");
  std::string as_of = "freshness not known yet";
  if (as_of_ms != nullptr && as_of_ms->IsInt64()) {
    as_of = StrCat("as of ", Member(answer, "as_of"), " (",
                   std::max<std::int64_t>(0, SystemClock().WallMs() - as_of_ms->GetInt64()), " ms ago)");
  }
  std::fprintf(stderr, "%zu item%s in %.2f ms, %s, index version %llu, model %s\n", count, count == 1 ? "" : "s",
               took_ms != nullptr && took_ms->IsNumber() ? took_ms->GetDouble() : 0.0, as_of.c_str(),
               version != nullptr && version->IsUint64() ? static_cast<unsigned long long>(version->GetUint64()) : 0,
               Member(answer, "model_version").c_str());
  if (const std::string degraded = Member(answer, "degraded"); !degraded.empty()) {
    std::fprintf(stderr, "degraded: %s\n", degraded.c_str());
  }
  if (const JsonValue* explain = JsonFind(answer, "explain")) {
    std::fprintf(stderr, "explain: %s\n", ToJson(*explain).c_str());
  }
}

}  // namespace freshet
