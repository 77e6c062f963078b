#include "dataset.h"

#include <algorithm>
#include <limits>

#include "freshet/core/strings.h"
#include "freshet/ingest/event_file.h"

namespace freshet {
namespace {

constexpr const char* kDatedLaterAdvice =
    "where that is the time of an export or of the last change, leave out `timestamp`, or give items with their "
    "history";

// Numbers for ids, in order of appearance.
class Numbering {
 public:
  std::int32_t Of(const std::string& id) {
    return numbers_.emplace(id, static_cast<std::int32_t>(numbers_.size())).first->second;
  }
  [[nodiscard]] std::int32_t Find(const std::string& id) const {
    const auto found = numbers_.find(id);
    return found == numbers_.end() ? -1 : found->second;
  }
  [[nodiscard]] std::size_t size() const { return numbers_.size(); }

 private:
  std::unordered_map<std::string, std::int32_t> numbers_;
};

// One version of an entity, in the order of its file.
template <typename Update>
struct Version {
  Update update;
  std::int64_t timestamp_ms = 0;
};

class Loader {
 public:
  explicit Loader(const DatasetOptions& options) : options_(options) {}

  Result<Dataset> Load() {
    FRESHET_TRY(options_.split.Validate());
    FRESHET_TRY(ReadItemVersions());
    FRESHET_TRY(ReadForgettings());
    FRESHET_TRY(ReadInteractions());
    FRESHET_TRY(CheckAskedEvents());
    Cut();
    FRESHET_TRY(PickItems());
    FRESHET_TRY(PickPositives());
    FRESHET_TRY(ReadUsers());
    TellLeftOut();
    return std::move(data_);
  }

 private:
  struct Raw {
    std::int32_t user = 0;
    std::int32_t item = 0;  // by id numbers, not yet by candidates
    std::int64_t timestamp_ms = 0;
    std::int32_t event = 0;
    double value = 1;
  };

  // The last one of a user.
  struct Forgetting {
    std::int64_t at_ms = 0;
    std::int64_t event = 0;  // its number in the file
  };

  [[nodiscard]] bool Seen(std::int64_t timestamp_ms) const {
    return options_.until_ms == 0 || timestamp_ms < options_.until_ms;
  }
  [[nodiscard]] std::string Before() const { return options_.until_ms == 0 ? "" : " before --until"; }

  Status ReadItemVersions() {
    FRESHET_TRY(ForEachEvent(options_.items_file, TopicRole::kItems, options_.schemas.Of(TopicRole::kItems),
                             DecodeLimits{}, [&](Event&& event, double) {
                               auto* item = std::get_if<ItemUpdate>(&event.body);
                               if (item == nullptr || !Seen(event.record_timestamp_ms)) return Status::Ok();
                               const auto number = static_cast<std::size_t>(item_ids_.Of(item->item_id));
                               if (number == versions_.size()) {
                                 versions_.emplace_back();
                                 has_deletes_.push_back(false);
                               }
                               if (item->deleted) has_deletes_[number] = true;
                               item->attributes = {};  // nothing here reads them
                               versions_[number].push_back({std::move(*item), event.record_timestamp_ms});
                               return Status::Ok();
                             }));
    return std::any_of(versions_.begin(), versions_.end(), EverLived) ? Status::Ok() : NoItems();
  }

  // Whether an item was not deleted by that time, as one knew then. One that is first seen later stands: catalogues are
  // often dated by their export.
  [[nodiscard]] bool StoodAt(std::size_t number, std::int64_t time_ms) const {
    if (!has_deletes_[number]) return true;
    const Version<ItemUpdate>* last = nullptr;
    for (const auto& version : versions_[number]) {
      if (version.timestamp_ms <= time_ms) last = &version;
    }
    return last != nullptr ? !last->update.deleted : EverLived(versions_[number]);
  }

  static bool EverLived(const std::vector<Version<ItemUpdate>>& versions) {
    return std::any_of(versions.begin(), versions.end(), [](const auto& version) { return !version.update.deleted; });
  }

  [[nodiscard]] Status NoItems() const {
    return InvalidArgument(StrCat(options_.items_file, ": holds no items", Before()));
  }

  // Whenever it was said, behind the judged part too: it is a wish, and tells nothing of what people took.
  Status ReadForgettings() {
    if (options_.users_file.empty()) return Status::Ok();
    std::int64_t number = 0;
    return ForEachEvent(options_.users_file, TopicRole::kUsers, options_.schemas.Of(TopicRole::kUsers), DecodeLimits{},
                        [&](Event&& event, double) {
                          ++number;
                          const auto* user = std::get_if<UserUpdate>(&event.body);
                          if (user == nullptr || !user->forgotten) return Status::Ok();
                          // One without a time is of now, as in the engine.
                          const std::int64_t at_ms = event.record_timestamp_ms > 0
                                                         ? event.record_timestamp_ms
                                                         : std::numeric_limits<std::int64_t>::max();
                          Forgetting& last = forgotten_[user->user_id];
                          last = {std::max(last.at_ms, at_ms), number};
                          return Status::Ok();
                        });
  }

