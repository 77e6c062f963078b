#include "freshet/encoder/feature_request.h"

#include <algorithm>
#include <cmath>
#include <ios>
#include <set>
#include <string_view>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::string_view kIgnore = "ignore";
constexpr std::int64_t kMaxLearned = 10'000'000;  // rows that a request may ask for
constexpr std::int64_t kMaxWords = 1'000'000;     // of a vocabulary that is given

// What may be said of a kind, beside `name` and `kind`.
std::vector<std::string> KeysOf(FeatureKind kind) {
  switch (kind) {
    case FeatureKind::kCategorical:
      return {"vocabulary", "vocabulary_size", "min_count", "buckets"};
    case FeatureKind::kMultiValued:
      return {"vocabulary", "vocabulary_size", "min_count", "buckets", "max_values"};
    case FeatureKind::kText:
      return {"vocabulary", "vocabulary_size", "min_count", "buckets", "max_values", "word_ngrams", "char_ngrams"};
    case FeatureKind::kBucketised:
      return {"boundaries", "quantiles"};
    case FeatureKind::kHistoryEvents:
      return {"vocabulary", "vocabulary_size", "min_count", "buckets"};
    case FeatureKind::kHistoryGaps:
      return {"boundaries", "to"};
    case FeatureKind::kDense:
      return {"log"};
    case FeatureKind::kHistory:
      return {"vocabulary_size", "min_count", "buckets"};
  }
  return {};
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates) {
  const auto nearest = Nearest(word, candidates);
  return nearest ? StrCat(": did you mean `", *nearest, "`?") : "";
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  Result<FeatureRequests> Read(const YamlNode& node) {
    FeatureRequests requests;
    if (!node.IsMapping()) Note(node.line, "`features` must hold the lists `items` and `users`");
    for (std::size_t i = 0; i < node.members.size(); ++i) {
      const auto& [side, list] = node.members[i];
      if (side != "items" && side != "users") {
        Note(node.member_lines[i], StrCat("`features` has no list `", side, "`: there are `items` and `users`"));
      } else if (!list.IsSequence()) {
        Note(node.member_lines[i], StrCat("`", side, "` must be a list of features, each with `name` and `kind`"));
      } else {
        ReadSide(side == "items", list, side == "items" ? &requests.items : &requests.users);
      }
    }
    if (!mistakes_.empty()) return ConfigError(mistakes_);
    return requests;
  }

 private:
  void Note(int line, const std::string& what) {
    mistakes_ += StrCat(mistakes_.empty() ? "" : "\n  ", file_, ":", line, ": ", what);
  }

  void ReadSide(bool items, const YamlNode& list, std::vector<FeatureRequest>* out) {
    std::set<std::string> names;
    for (const YamlNode& entry : list.items) {
      if (!entry.IsMapping()) {
        Note(entry.line, "a feature must be a mapping with `name` and `kind`");
        continue;
      }
      FeatureRequest request;
      request.where = StrCat(file_, ":", entry.line);
      if (!ReadNameAndKind(items, entry, &request)) continue;
      if (!names.insert(request.name).second) Note(entry.line, StrCat("feature `", request.name, "` is named twice"));
      for (std::size_t i = 0; i < entry.members.size(); ++i) {
        const auto& [key, value] = entry.members[i];
        if (key != "name" && key != "kind") ReadKey(key, entry.member_lines[i], value, &request);
      }
      CheckWhole(entry.line, request);
      out->push_back(std::move(request));
    }
  }

  bool ReadNameAndKind(bool items, const YamlNode& entry, FeatureRequest* request) {
    const YamlNode* name = entry.Find("name");
    const YamlNode* kind = entry.Find("kind");
    if (name == nullptr || kind == nullptr || !name->IsScalar() || !kind->IsScalar() || name->scalar.empty()) {
      Note(entry.line, "a feature needs `name` and `kind`");
      return false;
    }
    request->name = name->scalar;
    request->ignore = kind->scalar == kIgnore;
    if (const auto known = ParseFeatureKind(kind->scalar)) {
      request->kind = *known;
    } else if (!request->ignore) {
      std::vector<std::string> kinds = {std::string(kIgnore)};
      for (const FeatureKind one : kAllFeatureKinds) kinds.emplace_back(FeatureKindName(one));
      std::string all;
      for (const std::string& one : kinds) all += (all.empty() ? "" : ", ") + one;
      Note(kind->line,
           StrCat("`", kind->scalar, "` is no kind of feature", DidYouMean(kind->scalar, kinds), " (", all, ")"));
      return false;
    }
    return CheckName(items, kind->line, *request);
  }

  // The ids and the history are no features of a record.
  bool CheckName(bool items, int line, const FeatureRequest& request) {
    const std::string& name = request.name;
    const auto named = ParseFeatureKind(name);
    const bool of_history = named && IsOfHistory(*named);
    std::string wrong;
    if (name == "item_id") {
      if (!items) wrong = "`item_id` belongs to `items`";
      if (items && (request.ignore || request.kind != FeatureKind::kCategorical)) {
        wrong = "`item_id` is categorical, and always there: `id_dropout` of `train` says how often it is hidden";
      }
    } else if (of_history) {
      if (items || request.ignore || request.kind != *named) {
        wrong = StrCat("`", name, "` is of kind `", name, "`, and belongs to `users`");
      }
    } else if (name == "user_id") {
      if (items) wrong = "`user_id` belongs to `users`";
      if (!items && (request.ignore || request.kind != FeatureKind::kCategorical)) {
        wrong = "`user_id` is categorical; not named, no tower reads it";
      }
    } else if (!request.ignore && IsOfHistory(request.kind)) {
      const std::string_view kind = FeatureKindName(request.kind);
      wrong = StrCat("the kind `", kind, "` belongs to the feature `", kind, "` of `users`");
    }
    if (!wrong.empty()) Note(line, wrong);
    return wrong.empty();
  }

  void ReadKey(const std::string& key, int line, const YamlNode& value, FeatureRequest* request) {
    if (request->ignore) {
      Note(line, StrCat("a feature that is ignored has nothing but its name: leave `", key, "` out"));
      return;
    }
    std::vector<std::string> keys = KeysOf(request->kind);
    if (request->name == "item_id" || request->name == "user_id") std::erase(keys, "vocabulary");
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      std::string all;
      for (const std::string& one : keys) all += StrCat(all.empty() ? "" : ", ", "`", one, "`");
      Note(line, StrCat("feature `", request->name, "`: a ", FeatureKindName(request->kind), " one has no key `", key,
                        "`", DidYouMean(key, keys), " (it has ", all, ")"));
      return;
    }
    if (key == "vocabulary") {
      ReadVocabulary(value, line, request);
    } else if (key == "vocabulary_size") {
      request->vocabulary_size = Integer(key, line, value, 0, kMaxLearned);
    } else if (key == "min_count") {
      request->min_count = Integer(key, line, value, 1, 1'000'000'000);
    } else if (key == "buckets") {
      // Every interaction is of some event: one that nobody knows has a row too.
      const int least = request->kind == FeatureKind::kHistoryEvents ? 1 : 0;
      request->buckets = Integer(key, line, value, least, kMaxLearned);
    } else if (key == "to") {
      request->to = ParseGapsTo(value.scalar);
      if (!request->to) Note(line, "`to` must be newest or previous");
    } else if (key == "max_values") {
      if (const auto read = Integer(key, line, value, 1, 65'536)) request->max_values = static_cast<int>(*read);
    } else if (key == "quantiles") {
      if (!request->boundaries.empty()) Note(line, "either `boundaries` or `quantiles`, which learn them");
      if (const auto read = Integer(key, line, value, 2, 1000)) request->quantiles = static_cast<int>(*read);
    } else if (key == "boundaries") {
      ReadBoundaries(value, line, request);
    } else if (key == "word_ngrams") {
      if (const auto read = Integer(key, line, value, 0, kMaxWordNgrams))
        request->word_ngrams = static_cast<int>(*read);
    } else if (key == "char_ngrams") {
      ReadCharNgrams(value, line, request);
    } else if (key == "log") {
      if (value.scalar != "true" && value.scalar != "false") {
        Note(line, "`log` must be true or false");
      } else {
        request->log = value.scalar == "true";
      }
    }
  }

  std::optional<std::int64_t> Integer(const std::string& key, int line, const YamlNode& value, std::int64_t low,
                                      std::int64_t high) {
    const auto read = value.IsScalar() ? ParseInt(value.scalar) : std::nullopt;
    if (read && *read >= low && *read <= high) return static_cast<std::int64_t>(*read);
    Note(line, StrCat("`", key, "` must be a whole number from ", low, " to ", high));
    return std::nullopt;
  }

  void ReadBoundaries(const YamlNode& value, int line, FeatureRequest* request) {
    request->boundaries.clear();
    const auto wrong = [&] {
      Note(line, StrCat("`boundaries` must be a list of 1 to ", kMaxBoundaries, " numbers that ascend"));
    };
    if (!value.IsSequence() || value.items.empty() || value.items.size() > kMaxBoundaries) return wrong();
    for (const YamlNode& one : value.items) {
      const auto number = one.IsScalar() ? ParseDouble(one.scalar) : std::nullopt;
      const bool ascends = number && (request->boundaries.empty() || *number > request->boundaries.back());
      if (!ascends || !std::isfinite(*number)) return wrong();
      request->boundaries.push_back(*number);
    }
  }

  void ReadCharNgrams(const YamlNode& value, int line, FeatureRequest* request) {
    const auto at = [&](std::size_t i) {
      return value.items.size() == 2 && value.items[i].IsScalar() ? ParseInt(value.items[i].scalar).value_or(0) : 0;
    };
    if (at(0) < 1 || at(1) < at(0) || at(1) > kMaxCharNgrams) {
      Note(line, StrCat("`char_ngrams` must be two whole numbers, [shortest, longest], from 1 to ", kMaxCharNgrams));
      return;
    }
    request->char_min = static_cast<int>(at(0));
    request->char_max = static_cast<int>(at(1));
  }

  void ReadVocabulary(const YamlNode& value, int line, FeatureRequest* request) {
    if (!value.IsSequence() || value.items.empty() || static_cast<std::int64_t>(value.items.size()) > kMaxWords) {
      Note(line, StrCat("`vocabulary` must be a list of 1 to ", kMaxWords, " texts"));
      return;
    }
    std::set<std::string_view> seen;
    for (const YamlNode& word : value.items) {
      if (!word.IsScalar()) {
        Note(word.line, "a word of `vocabulary` must be a text");
      } else if (!seen.insert(word.scalar).second) {
        Note(word.line, StrCat("`", word.scalar, "` is in the vocabulary twice"));
      } else {
        request->vocabulary.push_back(word.scalar);
      }
    }
  }

  void CheckWhole(int line, const FeatureRequest& request) {
    const std::string where = StrCat("feature `", request.name, "`: ");
    if (!request.vocabulary.empty() && (request.vocabulary_size || request.min_count)) {
      Note(line, where + "a vocabulary that is given is not learned: leave `vocabulary_size` and `min_count` out");
    }
    if (request.word_ngrams == 0 && request.char_max == 0) {
      Note(line, where + "`word_ngrams: 0` leaves nothing of a text: give `char_ngrams`");
    }
    if (request.vocabulary_size == 0 && request.buckets.value_or(0) == 0) {
      Note(line, where + "without a vocabulary (`vocabulary_size: 0`) it needs `buckets`");
    }
  }

  const std::string& file_;
  std::string mistakes_;
};

}  // namespace

Result<FeatureRequests> FeatureRequestsFromYaml(const YamlNode& node, const std::string& file) {
  return Reader(file).Read(node);
}

std::string FeatureRequestsText(const FeatureRequests& requests) {
  std::string out;
  const auto number = [](const auto& value) { return value ? StrCat(*value) : std::string("-"); };
  for (const auto* side : {&requests.items, &requests.users}) {
    out += side == &requests.items ? "items" : " users";
    for (const FeatureRequest& one : *side) {
      out += StrCat(" ", YamlQuote(one.name), " ", one.ignore ? kIgnore : FeatureKindName(one.kind), " ",
                    number(one.vocabulary_size), " ", number(one.min_count), " ", number(one.buckets), " ",
                    number(one.max_values), " ", number(one.log), " ", one.quantiles, " ", one.word_ngrams, " ",
                    one.char_min, " ", one.char_max, " ", one.to ? GapsToName(*one.to) : "-");
      for (const double boundary : one.boundaries) out += StrCat(" ", std::hexfloat, boundary);
      for (const std::string& word : one.vocabulary) out += " " + YamlQuote(word);
    }
  }
  return out;
}

}  // namespace freshet
