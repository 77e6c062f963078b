#include "command_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"

namespace freshet {
namespace {

const std::vector<std::string> kSections = {"schema", "split", "features", "train", "evaluate"};

std::string OptionName(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

// The keys that a section may hold: the command's long options.
std::vector<std::string> KeysOf(const CLI::App& command) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : command.get_options()) {
    for (std::string name : option->get_lnames()) {
      if (name == "help" || name == "config") continue;
      std::replace(name.begin(), name.end(), '-', '_');
      keys.push_back(std::move(name));
    }
  }
  return keys;
}

Status At(const std::string& file, int line, const std::string& what) {
  return ConfigError(StrCat(file, ":", line, ": ", what));
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates) {
  const auto nearest = Nearest(word, candidates);
  return nearest ? StrCat(": did you mean `", *nearest, "`?") : "";
}

Status ApplyOne(CLI::App* command, const std::string& key, const YamlNode& value, const std::string& file) {
  const std::vector<std::string> keys = KeysOf(*command);
  CLI::Option* option = command->get_option_no_throw(OptionName(key));
  if (option == nullptr || std::find(keys.begin(), keys.end(), key) == keys.end()) {
    return At(file, value.line, StrCat("there is no setting `", key, "`", DidYouMean(key, keys)));
  }
  if (option->count() > 0) return Status::Ok();
  try {
    if (value.IsSequence()) {
      for (const YamlNode& item : value.items) option->add_result(item.scalar);
    } else if (value.IsScalar()) {
      // A flag may stand for the opposite of its name: `no_report: true` takes the report away.
      const bool flag = option->get_items_expected_max() == 0;
      option->add_result(flag ? option->get_flag_value(OptionName(key).substr(2), value.scalar) : value.scalar);
    } else if (value.IsMapping() && option->get_items_expected_max() > 1) {
      // NAME=VALUE, as on the command line.
      for (const auto& [name, of] : value.members) {
        if (!of.IsScalar()) return At(file, value.line, StrCat("`", key, "`: `", name, "` must have a value"));
        option->add_result(StrCat(name, "=", of.scalar));
      }
    } else {
      return At(file, value.line, StrCat("`", key, "` must be a value or a list of values"));
    }
    option->run_callback();
  } catch (const CLI::Error& e) {
    return At(file, value.line, e.what());
  }
  return Status::Ok();
}

}  // namespace