  // Whether this is something that a user did before he was forgotten.
  [[nodiscard]] bool IsForgotten(const Interaction& interaction) const {
    const auto found = forgotten_.find(interaction.user_id);
    return found != forgotten_.end() && interaction.timestamp_ms <= found->second.at_ms;
  }

  // Of a part whose items all come later.
  [[nodiscard]] Status OnlyLaterItems() const {
    return InvalidArgument(
        StrCat(options_.items_file, ": each of its items that stand is dated ", JudgedEnd(), ": ", kDatedLaterAdvice));
  }
  [[nodiscard]] std::string JudgedEnd() const {
    return StrCat("at or behind the end of the ", options_.judged == Part::kTest ? "test" : "validation", " part (",
                  judged_until_ms_, ")");
  }

  Status ReadInteractions() {
    FRESHET_TRY(ForEachEvent(
        options_.interactions_file, TopicRole::kInteractions, options_.schemas.Of(TopicRole::kInteractions),
        DecodeLimits{}, [&](Event&& event, double) {
          const auto* one = std::get_if<Interaction>(&event.body);
          if (one == nullptr || !Seen(one->timestamp_ms) || !IsTaken(one->value) || IsForgotten(*one)) {
            return Status::Ok();
          }
          const std::int32_t item = item_ids_.Find(one->item_id);
          if (item < 0 || !StoodAt(static_cast<std::size_t>(item), one->timestamp_ms)) {
            if (data_.unknown_items++ == 0) data_.first_unknown = one->item_id;
            return Status::Ok();
          }
          raw_.push_back({user_ids_.Of(one->user_id), item, one->timestamp_ms, events_.Of(one->event), one->value});
          if (events_.size() > data_.event_names.size()) data_.event_names.push_back(one->event);
          if (user_ids_.size() > user_names_.size()) user_names_.push_back(one->user_id);
          return Status::Ok();
        }));
    if (!raw_.empty()) return Status::Ok();
    if (data_.unknown_items > 0) {
      return InvalidArgument(StrCat(options_.interactions_file, ": none of its items is in ", options_.items_file,
                                    " (the first is `", data_.first_unknown, "`): are these files of the same shop?"));
    }
    return InvalidArgument(StrCat(options_.interactions_file, ": holds no positive interactions", Before()));
  }

  // One that never happens is a slip of the pen, and would pass for an empty part.
  Status CheckAskedEvents() {
    const std::vector<std::string>& asked = options_.split.events;
    for (const std::string& event : asked) {
      if (events_.Find(event) < 0) {
        return ConfigError(StrCat("events: no interaction of ", options_.interactions_file, " is a `", event, "`",
                                  EventsThatThereAre(event, data_.event_names)));
      }
    }
    for (const std::string& name : data_.event_names) {
      asked_.push_back(asked.empty() || std::find(asked.begin(), asked.end(), name) != asked.end());
    }
    return Status::Ok();
  }

  void Cut() {
    std::stable_sort(raw_.begin(), raw_.end(),
                     [](const Raw& a, const Raw& b) { return a.timestamp_ms < b.timestamp_ms; });
    std::vector<SplitEvent> events;
    events.reserve(raw_.size());
    for (const Raw& one : raw_) events.push_back({one.user, one.timestamp_ms});
    split_ = SplitEvents(options_.split, events);
    const bool test = options_.judged == Part::kTest;
    data_.judged_from_ms = test ? split_.test_from_ms : split_.validation_from_ms;
    judged_until_ms_ = test ? split_.test_until_ms : split_.test_from_ms;
  }

  // An item as it was when the judged part began; one that came, or came back, within it enters as it then was. What
  // becomes of an item later is the future: that it is deleted must neither hide it nor what was taken of it.
  Version<ItemUpdate>* AsKnown(std::vector<Version<ItemUpdate>>* versions) const {
    Version<ItemUpdate>* before = nullptr;
    Version<ItemUpdate>* within = nullptr;
    for (auto& version : *versions) {
      if (version.timestamp_ms < data_.judged_from_ms) {
        before = &version;
      } else if (within == nullptr && version.timestamp_ms < judged_until_ms_ && !version.update.deleted) {
        within = &version;
      }
    }
    return before != nullptr && !before->update.deleted ? before : within;
  }

  // That an item is dated later than its interactions is no deletion: its file is dated otherwise than they are.
  [[nodiscard]] bool DatedLater(const std::vector<Version<ItemUpdate>>& versions) const {
    return EverLived(versions) && std::all_of(versions.begin(), versions.end(), [&](const auto& version) {
             return version.update.deleted || version.timestamp_ms >= judged_until_ms_;
           });
  }

