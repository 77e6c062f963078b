// `freshet query`: asks a running sidecar (or an engine with query.listen) from a terminal.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/query/filter_text.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_binary.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxVectorFileBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxTokenFileBytes = 1 << 16;

struct QueryArguments {
  std::string user;
  std::vector<std::string> items;
  std::vector<std::string> unlike;
  std::string filter;
  std::vector<std::string> max_per;
  std::vector<std::string> weights;
  std::string vector_file;
  bool explain = false;
  std::string address = "127.0.0.1:8081";
  std::string token_file;
  std::size_t k = 10;
  bool exclude_seen = false;
  std::vector<std::string> exclude;
  bool with_attributes = false;
  bool exact = false;
  bool json = false;
  bool binary = false;
  int timeout_ms = 5'000;
};

Status AddWeights(const QueryArguments& arguments, JsonWriter* out) {
  if (arguments.weights.empty()) return Status::Ok();
  out->Key("weights").BeginObject();
  for (const std::string& one : arguments.weights) {
    const std::size_t equals = one.find('=');
    const std::string value = equals == std::string::npos ? "" : one.substr(equals + 1);
    out->Key(one.substr(0, equals));
    const Result<std::unique_ptr<JsonDocument>> number = ParseJson(value);
    if (one.starts_with("recency_of=")) {
      out->String(value);
    } else if (number.ok() && (*number)->IsNumber()) {
      out->Raw(value);
    } else {
      return InvalidArgument(StrCat("--weight: `", one, "` is not name=number, as popularity=0.1"));
    }
  }
  out->EndObject();
  return Status::Ok();
}

Result<std::string> RequestBody(const QueryArguments& arguments) {
  JsonWriter out;
  out.BeginObject();
  if (!arguments.user.empty()) out.Key("user").String(arguments.user);
  const auto ids = [&](const char* name, const std::vector<std::string>& list) {
    if (list.empty()) return;
    out.Key(name).BeginArray();
    for (const std::string& id : list) out.String(id);
    out.EndArray();
  };
  ids("items", arguments.items);
  ids("negative", arguments.unlike);
  if (!arguments.vector_file.empty()) {
    FRESHET_ASSIGN(const std::string text, ReadFile(arguments.vector_file, kMaxVectorFileBytes));
    const Result<std::unique_ptr<JsonDocument>> vector = ParseJson(text);
    if (!vector.ok()) return vector.status().Prefixed(arguments.vector_file);
    if (!(*vector)->IsArray()) {
      return InvalidArgument(StrCat(arguments.vector_file, ": must hold a JSON array of numbers, as [0.1, 0.2]"));
    }
    out.Key("vector").Raw(ToJson(**vector));
  }
  out.Key("k").Uint(arguments.k);
  if (arguments.exclude_seen) out.Key("exclude_seen").Bool(true);
  ids("exclude_ids", arguments.exclude);
  if (!arguments.filter.empty()) {
    const Result<std::string> filter = FilterTextToJson(arguments.filter);
    if (!filter.ok()) return filter.status().Prefixed("--filter");
    out.Key("filter").Raw(*filter);
  }
  if (!arguments.max_per.empty()) {
    out.Key("max_per").BeginObject();
    for (const std::string& one : arguments.max_per) {
      const std::size_t equals = one.rfind('=');
      const auto most = equals == std::string::npos ? std::nullopt : ParseInt(one.substr(equals + 1));
      if (!most) return InvalidArgument(StrCat("--max-per: `", one, "` is not attribute=number, as category=3"));
      out.Key(one.substr(0, equals)).Int(*most);
    }
    out.EndObject();
  }
  FRESHET_TRY(AddWeights(arguments, &out));
  if (arguments.explain) out.Key("explain").Bool(true);
  if (arguments.exact) out.Key("params").BeginObject().Key("exact").Bool(true).EndObject();
  // The table shows titles, which are attributes.
  if (arguments.with_attributes || !arguments.json) out.Key("with_attributes").Bool(true);
  return out.EndObject().Take();
}

// The binary body holds a vector and little else.
Result<std::string> BinaryBody(const QueryArguments& arguments) {
  if (arguments.vector_file.empty() || arguments.exclude_seen || arguments.explain || arguments.with_attributes ||
      !arguments.exclude.empty() || !arguments.filter.empty() || !arguments.max_per.empty() ||
      !arguments.weights.empty() || !arguments.unlike.empty()) {
    return InvalidArgument("--binary: goes with --vector-file, --k and --exact only");
  }
  FRESHET_ASSIGN(const std::string json, RequestBody(arguments));
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(json));
  std::vector<float> vector;
  for (const JsonValue& number : JsonFind(*document, "vector")->GetArray()) {
    if (!number.IsNumber()) return InvalidArgument(StrCat(arguments.vector_file, ": must hold numbers only"));
    vector.push_back(static_cast<float>(number.GetDouble()));
  }
  BinaryParams params;
  params.k = static_cast<std::uint32_t>(arguments.k);
  params.exact = arguments.exact;
  return EncodeBinaryRequest(vector, params);
}

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

std::string Member(const JsonValue& object, std::string_view key) {
  const JsonValue* value = JsonFind(object, key);
  return value != nullptr && value->IsString() ? Printable(JsonText(*value)) : std::string();
}

