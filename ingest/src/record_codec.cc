#include "freshet/ingest/record_codec.h"

#include <algorithm>
#include <cmath>

#include "freshet/core/checksum.h"
#include "freshet/core/json.h"

namespace freshet {
namespace {

// Persisted; never renumber.
enum class FeatureType : std::uint8_t { kNumber = 1, kText = 2, kTexts = 3 };
enum class AttributeType : std::uint8_t {
  kBool = 1,
  kInteger = 2,
  kNumber = 3,
  kText = 4,
  kTexts = 5,
  kBools = 6,
  kIntegers = 7,
  kNumbers = 8
};

// A count, and what `put` writes of each entry.
template <typename List, typename Put>
void PutList(const List& list, ByteWriter* out, const Put& put) {
  out->Put(static_cast<std::uint32_t>(list.size()));
  for (const auto& entry : list) put(entry);
}

void PutTexts(const std::vector<std::string>& texts, ByteWriter* out) {
  PutList(texts, out, [out](const std::string& text) { out->PutString(text); });
}

// Each entry takes at least `bytes`: a count beyond that is a lie, and must not reserve memory.
template <typename T, typename Get>
std::vector<T> GetList(ByteReader* in, std::size_t bytes, const Get& get) {
  const auto count = in->Get<std::uint32_t>();
  std::vector<T> list;
  if (count > in->remaining() / bytes) {
    in->Fail();
    return list;
  }
  list.reserve(count);
  for (std::uint32_t i = 0; i < count && in->ok(); ++i) list.push_back(get(in));
  return list;
}

std::vector<std::string> GetTexts(ByteReader* in) {
  return GetList<std::string>(in, sizeof(std::uint32_t), [](ByteReader* one) { return std::string(one->GetString()); });
}

double GetFinite(ByteReader* in) {
  const auto value = in->Get<double>();
  if (!std::isfinite(value)) in->Fail();
  return value;
}

bool GetBool(ByteReader* in) {
  const auto value = in->Get<std::uint8_t>();
  if (value > 1) in->Fail();
  return value == 1;
}

FeatureValue GetFeatureValue(ByteReader* in) {
  switch (static_cast<FeatureType>(in->Get<std::uint8_t>())) {
    case FeatureType::kNumber:
      return GetFinite(in);
    case FeatureType::kText:
      return std::string(in->GetString());
    case FeatureType::kTexts:
      return GetTexts(in);
  }
  in->Fail();
  return {};
}

AttributeValue GetAttributeValue(ByteReader* in) {
  switch (static_cast<AttributeType>(in->Get<std::uint8_t>())) {
    case AttributeType::kBool:
      return GetBool(in);
    case AttributeType::kInteger:
      return in->Get<std::int64_t>();
    case AttributeType::kNumber:
      return GetFinite(in);
    case AttributeType::kText:
      return std::string(in->GetString());
    case AttributeType::kTexts:
      return GetTexts(in);
    case AttributeType::kBools:
      return GetList<bool>(in, 1, GetBool);
    case AttributeType::kIntegers:
      return GetList<std::int64_t>(in, 8, [](ByteReader* one) { return one->Get<std::int64_t>(); });
    case AttributeType::kNumbers:
      return GetList<double>(in, 8, GetFinite);
  }
  in->Fail();
  return {};
}

// Names must ascend strictly: what is looked up by binary search has to be sorted.
template <typename Entries, typename GetValue>
Entries GetEntries(ByteReader* in, GetValue get_value) {
  const auto count = in->Get<std::uint32_t>();
  Entries entries;
  for (std::uint32_t i = 0; i < count && in->ok(); ++i) {
    std::string name(in->GetString());
    if (!entries.empty() && name <= entries.back().first) in->Fail();
    auto value = get_value(in);
    if (in->ok()) entries.emplace_back(std::move(name), std::move(value));
  }
  return in->ok() ? std::move(entries) : Entries{};
}

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;  // clang 14, which builds the fuzzers, does not see it by itself

void WriteTexts(const std::vector<std::string>& texts, JsonWriter* json) {
  json->BeginArray();
  for (const std::string& text : texts) json->String(text);
  json->EndArray();
}

}  // namespace

void PutFeatures(const Features& features, ByteWriter* out) {
  out->Put(static_cast<std::uint32_t>(features.size()));
  for (const auto& [name, value] : features) {
    out->PutString(name);
    const auto type = [out](FeatureType t) { out->Put(static_cast<std::uint8_t>(t)); };
    std::visit(Overloaded{[&](double v) { type(FeatureType::kNumber), out->Put(v); },
                          [&](const std::string& v) { type(FeatureType::kText), out->PutString(v); },
                          [&](const std::vector<std::string>& v) { type(FeatureType::kTexts), PutTexts(v, out); }},
               value);
  }
}

Features GetFeatures(ByteReader* in) { return GetEntries<Features>(in, GetFeatureValue); }

void PutAttributes(const Attributes& attributes, ByteWriter* out) {
  out->Put(static_cast<std::uint32_t>(attributes.size()));
  for (const auto& [name, value] : attributes) {
    out->PutString(name);
    const auto type = [out](AttributeType t) { out->Put(static_cast<std::uint8_t>(t)); };
    std::visit(Overloaded{[&](bool v) { type(AttributeType::kBool), out->Put(static_cast<std::uint8_t>(v ? 1 : 0)); },
                          [&](std::int64_t v) { type(AttributeType::kInteger), out->Put(v); },
                          [&](double v) { type(AttributeType::kNumber), out->Put(v); },
                          [&](const std::string& v) { type(AttributeType::kText), out->PutString(v); },
                          [&](const std::vector<std::string>& v) { type(AttributeType::kTexts), PutTexts(v, out); },
                          [&](const std::vector<bool>& v) {
                            type(AttributeType::kBools);
                            PutList(v, out, [out](bool one) { out->Put(static_cast<std::uint8_t>(one ? 1 : 0)); });
                          },
                          [&](const std::vector<std::int64_t>& v) {
                            type(AttributeType::kIntegers);
                            PutList(v, out, [out](std::int64_t one) { out->Put(one); });
                          },
                          [&](const std::vector<double>& v) {
                            type(AttributeType::kNumbers);
                            PutList(v, out, [out](double one) { out->Put(one); });
                          }},
               value);
  }
}

Attributes GetAttributes(ByteReader* in) { return GetEntries<Attributes>(in, GetAttributeValue); }

std::uint64_t HashOf(const Features& features) {
  ByteWriter out;
  PutFeatures(features, &out);
  return std::max<std::uint64_t>(1, Xxh3(out.bytes()));
}

std::uint64_t HashOf(const Attributes& attributes) {
  ByteWriter out;
  PutAttributes(attributes, &out);
  return std::max<std::uint64_t>(1, Xxh3(out.bytes()));
}

std::string FeaturesToJson(const Features& features) {
  JsonWriter json;
  json.BeginObject();
  for (const auto& [name, value] : features) {
    json.Key(name);
    std::visit(Overloaded{[&](double v) { json.Double(v); }, [&](const std::string& v) { json.String(v); },
                          [&](const std::vector<std::string>& v) { WriteTexts(v, &json); }},
               value);
  }
  return json.EndObject().Take();
}

std::string AttributesToJson(const Attributes& attributes) {
  JsonWriter json;
  const auto list = [&json](const auto& entries, const auto& write) {
    json.BeginArray();
    for (const auto& entry : entries) write(entry);
    json.EndArray();
  };
  json.BeginObject();
  for (const auto& [name, value] : attributes) {
    json.Key(name);
    std::visit(
        Overloaded{[&](bool v) { json.Bool(v); }, [&](std::int64_t v) { json.Int(v); },
                   [&](double v) { json.Double(v); }, [&](const std::string& v) { json.String(v); },
                   [&](const std::vector<std::string>& v) { WriteTexts(v, &json); },
                   [&](const std::vector<bool>& v) { list(v, [&](bool one) { json.Bool(one); }); },
                   [&](const std::vector<std::int64_t>& v) { list(v, [&](std::int64_t one) { json.Int(one); }); },
                   [&](const std::vector<double>& v) { list(v, [&](double one) { json.Double(one); }); }},
        value);
  }
  json.EndObject();
  return json.Take();
}

}  // namespace freshet
