// MovieLens 100K and 1M (GroupLens; Harper and Konstan, 2015), in the forms in which they are published.
#include <algorithm>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "importers.h"

namespace freshet {
namespace {

struct Movie {
  std::string id;
  std::string title;
  std::optional<long long> year;
  std::vector<std::string> genres;
};

struct User {
  std::string id;
  long long age = 0;
  std::string gender;
  std::string occupation;
};

struct Rating {
  std::string user;
  std::string movie;
  double value = 0;
  std::int64_t time_ms = 0;
};

// users.dat holds numbers; these are the words of GroupLens' README.
constexpr const char* kOccupations[] = {"other",
                                        "academic/educator",
                                        "artist",
                                        "clerical/admin",
                                        "college/grad student",
                                        "customer service",
                                        "doctor/health care",
                                        "executive/managerial",
                                        "farmer",
                                        "homemaker",
                                        "K-12 student",
                                        "lawyer",
                                        "programmer",
                                        "retired",
                                        "sales/marketing",
                                        "scientist",
                                        "self-employed",
                                        "technician/engineer",
                                        "tradesman/craftsman",
                                        "unemployed",
                                        "writer"};

std::vector<std::string> SplitBy(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  for (;;) {
    const std::size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + separator.size());
  }
}

// "Toy Story (1995)" -> 1995
std::optional<long long> YearOf(std::string_view title) {
  if (title.size() < 6 || title.back() != ')' || title[title.size() - 6] != '(') return std::nullopt;
  return ParseInt(title.substr(title.size() - 5, 4));
}

// Reads lines of `separator`-separated fields, at least `width` of them.
Status ReadTable(const std::string& path, std::string_view separator, std::size_t width,
                 const std::function<Status(const std::vector<std::string>&)>& row) {
  std::size_t number = 0;
  return ForEachLine(path, [&](std::string_view line, double) -> Status {
    ++number;
    if (Trim(line).empty()) return Status::Ok();
    const std::vector<std::string> fields = SplitBy(line, separator);
    const Status status =
        fields.size() < width ? InvalidArgument(StrCat(fields.size(), " fields instead of ", width)) : row(fields);
    return status.Prefixed(StrCat(path, ":", number));
  });
}

// user, movie, rating, Unix seconds; separated by tabs in both sets.
Status ReadRatings(const std::string& path, std::vector<Rating>* ratings) {
  FRESHET_TRY(ReadTable(path, "\t", 4, [&](const std::vector<std::string>& fields) -> Status {
    const auto value = ParseDouble(fields[2]);
    const auto seconds = ParseInt(fields[3]);
    if (!value || !seconds || *seconds < 0 || *seconds > 32'503'680'000 || !IsValidId(fields[0]) ||
        !IsValidId(fields[1])) {
      return InvalidArgument("not a rating: user, movie, rating, Unix seconds");
    }
    ratings->push_back({fields[0], fields[1], *value, *seconds * 1000});
    return Status::Ok();
  }));
  std::stable_sort(ratings->begin(), ratings->end(),
                   [](const Rating& a, const Rating& b) { return a.time_ms < b.time_ms; });
  return Status::Ok();
}

void WriteTexts(const std::vector<std::string>& texts, JsonWriter* json) {
  json->BeginArray();
  for (const std::string& text : texts) json->String(text);
  json->EndArray();
}

std::string ToLine(const Movie& movie, std::int64_t time_ms) {
  JsonWriter json;
  json.BeginObject().Key("item_id").String(movie.id);
  if (!movie.genres.empty()) json.Key("category").String(movie.genres.front());
  json.Key("tags");
  WriteTexts(movie.genres, &json);
  json.Key("features").BeginObject().Key("title").String(movie.title);
  if (movie.year) json.Key("year").Int(*movie.year);
  json.EndObject().Key("attributes").BeginObject().Key("title").String(movie.title);
  if (movie.year) json.Key("year").Int(*movie.year);
  json.Key("genres");
  WriteTexts(movie.genres, &json);
  json.EndObject().Key("timestamp").Int(time_ms).EndObject();
  return json.Take() + "\n";
}

std::string ToLine(const User& user, std::int64_t time_ms) {
  JsonWriter json;
  json.BeginObject().Key("user_id").String(user.id).Key("features").BeginObject();
  json.Key("age").Int(user.age).Key("gender").String(user.gender).Key("occupation").String(user.occupation);
  json.EndObject().Key("timestamp").Int(time_ms).EndObject();
  return json.Take() + "\n";
}

std::string ToLine(const Rating& rating) {
  JsonWriter json;
  json.BeginObject().Key("user_id").String(rating.user).Key("item_id").String(rating.movie);
  json.Key("event").String("rating").Key("value").Double(rating.value);
  json.Key("timestamp").Int(rating.time_ms).EndObject();
  return json.Take() + "\n";
}

// Movies and users carry no time: all are there just before the first rating.
Result<ImportReport> Write(const std::string& out, const std::vector<Movie>& movies, const std::vector<User>& users,
                           const std::vector<Rating>& ratings, const ImportProgress& progress) {
  const std::int64_t start_ms = ratings.empty() ? 0 : std::max<std::int64_t>(0, ratings.front().time_ms - 1);
  std::string lines;
  FRESHET_TRY(CreateDirectories(out));
  for (const Movie& movie : movies) lines += ToLine(movie, start_ms);
  FRESHET_TRY(WriteFileAtomically(out + "/items.jsonl", lines));
  lines.clear();
  for (const User& user : users) lines += ToLine(user, start_ms);
  FRESHET_TRY(WriteFileAtomically(out + "/users.jsonl", lines));
  lines.clear();
  for (const Rating& rating : ratings) lines += ToLine(rating);
  FRESHET_TRY(WriteFileAtomically(out + "/interactions.jsonl", lines));
  if (progress) progress(1, std::to_string(ratings.size()) + " ratings");
  ImportReport report;
  report.items = movies.size();
  report.users = users.size();
  report.interactions = ratings.size();
  return report;
}

}  // namespace

