#include "freshet/store/manifest.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <functional>
#include <set>
#include <tuple>

#include "freshet/core/checksum.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::string_view kHead = R"({"checksum":")";
constexpr std::string_view kMiddle = R"(","manifest":)";
constexpr std::string_view kTail = "}\n";
constexpr std::size_t kHexDigits = 32;
constexpr std::size_t kMaxFiles = 1'000'000;

std::string HashOf(std::string_view bytes) {
  Xxh3Stream stream;
  stream.Update(bytes);
  return stream.Hex();
}

bool IsHex(std::string_view text) {
  return text.size() == kHexDigits &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// "index", "store/x", "model/x": no way out of the snapshot's directory.
bool IsValidName(std::string_view name) {
  const std::size_t slash = name.find('/');
  const std::string_view folder = name.substr(0, slash == std::string_view::npos ? 0 : slash);
  const std::string_view file = slash == std::string_view::npos ? name : name.substr(slash + 1);
  if (folder.empty() ? file != "index" : folder != "store" && folder != "model") return false;
  return !file.empty() && file.size() <= 255 && file != "." && file != ".." &&
         std::all_of(file.begin(), file.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
                  c == '-';
         });
}

// Reads members of an object; the first that is missing or of another type fails the whole.
class Fields {
 public:
  explicit Fields(const JsonValue& object) : object_(object) {
    if (!object.IsObject()) Fail("an object");
  }
  std::string Text(const char* key) {
    const JsonValue* value = Find(key);
    if (value == nullptr || !value->IsString()) return Fail(key), std::string();
    return std::string(JsonText(*value));
  }
  std::uint64_t Uint(const char* key) {
    const JsonValue* value = Find(key);
    if (value == nullptr || !value->IsUint64()) return Fail(key), 0;
    return value->GetUint64();
  }
  std::int64_t Int(const char* key) {
    const JsonValue* value = Find(key);
    if (value == nullptr || !value->IsInt64()) return Fail(key), 0;
    return value->GetInt64();
  }
  void Each(const char* key, const std::function<void(Fields*)>& entry) {
    const JsonValue* value = Find(key);
    if (value == nullptr || !value->IsArray() || value->Size() > kMaxFiles) {
      Fail(key);
      return;
    }
    for (const JsonValue& one : value->GetArray()) {
      Fields fields(one);
      entry(&fields);
      if (!fields.wrong_.empty()) Fail(StrCat(key, ": ", fields.wrong_));
    }
  }
  void Fail(const std::string& what) {
    if (wrong_.empty()) wrong_ = what;
  }
  [[nodiscard]] const std::string& wrong() const { return wrong_; }

 private:
  const JsonValue* Find(const char* key) { return object_.IsObject() ? JsonFind(object_, key) : nullptr; }
  const JsonValue& object_;
  std::string wrong_;
};

void WriteOffsets(const char* key, const std::vector<PartitionProgress>& offsets, JsonWriter* out) {
  out->Key(key).BeginArray();
  for (const PartitionProgress& row : offsets) {
    out->BeginObject().Key("topic").String(row.partition.topic).Key("partition").Int(row.partition.partition);
    out->Key("next_offset").Int(row.next_offset).Key("timestamp_ms").Int(row.last_timestamp_ms);
    out->Key("fingerprint").Uint(row.fingerprint).EndObject();
  }
  out->EndArray();
}

std::vector<PartitionProgress> ReadOffsets(const char* key, Fields* in) {
  std::vector<PartitionProgress> offsets;
  in->Each(key, [&](Fields* entry) {
    PartitionProgress row;
    row.partition.topic = entry->Text("topic");
    const std::int64_t partition = entry->Int("partition");
    if (partition < 0 || partition > 0x7fffffff) entry->Fail("partition");
    row.partition.partition = static_cast<std::int32_t>(partition);
    row.next_offset = entry->Int("next_offset");
    if (row.next_offset < 0) entry->Fail("next_offset");
    row.last_timestamp_ms = entry->Int("timestamp_ms");
    row.fingerprint = entry->Uint("fingerprint");
    offsets.push_back(std::move(row));
  });
  return offsets;
}

}  // namespace

const SnapshotFile* SnapshotManifest::Find(std::string_view name) const {
  const auto it = std::find_if(files.begin(), files.end(), [&](const SnapshotFile& file) { return file.name == name; });
  return it == files.end() ? nullptr : &*it;
}

std::uint64_t SnapshotManifest::bytes() const {
  std::uint64_t total = 0;
  for (const SnapshotFile& file : files) total += file.bytes;
  return total;
}

bool IsNewer(const SnapshotManifest& a, const SnapshotManifest& b) {
  return std::tie(a.epoch, a.sequence, a.created_ms, a.id) > std::tie(b.epoch, b.sequence, b.created_ms, b.id);
}

bool IsValidSnapshotId(std::string_view id) {
  return !id.empty() && id.size() <= 64 && id.front() != '-' && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-';
  });
}