void PrintTable(const JsonValue& results, bool with_attributes) {
  std::size_t id_width = 2;
  for (const JsonValue& hit : results.GetArray()) id_width = std::max(id_width, Width(Member(hit, "id")));
  std::printf("rank    score  id%s  title\n", std::string(id_width - 2, ' ').c_str());
  int rank = 0;
  for (const JsonValue& hit : results.GetArray()) {
    const JsonValue* score = JsonFind(hit, "score");
    const JsonValue* attributes = JsonFind(hit, "attributes");
    const std::string id = Member(hit, "id");
    std::string text = attributes != nullptr ? Member(*attributes, "title") : "";
    if (with_attributes && attributes != nullptr) text += StrCat(text.empty() ? "" : "  ", ToJson(*attributes));
    std::printf("%4d  %7.4f  %s%s  %s\n", ++rank, score != nullptr && score->IsNumber() ? score->GetDouble() : 0.0,
                id.c_str(), std::string(id_width - Width(id), ' ').c_str(), text.c_str());
  }
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
    std::fprintf(stderr, "not personal: %s\n", degraded.c_str());
  }
  if (const JsonValue* explain = JsonFind(answer, "explain")) {
    std::fprintf(stderr, "explain: %s\n", ToJson(*explain).c_str());
  }
}

// The problem that the server told, as a status of ours, so that the exit code follows from it.
Status ProblemOf(const HttpReply& reply) {
  std::string message = StrCat("HTTP ", reply.status);
  if (const auto problem = ParseJson(reply.body); problem.ok()) {
    const std::string detail = Member(**problem, "detail");
    const std::string pointer = Member(**problem, "pointer");
    message = detail.empty() ? Member(**problem, "title") : detail;
    if (!pointer.empty()) message = StrCat(pointer, ": ", message);
  }
  switch (reply.status) {
    case 400:
      return InvalidArgument(message);
    case 401:
      return FailedPrecondition(message);
    case 404:
      return NotFound(message);
    case 429:
      return ResourceExhausted(message);
    case 503:
      return Unavailable(message);
    case 504:
      return DeadlineExceeded(message);
    default:
      return Internal(message);
  }
}

Status RunQuery(const QueryArguments& arguments) {
  FRESHET_ASSIGN(const std::string body, arguments.binary ? BinaryBody(arguments) : RequestBody(arguments));
  std::string token;
  if (!arguments.token_file.empty()) {
    FRESHET_ASSIGN(const std::string text, ReadFile(arguments.token_file, kMaxTokenFileBytes));
    token = Trim(text.substr(0, text.find('\n')));
  }
  FRESHET_ASSIGN(HttpReply reply, HttpCall(arguments.address, "POST", "/v1/recall", body, arguments.timeout_ms, token,
                                           arguments.binary ? kBinaryRecallType : "application/json"));
  if (reply.status != 200) return ProblemOf(reply);
  if (arguments.binary) {
    FRESHET_ASSIGN(const RecallResponse response, DecodeBinaryAnswer(reply.body));
    reply.body = RecallResponseToJson(response);
  }
  if (arguments.json) {
    std::printf("%s\n", reply.body.c_str());
    return Status::Ok();
  }
  const Result<std::unique_ptr<JsonDocument>> answer = ParseJson(reply.body);
  const JsonValue* results = answer.ok() ? JsonFind(**answer, "results") : nullptr;
  if (results == nullptr || !results->IsArray()) {
    return Internal(StrCat(arguments.address, " did not answer as a freshet server does"));
  }
  PrintTable(*results, arguments.with_attributes);
  std::fflush(stdout);
  PrintFreshness(**answer, results->Size());
  return Status::Ok();
}

}  // namespace

void AddQueryCommand(CLI::App* app, CommandRunner* run) {
  auto arguments = std::make_shared<QueryArguments>();
  CLI::App* command = app->add_subcommand("query", "Ask a running sidecar for the best items");
  CLI::Option_group* about = command->add_option_group("about", "What the items should fit (exactly one)");
  about->add_option("--user", arguments->user, "This user, by history and profile");
  about->add_option("--item", arguments->items, "Items like this one, or like these");
  about->add_option("--vector-file", arguments->vector_file, "The vector in this file: a JSON array of numbers");
  about->require_option(1);
  command->add_option("--address", arguments->address, "host:port of the sidecar")->capture_default_str();
  command->add_option("--token-file", arguments->token_file, "Its first line is sent as a bearer token");
  command->add_option("--k", arguments->k, "How many items")->capture_default_str()->check(CLI::Range(1, 1000));
  command->add_flag("--exclude-seen", arguments->exclude_seen, "Leave out what the user has seen");
  command->add_option("--exclude", arguments->exclude, "Leave out these items");
  command->add_option("--unlike", arguments->unlike, "With --item: and not like these");
  command->add_option("--filter", arguments->filter,
                      "Only items whose attributes match, as: category = \"film\" and year >= 1990 "
                      "(= != < <= > >=, in (...), starts with, exists; and, or, not, parentheses)");
  command->add_option("--max-per", arguments->max_per, "At most so many of each value: category=3");
  command->add_option("--weight", arguments->weights,
                      "Blend scores: similarity=1, popularity=0.1, recency=0.2, recency_of=ATTRIBUTE, "
                      "half_life_hours=168");
  command->add_flag("--explain", arguments->explain, "Show how the answer came about");
  command->add_flag("--with-attributes", arguments->with_attributes, "Show all attributes, not only the title");
  command->add_flag("--exact", arguments->exact, "Scan everything instead of searching the graph");
  command->add_option("--timeout-ms", arguments->timeout_ms, "How long to wait for the answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 60'000));
  command->add_flag("--binary", arguments->binary, "With --vector-file: ask in binary, as a hot path would");
  command->add_flag("--json", arguments->json, "Print the answer as the server sent it");
  command->footer(
      "Example:\n"
      "  freshet query --user 14620 --k 5 --exclude-seen --address 127.0.0.1:8081\n"
      "  freshet query --user 14620 --filter 'title starts with \"SET\"' --max-per category=3\n"
      "Exit codes: 0 answered, 1 refused (see the message), 69 no sidecar answers at this address.");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunQuery(*arguments)); }; });
}

}  // namespace freshet
