// `freshet query`: asks a running sidecar (or an engine with query.listen) from a terminal.
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/query/filter_text.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_binary.h"
#include "query_print.h"

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
  bool rerank = false;
  std::size_t candidates = 0;
  bool explain = false;
  std::string address = "127.0.0.1:8081";
  std::string token_file;
  HttpClientTls tls;
  std::size_t k = 10;
  bool exclude_seen = false;
  std::vector<std::string> exclude;
  bool with_attributes = false;
  bool exact = false;
  bool json = false;
  bool binary = false;
  bool watch = false;
  int interval_ms = 1'000;
  int count = 0;
  int timeout_ms = 5'000;
};

// One whose screen can be cleared.
bool IsLiveTerminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

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
  if (arguments.candidates > 0) {
    out.Key("rerank").BeginObject().Key("candidates").Uint(arguments.candidates).EndObject();
  } else if (arguments.rerank) {
    out.Key("rerank").Bool(true);
  }
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
      !arguments.weights.empty() || !arguments.unlike.empty() || arguments.rerank || arguments.candidates > 0) {
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

struct Question {
  std::string body;
  std::string token;
};

Result<Question> MakeQuestion(const QueryArguments& arguments) {
  Question question;
  FRESHET_ASSIGN(question.body, arguments.binary ? BinaryBody(arguments) : RequestBody(arguments));
  if (!arguments.token_file.empty()) {
    FRESHET_ASSIGN(const std::string text, ReadFile(arguments.token_file, kMaxTokenFileBytes));
    question.token = Trim(text.substr(0, text.find('\n')));
  }
  return question;
}

// The answer's JSON.
Result<std::string> Ask(const QueryArguments& arguments, const Question& question) {
  FRESHET_ASSIGN(HttpReply reply, HttpCall(arguments.address, "POST", "/v1/recall", question.body, arguments.timeout_ms,
                                           question.token, arguments.binary ? kBinaryRecallType : "application/json",
                                           arguments.tls.ca.empty() ? nullptr : &arguments.tls));
  if (reply.status != 200) return ProblemOf(reply);
  if (!arguments.binary) return std::move(reply.body);
  FRESHET_ASSIGN(const RecallResponse response, DecodeBinaryAnswer(reply.body));
  return RecallResponseToJson(response);
}

// Prints one answer; with `before`, what has changed since. `before` becomes what it is now.
Status Show(const QueryArguments& arguments, const std::string& json, std::vector<std::string>* before, bool mark) {
  if (arguments.json) {
    std::printf("%s\n", json.c_str());
    std::fflush(stdout);
    return Status::Ok();
  }
  const Result<std::unique_ptr<JsonDocument>> answer = ParseJson(json);
  const JsonValue* results = answer.ok() ? JsonFind(**answer, "results") : nullptr;
  if (results == nullptr || !results->IsArray()) {
    return Internal(StrCat(arguments.address, " did not answer as a freshet server does"));
  }
  const bool terminal = IsLiveTerminal();
  std::vector<std::string> ids = IdsOf(*results);
  // In a file or a pipe, only what has changed is worth another table.
  if (mark && !terminal && ids == *before) return Status::Ok();
  if (arguments.watch && terminal) std::printf("\x1b[H\x1b[2J");
  if (mark && !terminal) std::printf("\n");
  PrintTable(*results, arguments.with_attributes, mark ? before : nullptr);
  std::fflush(stdout);
  PrintFreshness(**answer, results->Size());
  *before = std::move(ids);
  return Status::Ok();
}

// Asks again and again. What may pass (nobody listens, overload, a deadline) is told, and asked again.
Status Watch(const QueryArguments& arguments, const Question& question) {
  std::vector<std::string> before;
  bool shown = false;
  for (int asked = 0; arguments.count == 0 || asked < arguments.count; ++asked) {
    if (asked > 0) std::this_thread::sleep_for(std::chrono::milliseconds(arguments.interval_ms));
    const Result<std::string> json = Ask(arguments, question);
    if (json.ok()) {
      FRESHET_TRY(Show(arguments, *json, &before, shown));
      shown = true;
    } else if (shown && json.status().category() == Category::kTransient) {
      std::fprintf(stderr, "no answer: %s\n", std::string(json.status().message()).c_str());
    } else {
      return json.status();
    }
  }
  return Status::Ok();
}

Status RunQuery(const QueryArguments& arguments) {
  FRESHET_ASSIGN(const Question question, MakeQuestion(arguments));
  if (arguments.watch) return Watch(arguments, question);
  FRESHET_ASSIGN(const std::string json, Ask(arguments, question));
  std::vector<std::string> before;
  return Show(arguments, json, &before, false);
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
  CLI::Option* ca =
      command->add_option("--ca", arguments->tls.ca, "Ask over TLS: the authority of its certificate (PEM)");
  CLI::Option* cert = command->add_option("--cert", arguments->tls.certificate, "With --ca: a certificate of your own");
  CLI::Option* key = command->add_option("--key", arguments->tls.key, "With --cert: its key");
  cert->needs(ca);
  cert->needs(key);
  key->needs(cert);
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
  command->add_flag("--rerank", arguments->rerank, "Score the candidates once more, by the package's re-ranker");
  command->add_option("--candidates", arguments->candidates, "Re-rank so many (4 k, at least 200, unless given)")
      ->check(CLI::Range(std::size_t{1}, kMaxRerankCandidates));
  command->add_flag("--explain", arguments->explain, "Show how the answer came about");
  command->add_flag("--with-attributes", arguments->with_attributes, "Show all attributes, not only the title");
  command->add_flag("--exact", arguments->exact, "Scan everything instead of searching the graph");
  command->add_option("--timeout-ms", arguments->timeout_ms, "How long to wait for the answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 60'000));
  command->add_flag("--binary", arguments->binary, "With --vector-file: ask in binary, as a hot path would");
  command->add_flag("--watch", arguments->watch,
                    "Ask again and again, until interrupted: marks what is new (+), has risen (^) or fallen (v). In a "
                    "pipe, a table for each change; with --json, a line for each answer");
  command->add_option("--interval-ms", arguments->interval_ms, "With --watch: between an answer and the next question")
      ->capture_default_str()
      ->check(CLI::Range(10, 3'600'000));
  command->add_option("--count", arguments->count, "With --watch: so many questions; 0: no end")
      ->capture_default_str()
      ->check(CLI::Range(0, 1'000'000'000));
  command->add_flag("--json", arguments->json, "Print the answer as the server sent it");
  command->footer(
      "Example:\n"
      "  freshet query --user 14620 --k 5 --exclude-seen --address 127.0.0.1:8081\n"
      "  freshet query --user 14620 --filter 'title starts with \"SET\"' --max-per category=3\n"
      "  freshet query --user 14620 --watch --interval-ms 500\n"
      "Exit codes: 0 answered, 1 refused (see the message), 69 no sidecar answers at this address.");
  command->callback([arguments, run] { *run = [arguments] { return ExitCode(RunQuery(*arguments)); }; });
}

}  // namespace freshet