std::optional<std::int64_t> ParseTime(std::string_view text) {
  if (const auto ms = ParseInt(text); ms && *ms >= 0) return *ms;
  if (text.ends_with('Z')) text.remove_suffix(1);
  const std::string_view date = text.substr(0, 10);
  if (date.size() != 10 || date[4] != '-' || date[7] != '-') return std::nullopt;
  const auto year = ParseInt(date.substr(0, 4));
  const auto month = ParseInt(date.substr(5, 2));
  const auto day = ParseInt(date.substr(8, 2));
  if (!year || !month || !day) return std::nullopt;
  const std::chrono::year_month_day ymd{std::chrono::year(static_cast<int>(*year)),
                                        std::chrono::month(static_cast<unsigned>(*month)),
                                        std::chrono::day(static_cast<unsigned>(*day))};
  if (!ymd.ok()) return std::nullopt;
  std::int64_t seconds = std::chrono::sys_days(ymd).time_since_epoch().count() * std::int64_t{86'400};
  std::string_view time = text.substr(10);
  if (!time.empty()) {
    if ((time[0] != 'T' && time[0] != ' ') || (time.size() != 6 && time.size() != 9) || time[3] != ':')
      return std::nullopt;
    const auto hours = ParseInt(time.substr(1, 2));
    const auto minutes = ParseInt(time.substr(4, 2));
    const auto rest = time.size() == 9 && time[6] == ':' ? ParseInt(time.substr(7, 2)) : std::optional<long long>(0);
    if (!hours || !minutes || !rest || *hours < 0 || *hours > 23 || *minutes < 0 || *minutes > 59 || *rest < 0 ||
        *rest > 59) {
      return std::nullopt;
    }
    seconds += *hours * 3600 + *minutes * 60 + *rest;
  }
  return seconds * 1000;
}

Result<std::int64_t> TimeOption(const char* option, const std::string& text) {
  if (text.empty()) return std::int64_t{0};
  if (const auto time = ParseTime(text)) return *time;
  return ConfigError(
      StrCat(option, ": `", text, "` is no time; give 2011-04-26, 2011-04-26T12:30:00Z or Unix milliseconds"));
}

Result<SplitOptions> SplitArguments::Read() const {
  SplitOptions result = split;
  FRESHET_ASSIGN(result.validation_from_ms, TimeOption("--validation-from", validation_from));
  FRESHET_ASSIGN(result.test_from_ms, TimeOption("--test-from", test_from));
  FRESHET_ASSIGN(result.test_until_ms, TimeOption("--test-until", test_until));
  const bool dated = !validation_from.empty() || !test_from.empty() || !test_until.empty();
  if (kind.empty()) {
    result.kind = dated ? SplitKind::kTime : SplitKind::kFraction;
  } else {
    FRESHET_ASSIGN(result.kind, ParseSplitKind(kind));
    if (dated && result.kind != SplitKind::kTime) {
      return ConfigError(StrCat("the split `", kind,
                                "` has no dates: leave --validation-from, --test-from and "
                                "--test-until out, or split by time"));
    }
  }
  FRESHET_TRY(result.Validate());
  return result;
}

void AddSplitOptions(CLI::App* command, SplitArguments* arguments) {
  SplitOptions& split = arguments->split;
  const std::string group = "Split";
  command
      ->add_option("--split", arguments->kind,
                   "fraction and time: by time; last-item: each user's last is test, the one before validation; random")
      ->check(CLI::IsMember({"fraction", "time", "last-item", "random"}))
      ->group(group);
  command
      ->add_option("--validation-fraction", split.validation_fraction,
                   "Share of the interactions that chooses the epoch, before the test part")
      ->capture_default_str()
      ->group(group);
  command->add_option("--test-fraction", split.test_fraction, "Share that judges; training does not look at it")
      ->capture_default_str()
      ->group(group);
  command->add_option("--validation-from", arguments->validation_from, "Start of the validation part (ISO date, UTC)")
      ->group(group);
  command->add_option("--test-from", arguments->test_from, "Start of the test part")->group(group);
  command->add_option("--test-until", arguments->test_until, "End of the test part")->group(group);
  command
      ->add_option(
          "--events", split.events,
          "What the validation and the test part ask for: interactions of these events. All stand in histories, "
          "and train\nby their weights")
      ->delimiter(',')
      ->group(group);
  command->add_option("--split-seed", split.seed, "Of the random split")->capture_default_str()->group(group);
}

ConfigFileOption::ConfigFileOption(CLI::App* command, std::string section, ReadSection features, ReadSection schema)
    : command_(command), section_(std::move(section)), features_(std::move(features)), schema_(std::move(schema)) {
  command->add_option("--config", *file_,
                      StrCat("YAML: sections `split` and `", section_, "` with these options, underscores for dashes",
                             schema_ ? ";\n`schema` says where things are in a line of the files" : "",
                             features_ ? ";\n`features` says what to make of single features" : ""));
}

Status ConfigFileOption::Apply() const {
  if (file_->empty()) return Status::Ok();
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  FRESHET_ASSIGN(const std::string text, ReadFile(*file_, kMaxBytes));
  FRESHET_ASSIGN(const YamlNode root, ParseYaml(text, *file_));
  if (!root.IsMapping()) return At(*file_, 1, "sections are wanted: schema, split, features, train, evaluate");
  std::string mistakes;
  const auto note = [&](const Status& status) {
    if (!status.ok()) mistakes += (mistakes.empty() ? "" : "\n  ") + status.message();
  };
  for (std::size_t i = 0; i < root.members.size(); ++i) {
    const auto& [name, body] = root.members[i];
    if (std::find(kSections.begin(), kSections.end(), name) == kSections.end()) {
      note(At(*file_, root.member_lines[i], StrCat("there is no section `", name, "`", DidYouMean(name, kSections))));
      continue;
    }
    if (name == "features" && features_) note(features_(body, *file_));
    if (name == "schema" && schema_) note(schema_(body, *file_));
    if (name != "split" && name != section_) continue;
    if (!body.IsMapping()) {
      note(At(*file_, root.member_lines[i], StrCat("`", name, "` must hold settings")));
      continue;
    }
    for (const auto& [key, value] : body.members) {
      note(ApplyOne(command_, name == "split" && key == "kind" ? "split" : key, value, *file_));
    }
  }
  return mistakes.empty() ? Status::Ok() : ConfigError(mistakes);
}

}  // namespace freshet
