// The one place that names libcurl.
#include "freshet/ingest/schema_registry.h"

#include <curl/curl.h>

#include <algorithm>
#include <initializer_list>
#include <mutex>
#include <set>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxAnswerBytes = std::size_t{4} << 20;
constexpr std::size_t kMaxReferences = 64;

// Why a registry itself answers 404. A gateway before it answers 404 as well: while it has no route, for everything.
constexpr int kSubjectNotFound = 40401;
constexpr int kVersionNotFound = 40402;
constexpr int kSchemaNotFound = 40403;

struct Answer {
  std::string body;
  bool too_large = false;
};

std::size_t Receive(char* data, std::size_t size, std::size_t count, void* to) {
  auto* answer = static_cast<Answer*>(to);
  const std::size_t bytes = size * count;
  if (answer->body.size() + bytes > kMaxAnswerBytes) {
    answer->too_large = true;
    return 0;  // ends the transfer
  }
  answer->body.append(data, bytes);
  return bytes;
}

// The error_code of a registry's answer; 0: it is none.
int ErrorCodeOf(const std::string& body) {
  const auto parsed = ParseJson(body);
  const JsonValue* code = parsed.ok() && (*parsed)->IsObject() ? JsonFind(**parsed, "error_code") : nullptr;
  return code != nullptr && code->IsInt() ? code->GetInt() : 0;
}

Status TransferError(CURLcode code) {
  const std::string message = StrCat("the schema registry: ", curl_easy_strerror(code));
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return DeadlineExceeded(message);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return FailedPrecondition(message);
    default:
      return Unavailable(message);
  }
}

class CurlRegistry final : public SchemaRegistry {
 public:
  CurlRegistry(RegistryOptions options, CURL* curl) : options_(std::move(options)), curl_(curl) {
    while (!options_.url.empty() && options_.url.back() == '/') options_.url.pop_back();
  }
  ~CurlRegistry() override { curl_easy_cleanup(curl_); }

  Result<RegisteredSchema> Fetch(std::uint32_t id) override {
    const std::lock_guard lock(mu_);
    RegisteredSchema schema;
    std::set<std::string> seen;
    FRESHET_ASSIGN(const auto answer, Get(StrCat("/schemas/ids/", id), {kSchemaNotFound}));
    if (const JsonValue* type = JsonFind(*answer, "schemaType"); type != nullptr && type->IsString()) {
      const std::string_view name = JsonText(*type);
      if (name == "JSON") {
        schema.type = RegisteredSchema::Type::kJson;
      } else if (name == "PROTOBUF") {
        schema.type = RegisteredSchema::Type::kProtobuf;
      } else if (name != "AVRO") {
        return NotFound(StrCat("schema ", id, " is of a type that is not read: neither AVRO, JSON nor PROTOBUF"));
      }
    }
    FRESHET_TRY(Collect(*answer, StrCat("schema-", id), &seen, &schema));
    return schema;
  }

 private:
  // Depth first, so that each text comes after those that it needs.
  Status Collect(const JsonValue& answer, const std::string& name, std::set<std::string>* seen,
                 RegisteredSchema* schema) {
    const JsonValue* text = JsonFind(answer, "schema");
    if (text == nullptr || !text->IsString()) return Unavailable("the schema registry's answer holds no schema");
    if (const JsonValue* references = JsonFind(answer, "references"); references != nullptr && references->IsArray()) {
      for (const JsonValue& reference : references->GetArray()) {
        const JsonValue* to = JsonFind(reference, "name");
        const JsonValue* subject = JsonFind(reference, "subject");
        const JsonValue* version = JsonFind(reference, "version");
        if (to == nullptr || !to->IsString() || subject == nullptr || !subject->IsString() || version == nullptr ||
            !version->IsInt()) {
          return Unavailable("the schema registry's answer holds a reference without name, subject and version");
        }
        if (!seen->insert(std::string(JsonText(*to))).second) continue;
        if (seen->size() > kMaxReferences) return NotFound(StrCat("more than ", kMaxReferences, " references"));
        FRESHET_ASSIGN(const auto referred,
                       Get(StrCat("/subjects/", Escaped(JsonText(*subject)), "/versions/", version->GetInt()),
                           {kSubjectNotFound, kVersionNotFound}));
        FRESHET_TRY(Collect(*referred, std::string(JsonText(*to)), seen, schema));
      }
    }
    schema->texts.emplace_back(name, JsonText(*text));
    return Status::Ok();
  }

