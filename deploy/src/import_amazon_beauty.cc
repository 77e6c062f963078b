// Amazon Beauty, 5-core, as sequential recommenders publish it (Kang and McAuley, 2018; Zhou et al., S3-Rec, 2020).
#include <algorithm>
#include <set>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "importers.h"

namespace freshet {
namespace {

// The sequences carry order and no times: step n of every user is stamped n seconds after the start of 2000.
constexpr std::int64_t kStartMs = 946'684'800'000;
constexpr std::int64_t kStepMs = 1'000;

bool IsNumber(std::string_view text) {
  return !text.empty() && text.size() <= 9 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

struct Step {
  std::int64_t time_ms = 0;
  std::string user;
  std::string item;
};

Status ReadSequences(const std::string& path, std::vector<Step>* steps) {
  std::size_t number = 0;
  return ForEachLine(path, [&](std::string_view line, double) -> Status {
    ++number;
    if (Trim(line).empty()) return Status::Ok();
    const std::vector<std::string> words = Split(Trim(line), ' ');
    if (words.size() < 2 || !std::all_of(words.begin(), words.end(), IsNumber)) {
      return InvalidArgument(StrCat(path, ":", number, ": not a sequence: user item item ..."));
    }
    for (std::size_t i = 1; i < words.size(); ++i) {
      steps->push_back({kStartMs + static_cast<std::int64_t>(i) * kStepMs, words[0], words[i]});
    }
    return Status::Ok();
  });
}

}  // namespace

Result<ImportReport> ImportAmazonBeauty(const std::string& source, const std::string& out,
                                        const ImportProgress& progress) {
  std::vector<Step> steps;
  FRESHET_TRY(ReadSequences(source + "/sequences_train.txt", &steps));
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.time_ms < b.time_ms; });
  if (progress) progress(0.4, std::to_string(steps.size()) + " steps");

  const std::string attributes_file = source + "/Beauty_item2attributes.json";
  FRESHET_ASSIGN(const std::string text, ReadFile(attributes_file));
  const auto parsed = ParseJson(text);
  if (!parsed.ok()) return parsed.status().Prefixed(attributes_file);
  const JsonValue& attributes = **parsed;
  if (!attributes.IsObject()) return InvalidArgument(attributes_file + ": not an object of item -> attributes");

  ImportReport report;
  std::set<std::pair<std::size_t, std::string>> items;  // in numerical order
  for (const auto& member : attributes.GetObject()) {
    items.emplace(member.name.GetStringLength(), std::string(JsonText(member.name)));
  }
  for (const Step& step : steps) items.emplace(step.item.size(), step.item);
  std::string lines;
  for (const auto& [width, item] : items) {
    JsonWriter json;
    json.BeginObject().Key("item_id").String(item).Key("tags").BeginArray();
    if (const JsonValue* of = JsonFind(attributes, item); of != nullptr) {
      if (!of->IsArray())
        return InvalidArgument(StrCat(attributes_file, ": the attributes of `", item, "` are no list"));
      for (const JsonValue& one : of->GetArray()) {
        if (!one.IsInt64()) return InvalidArgument(StrCat(attributes_file, ": `", item, "` has one that is no number"));
        json.String(StrCat("a", one.GetInt64()));
      }
    }
    json.EndArray().Key("timestamp").Int(kStartMs).EndObject();
    lines += json.Take() + "\n";
    ++report.items;
  }
  FRESHET_TRY(CreateDirectories(out));
  FRESHET_TRY(WriteFileAtomically(out + "/items.jsonl", lines));
  lines.clear();
  for (const Step& step : steps) {
    JsonWriter json;
    json.BeginObject().Key("user_id").String(step.user).Key("item_id").String(step.item);
    json.Key("event").String("review").Key("timestamp").Int(step.time_ms).EndObject();
    lines += json.Take() + "\n";
    ++report.interactions;
  }
  FRESHET_TRY(WriteFileAtomically(out + "/interactions.jsonl", lines));
  FRESHET_TRY(WriteFileAtomically(out + "/users.jsonl", ""));
  if (progress) progress(1, std::to_string(report.interactions) + " reviews");
  return report;
}

}  // namespace freshet