std::string MakeSnapshotId(std::int64_t created_ms, std::uint64_t sequence) {
  const std::time_t seconds = created_ms / 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y%m%dt%H%M%S", &utc);
  return StrCat(text.data(), "-", sequence);
}

std::string ManifestToJson(const SnapshotManifest& manifest) {
  JsonWriter out;
  out.BeginObject().Key("format").Int(manifest.format).Key("id").String(manifest.id);
  out.Key("previous").String(manifest.previous).Key("host").String(manifest.host);
  out.Key("version").String(manifest.version).Key("created_ms").Int(manifest.created_ms);
  out.Key("epoch").Uint(manifest.epoch).Key("sequence").Uint(manifest.sequence).Key("as_of_ms").Int(manifest.as_of_ms);
  out.Key("space_id").String(manifest.space_id).Key("dim").Int(manifest.dim).Key("metric").String(manifest.metric);
  out.Key("vectors").String(manifest.vectors).Key("items").Uint(manifest.items).Key("users").Uint(manifest.users);
  out.Key("outbox_records").Uint(manifest.outbox_records);
  WriteOffsets("offsets", manifest.offsets, &out);
  out.Key("vectors_topic").String(manifest.vectors_topic);
  out.Key("user_events_topic").String(manifest.user_events_topic);
  WriteOffsets("changelog", manifest.changelog, &out);
  out.Key("model").String(manifest.model).Key("files").BeginArray();
  for (const SnapshotFile& file : manifest.files) {
    out.BeginObject().Key("name").String(file.name).Key("bytes").Uint(file.bytes);
    out.Key("xxh3").String(file.xxh3).EndObject();
  }
  return out.EndArray().EndObject().Take();
}

std::string EncodeManifest(const SnapshotManifest& manifest) {
  const std::string body = ManifestToJson(manifest);
  return StrCat(kHead, HashOf(body), kMiddle, body, kTail);
}

Result<SnapshotManifest> DecodeManifest(std::string_view text) {
  const std::size_t begin = kHead.size() + kHexDigits + kMiddle.size();
  if (text.size() < begin + kTail.size() || !text.starts_with(kHead) ||
      text.substr(kHead.size() + kHexDigits, kMiddle.size()) != kMiddle || !text.ends_with(kTail)) {
    return Corruption("not a whole manifest");
  }
  const std::string_view body = text.substr(begin, text.size() - begin - kTail.size());
  if (HashOf(body) != text.substr(kHead.size(), kHexDigits)) return Corruption("the manifest's checksum differs");
  const auto json = ParseJson(body);
  if (!json.ok()) return Corruption(StrCat("the manifest is not JSON: ", json.status().message()));
  Fields in(**json);
  SnapshotManifest manifest;
  manifest.format = static_cast<int>(in.Int("format"));
  if (in.wrong().empty() && manifest.format != SnapshotManifest{}.format) {
    return FailedPrecondition(
        StrCat("snapshot format ", manifest.format, ", this freshet reads ", SnapshotManifest{}.format));
  }
  manifest.id = in.Text("id");
  if (!IsValidSnapshotId(manifest.id)) in.Fail("id");
  manifest.previous = in.Text("previous");
  manifest.host = in.Text("host");
  manifest.version = in.Text("version");
  manifest.created_ms = in.Int("created_ms");
  manifest.epoch = in.Uint("epoch");
  manifest.sequence = in.Uint("sequence");
  manifest.as_of_ms = in.Int("as_of_ms");
  manifest.space_id = in.Text("space_id");
  const std::int64_t dim = in.Int("dim");
  if (dim < 1 || dim > 4096) in.Fail("dim");
  manifest.dim = static_cast<int>(dim);
  manifest.metric = in.Text("metric");
  manifest.vectors = in.Text("vectors");
  manifest.items = in.Uint("items");
  manifest.users = in.Uint("users");
  manifest.outbox_records = in.Uint("outbox_records");
  manifest.offsets = ReadOffsets("offsets", &in);
  manifest.vectors_topic = in.Text("vectors_topic");
  manifest.user_events_topic = in.Text("user_events_topic");
  manifest.changelog = ReadOffsets("changelog", &in);
  manifest.model = in.Text("model");
  std::set<std::string> names;
  in.Each("files", [&](Fields* entry) {
    SnapshotFile file{entry->Text("name"), entry->Uint("bytes"), entry->Text("xxh3")};
    if (!IsValidName(file.name) || !names.insert(file.name).second) entry->Fail("name");
    if (!IsHex(file.xxh3)) entry->Fail("xxh3");
    manifest.files.push_back(std::move(file));
  });
  if (!names.contains("store/CURRENT")) in.Fail("files: no store/CURRENT");
  if (!in.wrong().empty()) return Corruption(StrCat("the manifest's `", in.wrong(), "` is missing or wrong"));
  return manifest;
}

}  // namespace freshet
