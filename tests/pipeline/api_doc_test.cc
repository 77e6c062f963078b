// deploy/docs/api.md does what it says: each example as it stands, against a live server; the status, and the answer
// against openapi.yaml.
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "certificates.h"
#include "fake_replica.h"
#include "freshet/core/yaml.h"
#include "freshet/query/http_server.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

constexpr std::string_view kToken = "correct-horse-battery-staple";

// The part of JSON Schema that openapi.yaml uses to describe answers. Empty, or where the value differs and how.
class Schemas {
 public:
  explicit Schemas(const YamlNode& api) : api_(api) {}

  [[nodiscard]] std::string Differs(const std::string& schema, const JsonValue& value) const {
    return Differs(*At(StrCat("#/components/schemas/", schema)), value, "");
  }

 private:
  [[nodiscard]] const YamlNode* At(const std::string& reference) const {
    const YamlNode* node = &api_;
    const std::vector<std::string> parts = Split(reference, '/');
    for (std::size_t i = 1; i < parts.size() && node != nullptr; ++i) node = node->Find(parts[i]);
    EXPECT_NE(node, nullptr) << reference;
    return node;
  }

  static bool IsOfType(const std::string& type, const JsonValue& value) {
    return (type == "object" && value.IsObject()) || (type == "array" && value.IsArray()) ||
           (type == "string" && value.IsString()) || (type == "boolean" && value.IsBool()) ||
           (type == "null" && value.IsNull()) || (type == "number" && value.IsNumber()) ||
           (type == "integer" && value.IsNumber() && !value.IsDouble());
  }

  [[nodiscard]] std::string Differs(const YamlNode& schema, const JsonValue& value, const std::string& where) const {
    if (const YamlNode* reference = schema.Find("$ref")) return Differs(*At(reference->scalar), value, where);
    if (const YamlNode* choices = schema.Find("oneOf")) {
      std::size_t fitting = 0;
      for (const YamlNode& choice : choices->items) fitting += Differs(choice, value, where).empty() ? 1 : 0;
      return fitting == 1 ? "" : StrCat(where, ": ", fitting, " choices fit");
    }
    if (const YamlNode* type = schema.Find("type")) {
      bool fits = IsOfType(type->scalar, value);
      for (const YamlNode& one : type->items) fits |= IsOfType(one.scalar, value);
      if (!fits) return StrCat(where, ": is ", ToJson(value));
    }
    if (const YamlNode* required = schema.Find("required")) {
      for (const YamlNode& name : required->items) {
        if (JsonFind(value, name.scalar) == nullptr) return StrCat(where, "/", name.scalar, ": is missing");
      }
    }
    if (const YamlNode* properties = schema.Find("properties"); properties != nullptr && value.IsObject()) {
      for (const auto& member : value.GetObject()) {
        const std::string name(JsonText(member.name));
        const YamlNode* property = properties->Find(name);
        if (property == nullptr) return StrCat(where, "/", name, ": is not described");
        if (std::string differs = Differs(*property, member.value, StrCat(where, "/", name)); !differs.empty()) {
          return differs;
        }
      }
    }
    if (const YamlNode* items = schema.Find("items"); items != nullptr && value.IsArray()) {
      for (const JsonValue& item : value.GetArray()) {
        if (std::string differs = Differs(*items, item, StrCat(where, "/-")); !differs.empty()) return differs;
      }
    }
    return "";
  }

  const YamlNode& api_;
};

// What an example should bring: one entry for each curl in it. An empty schema: not JSON.
struct Expected {
  int status = 200;
  std::string schema;
};

class ApiDocTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto page = ReadFile(SourceRoot() + "/deploy/docs/api.md", std::size_t{1} << 20);
    ASSERT_OK(page);
    ReadExamples(*page);
    const Attributes film = {{"added", std::string("2011-05-30T08:00:00Z")},
                             {"category", std::string("film")},
                             {"director", std::string("Varda")},
                             {"title", std::string("Les glaneurs")},
                             {"year", std::int64_t{2000}}};
    for (const char* id : {"85123A", "71053", "22423", "84879", "47566"}) {
      replica_.Put(id, {0.6F, 0.1F * static_cast<float>(++items_)}, film);
    }
    UserState user;
    user.features = {{"country", std::string("France")}};
    user.history = {{"85123A", "buy", 2, 1'306'863'000'000}};
    user.seen = {"85123A"};
    replica_.users["14620"] = user;
    files_.Authority("ca");
    files_.Certify("server", "IP:127.0.0.1", "ca");
    files_.Certify("client", "DNS:client", "ca");
    mutual_ = Serve("", {}, {files_.At("server.crt"), files_.At("server.key"), files_.At("ca.crt")});
    server_ = Serve("", {});
    admin_ = Serve("", [this] { ++snapshots_; });
    ASSERT_OK(WriteFileAtomically(TokenFile(), StrCat(kToken, "\n")));
    ASSERT_EQ(::chmod(TokenFile().c_str(), 0600), 0);
    guarded_ = Serve(TokenFile(), {});
    const auto reply = HttpCall(server_->address(), "GET", "/openapi.yaml");
    ASSERT_OK(reply);
    auto parsed = ParseYaml(reply->body, "openapi.yaml");
    ASSERT_OK(parsed);
    api_ = std::move(*parsed);
  }

  std::unique_ptr<HttpServer> Serve(const std::string& token_file, SnapshotRequest snapshot, const HttpTls& tls = {}) {
    HttpOptions options;
    options.tls = tls;
    options.token_file = token_file;
    auto server = MakeHttpServer(
        options, &service_, &metrics_, {}, [] { return std::string(R"({"items_live":5})"); }, std::move(snapshot));
    EXPECT_OK(server->Start());
    return server;
  }
  [[nodiscard]] std::string TokenFile() const { return dir_ / "tokens"; }

  // By the words in bold before them: indented blocks, and `code` within lines.
  void ReadExamples(const std::string& page) {
    std::string title;
    for (const std::string& line : Split(page, '\n')) {
      if (line.starts_with("## ")) break;  // behind the examples: formats
      if (line.starts_with("    ")) {
        if (!continues_) examples_.emplace_back(title, "");
        examples_.back().second += line.substr(4) + "\n";
      } else if (line.starts_with("**")) {
        title = line.substr(2, line.find("**", 2) - 2);
      }
      continues_ = line.starts_with("    ");
      if (title != "Of the process" || continues_) continue;
      std::vector<std::string> parts = Split(line, '`');
      for (std::size_t i = 1; i < parts.size(); i += 2) {
        const std::size_t at = parts[i].find("$A/");
        if (at != std::string::npos) examples_.emplace_back(title, StrCat("curl -s ", parts[i].substr(at), "\n"));
      }
    }
  }

  // Runs one example in a shell that has $A, and says after each curl what its status was.
  std::string Run(std::string script) {
    const auto replace = [&](const std::string& from, const std::string& to) {
      for (std::size_t at = script.find(from); at != std::string::npos; at = script.find(from, at + to.size())) {
        script.replace(at, from.size(), to);
      }
    };
    const bool guarded = script.find("/etc/freshet/tokens") != std::string::npos;
    replace("/etc/freshet/tokens", TokenFile());
    replace("127.0.0.1:8090", admin_->address());
    for (const char* file : {"ca.crt", "client.crt", "client.key"})
      replace(StrCat("/etc/freshet/", file), files_.At(file));
    const bool tls = script.find("https://") != std::string::npos;
    const std::string address = (guarded ? guarded_ : tls ? mutual_ : server_)->address();
    const std::string prelude =
        StrCat("A=", address, "\ncurl() { command curl --max-time 30 -w '\\n#%{http_code}\\n' \"$@\"; }\n",
               "freshet() { command ", FreshetBinary(), " \"$@\" --address $A; }\n");
    EXPECT_OK(WriteFileAtomically(dir_ / "example.sh", prelude + script));
    std::string out;
    EXPECT_EQ(RunCommand({"/bin/bash", dir_ / "example.sh"}, &out), 0) << script;
    return out;
  }

  void Check(const std::string& title, const std::string& script, const std::vector<Expected>& expected) {
    SCOPED_TRACE(title + ": " + script);
    const Schemas schemas(api_);
    std::vector<std::pair<std::string, int>> answers(1);
    for (const std::string& line : Split(Run(script), '\n')) {
      if (line.starts_with("#") && line.size() == 4) {
        answers.back().second = std::atoi(line.c_str() + 1);
        answers.emplace_back();
      } else {
        answers.back().first += line + "\n";
      }
    }
    answers.pop_back();
    ASSERT_EQ(answers.size(), expected.size());
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto& [body, status] = answers[i];
      EXPECT_EQ(status, expected[i].status) << body;
      if (expected[i].schema.empty()) continue;
      const auto json = ParseJson(body);
      ASSERT_TRUE(json.ok()) << body;
      if (expected[i].schema == "object") {
        EXPECT_TRUE((*json)->IsObject()) << body;
        continue;
      }
      EXPECT_EQ(schemas.Differs(expected[i].schema, **json), "") << body;
      const JsonValue* results = JsonFind(**json, "results");
      if (results != nullptr) {
        EXPECT_FALSE(results->Empty()) << "an example that shows nothing: " << body;
      }
    }
  }

  TempDir dir_;
  FakeReplica replica_;
  FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  FakeReranker reranker_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_, {}, &reranker_};
  Certificates files_;
  std::unique_ptr<HttpServer> server_, admin_, guarded_, mutual_;
  YamlNode api_;
  std::vector<std::pair<std::string, std::string>> examples_;
  bool continues_ = false;
  int items_ = 0;
  int snapshots_ = 0;
};