  Status PickItems() {
    candidate_.assign(versions_.size(), -1);
    dated_later_.assign(versions_.size(), false);
    for (std::size_t number = 0; number < versions_.size(); ++number) {
      auto& versions = versions_[number];
      auto* picked = AsKnown(&versions);
      if (picked == nullptr) {
        dated_later_[number] = DatedLater(versions);
        continue;
      }
      std::int64_t first_ms = picked->timestamp_ms;
      for (const auto& version : versions) {
        if (!version.update.deleted) first_ms = std::min(first_ms, version.timestamp_ms);
      }
      candidate_[number] = static_cast<std::int32_t>(data_.items.size());
      data_.items.push_back(std::move(picked->update));
      data_.item_first_ms.push_back(first_ms);
      versions = {};
    }
    if (!data_.items.empty()) return Status::Ok();
    const bool later = std::find(dated_later_.begin(), dated_later_.end(), true) != dated_later_.end();
    return later ? OnlyLaterItems() : NoItems();
  }

  Status PickPositives() {
    std::vector<std::int32_t> user_number(user_names_.size(), -1);
    for (std::size_t i = 0; i < raw_.size(); ++i) {
      const Raw& one = raw_[i];
      const Part part = split_.parts[i];
      if (part == Part::kNone || (part == Part::kTest && options_.judged != Part::kTest)) continue;
      const std::int32_t item = candidate_[static_cast<std::size_t>(one.item)];
      if (item < 0) {
        const bool later = dated_later_[static_cast<std::size_t>(one.item)];
        ++(later ? data_.later_items : data_.unknown_items);
        continue;
      }
      std::int32_t& user = user_number[static_cast<std::size_t>(one.user)];
      if (user < 0) {
        user = static_cast<std::int32_t>(data_.users.size());
        data_.users.emplace_back().user_id = user_names_[static_cast<std::size_t>(one.user)];
      }
      data_.positives.push_back(
          {user, item, one.timestamp_ms, part, one.event, one.value, asked_[static_cast<std::size_t>(one.event)]});
    }
    return Status::Ok();
  }

  void TellLeftOut() {
    if (data_.unknown_items > 0) {
      const std::string first =
          data_.first_unknown.empty() ? "" : StrCat(" (the first is `", data_.first_unknown, "`)");
      data_.warnings.push_back(StrCat(options_.interactions_file, ": ", data_.unknown_items,
                                      " interactions are left out: their items are not in ", options_.items_file,
                                      ", or were deleted by then", first,
                                      ": give the items of the whole time, those no longer sold too"));
    }
    if (data_.later_items > 0) {
      data_.warnings.push_back(StrCat(options_.interactions_file, ": ", data_.later_items,
                                      " interactions are left out: ", options_.items_file, " dates their items ",
                                      JudgedEnd(), ", when they were not known yet: ", kDatedLaterAdvice));
    }
  }

  // A profile as it was when the judged part began; of users who came later the first one. What was said of a user
  // before he was forgotten is gone.
  Status ReadUsers() {
    if (options_.users_file.empty()) return Status::Ok();
    std::unordered_map<std::string, std::size_t> numbers;
    for (std::size_t i = 0; i < data_.users.size(); ++i) numbers.emplace(data_.users[i].user_id, i);
    std::vector<bool> known(data_.users.size());
    std::int64_t number = 0;
    return ForEachEvent(
        options_.users_file, TopicRole::kUsers, options_.schemas.Of(TopicRole::kUsers), DecodeLimits{},
        [&](Event&& event, double) {
          ++number;
          auto* user = std::get_if<UserUpdate>(&event.body);
          if (user == nullptr || !Seen(event.record_timestamp_ms) || event.record_timestamp_ms >= judged_until_ms_) {
            return Status::Ok();
          }
          const auto found = numbers.find(user->user_id);
          if (found == numbers.end()) return Status::Ok();
          const auto forgotten = forgotten_.find(user->user_id);
          if (forgotten != forgotten_.end() && number <= forgotten->second.event) return Status::Ok();
          if (known[found->second] && event.record_timestamp_ms >= data_.judged_from_ms) return Status::Ok();
          known[found->second] = true;
          data_.users[found->second].features = std::move(user->features);
          return Status::Ok();
        });
  }

  const DatasetOptions& options_;
  Dataset data_;
  Numbering item_ids_;
  Numbering user_ids_;
  Numbering events_;
  std::vector<std::vector<Version<ItemUpdate>>> versions_;  // per item id
  std::vector<bool> has_deletes_;                           // per item id
  std::vector<std::string> user_names_;
  std::unordered_map<std::string, Forgetting> forgotten_;
  std::vector<bool> asked_;  // per event
  std::vector<Raw> raw_;
  std::vector<std::int32_t> candidate_;  // per item id: number of the candidate, or -1
  std::vector<bool> dated_later_;        // per item id
  SplitResult split_;
  std::int64_t judged_until_ms_ = 0;
};

}  // namespace

std::string EventsThatThereAre(const std::string& event, const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 20;
  if (const auto nearest = Nearest(event, names)) return StrCat(": did you mean `", *nearest, "`?");
  std::string all;
  for (std::size_t i = 0; i < std::min(names.size(), kMost); ++i) all += StrCat(i == 0 ? "`" : ", `", names[i], "`");
  return StrCat("; there are ", all);
}

Result<Dataset> LoadDataset(const DatasetOptions& options) { return Loader(options).Load(); }

}  // namespace freshet