std::string Latin1ToUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      text.push_back(c);
    } else {
      text.push_back(static_cast<char>(0xc0 | (byte >> 6)));
      text.push_back(static_cast<char>(0x80 | (byte & 0x3f)));
    }
  }
  return text;
}

Result<ImportReport> ImportMovieLens100k(const std::string& source, const std::string& out,
                                         const ImportProgress& progress) {
  std::vector<std::string> genres;
  FRESHET_TRY(ReadTable(source + "/u.genre", "|", 2, [&](const std::vector<std::string>& fields) {
    genres.push_back(fields[0]);
    return Status::Ok();
  }));
  constexpr std::size_t kFirstFlag = 5;  // id, title, two dates, URL, then a flag a genre
  std::vector<Movie> movies;
  FRESHET_TRY(
      ReadTable(source + "/u.item", "|", kFirstFlag + genres.size(), [&](const std::vector<std::string>& fields) {
        Movie movie{fields[0], Latin1ToUtf8(Trim(fields[1])), YearOf(Trim(fields[1])), {}};
        for (std::size_t i = 0; i < genres.size(); ++i) {
          if (fields[kFirstFlag + i] == "1") movie.genres.push_back(genres[i]);
        }
        movies.push_back(std::move(movie));
        return Status::Ok();
      }));
  if (progress) progress(0.2, std::to_string(movies.size()) + " movies");
  std::vector<User> users;
  FRESHET_TRY(ReadTable(source + "/u.user", "|", 4, [&](const std::vector<std::string>& fields) -> Status {
    const auto age = ParseInt(fields[1]);
    if (!age) return InvalidArgument("not a user: id, age, gender, occupation");
    users.push_back({fields[0], *age, fields[2], Latin1ToUtf8(fields[3])});
    return Status::Ok();
  }));
  std::vector<Rating> ratings;
  FRESHET_TRY(ReadRatings(source + "/u.data", &ratings));
  return Write(out, movies, users, ratings, progress);
}

Result<ImportReport> ImportMovieLens1m(const std::string& source, const std::string& out,
                                       const ImportProgress& progress) {
  std::vector<Movie> movies;
  FRESHET_TRY(ReadTable(source + "/movies.dat", "::", 3, [&](const std::vector<std::string>& fields) {
    movies.push_back({fields[0], Latin1ToUtf8(Trim(fields[1])), YearOf(Trim(fields[1])), SplitBy(fields[2], "|")});
    return Status::Ok();
  }));
  if (progress) progress(0.2, std::to_string(movies.size()) + " movies");
  std::vector<User> users;
  FRESHET_TRY(ReadTable(source + "/users.dat", "::", 4, [&](const std::vector<std::string>& fields) -> Status {
    const auto age = ParseInt(fields[2]);
    const auto occupation = ParseInt(fields[3]);
    if (!age || !occupation || *occupation < 0 || *occupation >= static_cast<long long>(std::size(kOccupations))) {
      return InvalidArgument("not a user: id, gender, age, occupation");
    }
    users.push_back({fields[0], *age, fields[1], kOccupations[*occupation]});
    return Status::Ok();
  }));
  std::vector<Rating> ratings;
  FRESHET_TRY(ReadRatings(source + "/train_positives.tsv", &ratings));
  return Write(out, movies, users, ratings, progress);
}

}  // namespace freshet