TEST_F(ApiDocTest, EveryExampleGivesWhatTheDescriptionSays) {
  const std::map<std::string, std::vector<Expected>> expected = {
      {"The best items for a user", {{200, "RecallAnswer"}}},
      {"For a user whom nobody knows yet", {{200, "RecallAnswer"}}},
      {"More like these, less like those:", {{200, "RecallAnswer"}}},
      {"Similar, but rather popular and new", {{200, "RecallAnswer"}}},
      {"Re-ranked", {{200, "RecallAnswer"}}},
      {"By a vector of your own", {{200, "RecallAnswer"}}},
      {"Why this answer?", {{200, "RecallAnswer"}}},
      {"Read your own writes", {{200, "RecallAnswer"}}},
      {"Several at once", {{200, "BatchAnswer"}}},
      {"Scores for items that another recaller found", {{200, "ScoreAnswer"}}},
      {"What is stored", {{200, "Item"}, {200, "User"}}},
      {"A snapshot now", {{202, "object"}}},
      {"Errors", {{400, "Problem"}}},
      {"Busy, and found again in the log.", {{200, "RecallAnswer"}}},
      {"With a token", {{200, "object"}}},
      {"With TLS", {{200, "object"}}},
  };
  std::set<std::string> tried;
  for (const auto& [title, script] : examples_) {
    if (script == "A=127.0.0.1:8081\n") continue;
    if (script.starts_with("freshet ") || script.starts_with("python3 ")) {
      EXPECT_NE(Run(script).find("47566"), std::string::npos) << script;  // the nearest
      continue;
    }
    if (title == "Of the process") {
      const bool json = script.find("yaml") == std::string::npos && script.find("metrics") == std::string::npos;
      const bool ready = script.find("readyz") != std::string::npos;
      Check(title, script, {{200, ready ? "Ready" : json ? "object" : ""}});
      continue;
    }
    ASSERT_TRUE(expected.contains(title)) << "what should `" << title << "` bring?";
    Check(title, script, expected.at(title));
    tried.insert(title);
  }
  for (const auto& [title, answers] : expected) EXPECT_TRUE(tried.contains(title)) << "no example under: " << title;
  EXPECT_EQ(snapshots_, 1);
}

TEST_F(ApiDocTest, EveryPathHasAnExample) {
  std::string all;
  for (const auto& [title, script] : examples_) all += script;
  for (const auto& [path, operations] : api_.Find("paths")->members) {
    EXPECT_NE(all.find(path.substr(0, path.find('{'))), std::string::npos) << path;
  }
}

}  // namespace
}  // namespace freshet::test
