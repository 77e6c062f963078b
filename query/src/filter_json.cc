// The JSON of a filter: groups of conditions, strict, bounded in depth and size.
#include <algorithm>
#include <cmath>

#include "freshet/core/strings.h"
#include "freshet/query/filter_text.h"
#include "request_json.h"

namespace freshet {
namespace {

// Counts over a whole filter.
struct Budget {
  std::size_t conditions = 0;
  std::size_t values = 0;
};

Result<std::string> ReadText(const JsonValue& value, const std::string& pointer) {
  if (value.GetStringLength() > kMaxFilterTextBytes) {
    return Wrong(pointer, StrCat("must be at most ", kMaxFilterTextBytes, " bytes"));
  }
  return std::string(JsonText(value));
}

Result<FilterNumber> ReadNumber(const JsonValue& value, const std::string& pointer) {
  if (!value.IsNumber()) return Wrong(pointer, "must be a number");
  if (value.IsInt64()) return FilterNumber(static_cast<std::int64_t>(value.GetInt64()));
  return FilterNumber(value.GetDouble());
}

Result<FilterValue> ReadValue(const JsonValue& value, const std::string& pointer) {
  if (value.IsBool()) return FilterValue(value.GetBool());
  if (value.IsString()) {
    FRESHET_ASSIGN(std::string text, ReadText(value, pointer));
    return FilterValue(std::move(text));
  }
  if (!value.IsNumber()) return Wrong(pointer, "must be a string, a number, true or false");
  FRESHET_ASSIGN(const FilterNumber number, ReadNumber(value, pointer));
  return std::visit([](auto v) { return FilterValue(v); }, number);
}

Result<Condition> ReadAny(const std::string& key, const JsonValue& value, const std::string& pointer, Budget* budget) {
  if (!value.IsArray()) return Wrong(pointer, "must be an array");
  budget->values += value.Size();
  if (budget->values > kMaxFilterValues) {
    return Wrong(pointer, StrCat("a filter may hold at most ", kMaxFilterValues, " values in its `any` lists"));
  }
  std::vector<FilterValue> values;
  values.reserve(value.Size());
  for (const JsonValue& one : value.GetArray()) {
    FRESHET_ASSIGN(FilterValue read, ReadValue(one, StrCat(pointer, "/", values.size())));
    values.push_back(std::move(read));
  }
  return AnyCondition(key, values);
}

// Numbers, or timestamps; not a mixture.
Result<Condition> ReadRange(const std::string& key, const JsonValue& value, const std::string& pointer) {
  FRESHET_TRY(CheckFields(value, pointer, {"gt", "gte", "lt", "lte"}));
  if (value.MemberCount() == 0) return Wrong(pointer, "needs at least one of `gt`, `gte`, `lt` and `lte`");
  const bool times = value.MemberBegin()->value.IsString();
  RangeBounds<FilterNumber> numbers;
  RangeBounds<std::int64_t> instants;
  for (const auto& member : value.GetObject()) {
    const std::string_view name = JsonText(member.name);
    const std::string where = StrCat(pointer, "/", name);
    if (times) {
      const auto us = member.value.IsString() ? ParseTimestampUs(JsonText(member.value)) : std::nullopt;
      if (!us) return Wrong(where, "must be an RFC 3339 timestamp, as \"1995-11-22T10:00:00Z\"");
      (name == "gt" ? instants.gt : name == "gte" ? instants.gte : name == "lt" ? instants.lt : instants.lte) = *us;
    } else {
      if (!member.value.IsNumber()) return Wrong(where, "must be a number, or an RFC 3339 timestamp");
      FRESHET_ASSIGN(const FilterNumber number, ReadNumber(member.value, where));
      (name == "gt" ? numbers.gt : name == "gte" ? numbers.gte : name == "lt" ? numbers.lt : numbers.lte) = number;
    }
  }
  return times ? TimeCondition(key, instants) : NumberCondition(key, numbers);
}

Result<Condition> ReadCondition(const JsonValue& value, const std::string& pointer, Budget* budget) {
  FRESHET_TRY(CheckFields(value, pointer, {"key", "match", "any", "range", "prefix", "exists"}));
  if (++budget->conditions > kMaxFilterConditions) {
    return Wrong(pointer, StrCat("a filter may hold at most ", kMaxFilterConditions, " conditions"));
  }
  const JsonValue* key_value = JsonFind(value, "key");
  if (key_value == nullptr) return Wrong(StrCat(pointer, "/key"), "is missing: the name of an attribute");
  FRESHET_ASSIGN(const std::string key, ReadId(*key_value, StrCat(pointer, "/key")));
  if (value.MemberCount() != 2) {
    return Wrong(pointer, "needs exactly one of `match`, `any`, `range`, `prefix` and `exists`");
  }
  if (const JsonValue* match = JsonFind(value, "match")) {
    FRESHET_ASSIGN(FilterValue read, ReadValue(*match, StrCat(pointer, "/match")));
    return AnyCondition(key, {std::move(read)});
  }
  if (const JsonValue* any = JsonFind(value, "any")) return ReadAny(key, *any, StrCat(pointer, "/any"), budget);
  if (const JsonValue* range = JsonFind(value, "range")) return ReadRange(key, *range, StrCat(pointer, "/range"));
  if (const JsonValue* prefix = JsonFind(value, "prefix")) {
    if (!prefix->IsString()) return Wrong(StrCat(pointer, "/prefix"), "must be a string");
    FRESHET_ASSIGN(std::string text, ReadText(*prefix, StrCat(pointer, "/prefix")));
    return PrefixCondition(key, std::move(text));
  }
  FRESHET_ASSIGN(const bool exists, ReadBool(*JsonFind(value, "exists"), StrCat(pointer, "/exists")));
  return ExistsCondition(key, exists);
}

Result<Filter> ReadNode(const JsonValue& value, const std::string& pointer, std::size_t depth, Budget* budget);

Result<std::vector<Filter>> ReadNodes(const JsonValue& group, const char* name, const std::string& parent,
                                      std::size_t depth, Budget* budget) {
  std::vector<Filter> filters;
  const JsonValue* value = JsonFind(group, name);
  if (value == nullptr) return filters;
  const std::string pointer = StrCat(parent, "/", name);
  if (!value->IsArray()) return Wrong(pointer, "must be an array of conditions and groups");
  for (const JsonValue& one : value->GetArray()) {
    FRESHET_ASSIGN(Filter read, ReadNode(one, StrCat(pointer, "/", filters.size()), depth, budget));
    filters.push_back(std::move(read));
  }
  return filters;
}

Result<Filter> ReadNode(const JsonValue& value, const std::string& pointer, std::size_t depth, Budget* budget) {
  if (!value.IsObject()) return Wrong(pointer, "must be an object: a condition or a group");
  Filter filter;
  const auto is_member = [&](const char* name) { return JsonFind(value, name) != nullptr; };
  const bool group = is_member("must") || is_member("should") || is_member("must_not");
  if (!group && value.MemberCount() > 0) {
    if (!is_member("key")) {
      // Neither a condition nor a group: say what either could be.
      FRESHET_TRY(CheckFields(value, pointer,
                              {"must", "should", "must_not", "key", "match", "any", "range", "prefix", "exists"}));
    }
    FRESHET_ASSIGN(filter.condition, ReadCondition(value, pointer, budget));
    return filter;
  }
  if (depth == kMaxFilterDepth) {
    return Wrong(pointer, StrCat("groups may be nested ", kMaxFilterDepth, " deep at most"));
  }
  // Empty groups count too: they cost as much to read.
  if (++budget->conditions > kMaxFilterConditions) {
    return Wrong(pointer, StrCat("a filter may hold at most ", kMaxFilterConditions, " conditions"));
  }
  FRESHET_TRY(CheckFields(value, pointer, {"must", "should", "must_not"}));
  FRESHET_ASSIGN(filter.must, ReadNodes(value, "must", pointer, depth + 1, budget));
  FRESHET_ASSIGN(filter.should, ReadNodes(value, "should", pointer, depth + 1, budget));
  FRESHET_ASSIGN(filter.must_not, ReadNodes(value, "must_not", pointer, depth + 1, budget));
  return filter;
}

}  // namespace

Result<Filter> ParseFilter(const JsonValue& value, const std::string& pointer) {
  Budget budget;
  return ReadNode(value, pointer, 0, &budget);
}

}  // namespace freshet
