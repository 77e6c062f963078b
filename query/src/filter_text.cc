// The filter language: a hand-written lexer and a recursive descent over it, straight into JSON.
//
//   filter     = and-list { "or" and-list }
//   and-list   = term { "and" term }
//   term       = "not" term | "(" filter ")" | condition
//   condition  = name ( comparison value | [ "not" ] "in" "(" value { "," value } ")" | "starts" "with" text
//                     | [ "not" ] "exists" )
//   comparison = "=" | "!=" | "<" | "<=" | ">" | ">="
//   value      = text | number | "true" | "false"
//   name       = letter { letter | digit | "_" | "." | "-" } | "`" any "`"
#include <algorithm>

#include "freshet/core/strings.h"
#include "freshet/query/filter_text.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxTextBytes = 16 * 1024;
constexpr std::size_t kMaxNesting = 64;

struct Token {
  enum class Kind { kName, kQuotedName, kText, kNumber, kSymbol, kEnd };
  Kind kind = Kind::kEnd;
  std::string text;
  std::size_t at = 0;  // byte
};

bool IsLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<std::string> Parse() {
    if (text_.size() > kMaxTextBytes) {
      return InvalidArgument(StrCat("column 1: a filter is at most ", kMaxTextBytes, " bytes long"));
    }
    if (!IsValidUtf8(text_)) return InvalidArgument("column 1: a filter is UTF-8");
    FRESHET_TRY(Next());
    if (token_.kind == Token::Kind::kEnd) return At(token_, "a condition is missing, as: category = \"film\"");
    FRESHET_ASSIGN(std::string json, Or(0));
    if (token_.kind != Token::Kind::kEnd) return At(token_, "`and`, `or` or the end is expected here");
    return json;
  }

 private:
  [[nodiscard]] Status At(const Token& token, std::string_view what) const {
    const auto before = text_.substr(0, token.at);
    const auto column = 1 + std::count_if(before.begin(), before.end(),
                                          [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
    return InvalidArgument(StrCat("column ", column, ": ", what));
  }

  Status Next() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
    token_ = Token{Token::Kind::kEnd, "", at_};
    if (at_ == text_.size()) return Status::Ok();
    const char c = text_[at_];
    if (c == '"' || c == '\'' || c == '`') return Quoted(c);
    const std::size_t begin = at_;
    if (IsDigit(c) || ((c == '-' || c == '+' || c == '.') && at_ + 1 < text_.size())) {
      const auto continues = [&] {
        const char n = text_[at_];
        const char last = text_[at_ - 1];
        return IsLetter(n) || IsDigit(n) || n == '.' || ((n == '-' || n == '+') && (last == 'e' || last == 'E'));
      };
      for (++at_; at_ < text_.size() && continues();) ++at_;
      token_.kind = Token::Kind::kNumber;
      token_.text = text_.substr(begin, at_ - begin);
      // JSON's numbers are stricter; the text goes into JSON as it is.
      const auto number = ParseJson(token_.text, 1);
      if (!number.ok() || !(*number)->IsNumber()) return At(token_, StrCat("`", token_.text, "` is not a number"));
      return Status::Ok();
    }
    if (IsLetter(c)) {
      while (at_ < text_.size() &&
             (IsLetter(text_[at_]) || IsDigit(text_[at_]) || text_[at_] == '.' || text_[at_] == '-')) {
        ++at_;
      }
      token_.kind = Token::Kind::kName;
      token_.text = text_.substr(begin, at_ - begin);
      return Status::Ok();
    }
    token_.kind = Token::Kind::kSymbol;
    const std::string_view two = text_.substr(at_, 2);
    const bool long_symbol = two == "!=" || two == "<=" || two == ">=";
    if (!long_symbol && std::string_view("=<>(),").find(c) == std::string_view::npos) {
      return At(token_, "this character has no meaning here; texts are quoted, as \"film\"");
    }
    token_.text = text_.substr(at_, long_symbol ? 2 : 1);
    at_ += token_.text.size();
    return Status::Ok();
  }

  Status Quoted(char quote) {
    token_.kind = quote == '`' ? Token::Kind::kQuotedName : Token::Kind::kText;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == quote) {
        ++at_;
        return Status::Ok();
      }
      if (text_[at_] == '\\' && quote != '`') {
        const std::size_t escape = at_;
        if (++at_ == text_.size()) break;
        if (text_[at_] != '\\' && text_[at_] != '"' && text_[at_] != '\'') {
          return At(Token{Token::Kind::kSymbol, "", escape}, R"(only \\, \" and \' are escapes)");
        }
      }
      token_.text += text_[at_];
    }
    return At(token_, StrCat("the text that begins here has no end: ", quote, " is missing"));
  }

  [[nodiscard]] bool IsWord(std::string_view word) const {
    return token_.kind == Token::Kind::kName && ToLower(token_.text) == word;
  }
  [[nodiscard]] bool IsSymbol(std::string_view symbol) const {
    return token_.kind == Token::Kind::kSymbol && token_.text == symbol;
  }
  Status Expect(std::string_view symbol, std::string_view what) {
    if (!IsSymbol(symbol)) return At(token_, what);
    return Next();
  }

  static std::string Group(const char* name, const std::vector<std::string>& parts) {
    if (parts.size() == 1 && std::string_view(name) != "must_not") return parts[0];
    std::string json = StrCat("{\"", name, "\":[");
    for (std::size_t i = 0; i < parts.size(); ++i) json += (i > 0 ? "," : "") + parts[i];
    return json + "]}";
  }

  Result<std::string> Or(std::size_t nesting) {
    std::vector<std::string> parts(1);
    FRESHET_ASSIGN(parts[0], And(nesting));
    while (IsWord("or")) {
      FRESHET_TRY(Next());
      FRESHET_ASSIGN(std::string part, And(nesting));
      parts.push_back(std::move(part));
    }
    return Group("should", parts);
  }

  Result<std::string> And(std::size_t nesting) {
    std::vector<std::string> parts(1);
    FRESHET_ASSIGN(parts[0], Term(nesting));
    while (IsWord("and")) {
      FRESHET_TRY(Next());
      FRESHET_ASSIGN(std::string part, Term(nesting));
      parts.push_back(std::move(part));
    }
    return Group("must", parts);
  }

  Result<std::string> Term(std::size_t nesting) {
    if (nesting == kMaxNesting) return At(token_, "this is nested too deep");
    if (IsWord("not")) {
      FRESHET_TRY(Next());
      FRESHET_ASSIGN(const std::string term, Term(nesting + 1));
      return Group("must_not", {term});
    }
    if (!IsSymbol("(")) return ReadCondition();
    const Token open = token_;
    FRESHET_TRY(Next());
    FRESHET_ASSIGN(std::string inner, Or(nesting + 1));
    if (token_.kind == Token::Kind::kEnd) return At(open, "this ( is never closed");
    FRESHET_TRY(Expect(")", "`and`, `or` or `)` is expected here"));
    return inner;
  }

  Result<std::string> ReadCondition() {
    static const std::vector<std::string> kReserved = {"and",  "or",     "not",  "in",   "starts",
                                                       "with", "exists", "true", "false"};
    const bool reserved = token_.kind == Token::Kind::kName &&
                          std::find(kReserved.begin(), kReserved.end(), ToLower(token_.text)) != kReserved.end();
    if (reserved || (token_.kind != Token::Kind::kName && token_.kind != Token::Kind::kQuotedName)) {
      return At(token_, "the name of an attribute is expected here");
    }
    if (!IsValidId(token_.text)) return At(token_, StrCat("a name is 1 to ", kMaxIdBytes, " bytes long"));
    const std::string key = StrCat("{\"key\":", JsonQuote(token_.text), ",");
    FRESHET_TRY(Next());
    bool negated = false;
    if (IsWord("not")) {
      negated = true;
      FRESHET_TRY(Next());
      if (!IsWord("in") && !IsWord("exists")) return At(token_, "after `not` comes `in` or `exists` here");
    }
    if (IsWord("exists")) {
      FRESHET_TRY(Next());
      return StrCat(key, "\"exists\":", negated ? "false}" : "true}");
    }
    if (IsWord("in")) {
      FRESHET_ASSIGN(const std::string values, List());
      const std::string condition = StrCat(key, "\"any\":", values, "}");
      return negated ? Group("must_not", {condition}) : condition;
    }
    if (IsWord("starts")) {
      FRESHET_TRY(Next());
      if (!IsWord("with")) return At(token_, "`with` is expected here, as in: title starts with \"Toy\"");
      FRESHET_TRY(Next());
      if (token_.kind != Token::Kind::kText) return At(token_, "a quoted text is expected here");
      FRESHET_ASSIGN(const std::string text, Value());
      return StrCat(key, "\"prefix\":", text, "}");
    }
    return Comparison(key);
  }

  Result<std::string> Comparison(const std::string& key) {
    const Token symbol = token_;
    const bool comparison =
        symbol.kind == Token::Kind::kSymbol && symbol.text != "(" && symbol.text != ")" && symbol.text != ",";
    if (!comparison) return At(token_, "one of = != < <= > >= in starts exists is expected here");
    FRESHET_TRY(Next());
    const Token value = token_;
    FRESHET_ASSIGN(const std::string json, Value());
    if (symbol.text == "=") return StrCat(key, "\"match\":", json, "}");
    if (symbol.text == "!=") return Group("must_not", {StrCat(key, "\"match\":", json, "}")});
    const bool is_time = value.kind == Token::Kind::kText && ParseTimestampUs(value.text);
    if (value.kind != Token::Kind::kNumber && !is_time) {
      return At(value, StrCat("`", symbol.text, "` compares numbers and timestamps, as \"1995-11-22T10:00:00Z\""));
    }
    const char* bound = symbol.text == "<" ? "lt" : symbol.text == "<=" ? "lte" : symbol.text == ">" ? "gt" : "gte";
    return StrCat(key, "\"range\":{\"", bound, "\":", json, "}}");
  }

  Result<std::string> List() {
    FRESHET_TRY(Next());
    FRESHET_TRY(Expect("(", "`(` is expected here, as in: category in (\"film\", \"book\")"));
    std::string json = "[";
    while (true) {
      FRESHET_ASSIGN(const std::string value, Value());
      json += value;
      if (!IsSymbol(",")) break;
      json += ',';
      FRESHET_TRY(Next());
    }
    FRESHET_TRY(Expect(")", "`,` or `)` is expected here"));
    return json + "]";
  }

  Result<std::string> Value() {
    std::string json;
    if (token_.kind == Token::Kind::kText) {
      if (token_.text.size() > kMaxFilterTextBytes) {
        return At(token_, StrCat("a text is at most ", kMaxFilterTextBytes, " bytes long here"));
      }
      json = JsonQuote(token_.text);
    } else if (token_.kind == Token::Kind::kNumber) {
      json = token_.text;
    } else if (IsWord("true") || IsWord("false")) {
      json = ToLower(token_.text);
    } else {
      return At(token_, token_.kind == Token::Kind::kName
                            ? "a value is expected here: a number, true, false, or a text in quotes"
                            : "a value is expected here");
    }
    FRESHET_TRY(Next());
    return json;
  }

  const std::string_view text_;
  std::size_t at_ = 0;
  Token token_;
};

}  // namespace

Result<std::string> FilterTextToJson(std::string_view text) {
  FRESHET_ASSIGN(std::string json, Parser(text).Parse());
  // What the language cannot say wrongly, the bounds may still refuse.
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(json, 256));
  const Result<Filter> filter = ParseFilter(*document, "");
  if (!filter.ok()) return filter.status().Prefixed("column 1");
  return json;
}

}  // namespace freshet