  std::string Escaped(std::string_view text) {
    char* escaped = curl_easy_escape(curl_, text.data(), static_cast<int>(text.size()));
    std::string out = escaped == nullptr ? "" : escaped;
    curl_free(escaped);
    return out;
  }

  // `unknown`: the error codes by which a registry says that it does not know what was asked for.
  Result<std::unique_ptr<JsonDocument>> Get(const std::string& path, std::initializer_list<int> unknown) {
    Answer answer;
    curl_easy_reset(curl_);
    curl_easy_setopt(curl_, CURLOPT_URL, (options_.url + path).c_str());
    curl_easy_setopt(curl_, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl_, CURLOPT_TIMEOUT_MS, static_cast<long>(options_.timeout_ms));
    curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, &Receive);
    curl_easy_setopt(curl_, CURLOPT_WRITEDATA, &answer);
    if (!options_.ca_file.empty()) curl_easy_setopt(curl_, CURLOPT_CAINFO, options_.ca_file.c_str());
    if (!options_.username.empty()) {
      curl_easy_setopt(curl_, CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
      curl_easy_setopt(curl_, CURLOPT_USERNAME, options_.username.c_str());
      curl_easy_setopt(curl_, CURLOPT_PASSWORD, options_.password.c_str());
    }
    const CURLcode code = curl_easy_perform(curl_);
    long status = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    if (answer.too_large && status == 200) {
      return NotFound(StrCat("the schema has more than ", kMaxAnswerBytes, " bytes"));
    }
    if (code != CURLE_OK && !answer.too_large) return TransferError(code);
    if (status == 404) {
      if (std::find(unknown.begin(), unknown.end(), ErrorCodeOf(answer.body)) != unknown.end()) {
        return NotFound("the schema registry does not know it");
      }
      return Unavailable(
          "schema_registry.url answers 404, but not as a registry that does not know a schema: is it the registry, and "
          "is its path right?");
    }
    if (status == 408 || status == 429 || status >= 500) {
      return Unavailable(StrCat("the schema registry answers ", status));
    }
    if (status != 200) return FailedPrecondition(StrCat("the schema registry refuses: it answers ", status));
    auto parsed = ParseJson(answer.body);
    if (!parsed.ok()) return Unavailable("the schema registry's answer is no JSON");
    return std::move(*parsed);
  }

  RegistryOptions options_;
  std::mutex mu_;
  CURL* const curl_;  // guarded by mu_; keeps its connection
};

}  // namespace

Status RegistryOptions::Validate() const {
  if (url.rfind("http://", 0) != 0 && url.rfind("https://", 0) != 0) {
    return ConfigError("schema_registry.url must begin with http:// or https://");
  }
  if (url.find('@') != std::string::npos) {
    return ConfigError("schema_registry.url must not hold credentials; use schema_registry.username and password");
  }
  if (timeout_ms < 1 || timeout_ms > 60'000) {
    return ConfigError("schema_registry.timeout_ms must be between 1 and 60000");
  }
  return Status::Ok();
}

Result<std::unique_ptr<SchemaRegistry>> OpenSchemaRegistry(const RegistryOptions& options) {
  FRESHET_TRY(options.Validate());
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  CURL* curl = global == CURLE_OK ? curl_easy_init() : nullptr;
  if (curl == nullptr) return Internal("libcurl cannot be initialised");
  return std::unique_ptr<SchemaRegistry>(std::make_unique<CurlRegistry>(options, curl));
}

}  // namespace freshet
