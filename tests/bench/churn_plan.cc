#include "churn_plan.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <random>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"

namespace freshet::bench {
namespace {

class PlanBuilder {
 public:
  explicit PlanBuilder(std::string name) { plan_.name = std::move(name); }

  std::vector<Label> Insert(const std::vector<std::uint32_t>& rows) {
    ChurnStep step{ChurnStep::Kind::kInsert, {}};
    for (const std::uint32_t row : rows) {
      step.labels.push_back(plan_.row_of.size());
      plan_.row_of.push_back(row);
    }
    plan_.live += rows.size();
    plan_.max_live = std::max(plan_.max_live, plan_.live);
    const std::size_t reused = std::min(free_, rows.size());
    free_ -= reused;
    plan_.max_slots += rows.size() - reused;
    std::vector<Label> labels = step.labels;
    plan_.steps.push_back(std::move(step));
    return labels;
  }
  void Delete(std::vector<Label> labels) {
    plan_.live -= labels.size();
    free_ += labels.size();
    plan_.steps.push_back({ChurnStep::Kind::kDelete, std::move(labels)});
  }
  void Search() { plan_.steps.push_back({ChurnStep::Kind::kSearch, {}}); }
  [[nodiscard]] std::size_t live() const { return plan_.live; }
  [[nodiscard]] ChurnPlan Take() { return std::move(plan_); }

 private:
  ChurnPlan plan_;
  std::size_t free_ = 0;
};

// [first, last) of a step's keys, scaled.
struct Range {
  std::size_t first = 0;
  std::size_t last = 0;
};

Result<Range> ReadRange(const YamlNode& step, const char* first, const char* last, double scale) {
  Range range;
  for (const auto& [key, to] : {std::pair{first, &range.first}, std::pair{last, &range.last}}) {
    const YamlNode* node = step.Find(key);
    const auto number = node == nullptr ? std::nullopt : ParseInt(node->scalar);
    if (!number || *number < 0) return InvalidArgument(StrCat("line ", step.line, ": ", key, " must be a number"));
    *to = static_cast<std::size_t>(std::llround(static_cast<double>(*number) * scale));
  }
  if (range.first > range.last) return InvalidArgument(StrCat("line ", step.line, ": an empty range"));
  return range;
}

std::vector<std::uint32_t> Rows(const Range& range) {
  std::vector<std::uint32_t> rows;
  for (std::size_t row = range.first; row < range.last; ++row) rows.push_back(static_cast<std::uint32_t>(row));
  return rows;
}

// The labels that tags have, by tag; a tag is a row's number when it came, and kept when its vector is replaced.
class Tags {
 public:
  void Put(std::size_t tag, Label label) {
    if (tag >= labels_.size()) labels_.resize(tag + 1);
    labels_[tag] = label;
  }
  Result<std::vector<Label>> Take(const Range& range) {
    std::vector<Label> labels;
    for (std::size_t tag = range.first; tag < range.last; ++tag) {
      if (tag >= labels_.size() || !labels_[tag]) return InvalidArgument(StrCat("tag ", tag, " is not live"));
      labels.push_back(*labels_[tag]);
      labels_[tag].reset();
    }
    return labels;
  }

 private:
  std::vector<std::optional<Label>> labels_;
};

Status AddStep(const YamlNode& step, double scale, PlanBuilder* plan, Tags* tags) {
  const YamlNode* node = step.Find("operation");
  const std::string operation = node == nullptr ? "" : node->scalar;
  if (operation == "search") {
    plan->Search();
  } else if (operation == "insert") {
    FRESHET_ASSIGN(const Range range, ReadRange(step, "start", "end", scale));
    const std::vector<Label> labels = plan->Insert(Rows(range));
    for (std::size_t i = 0; i < labels.size(); ++i) tags->Put(range.first + i, labels[i]);
  } else if (operation == "delete") {
    FRESHET_ASSIGN(const Range range, ReadRange(step, "start", "end", scale));
    FRESHET_ASSIGN(std::vector<Label> labels, tags->Take(range));
    plan->Delete(std::move(labels));
  } else if (operation == "replace") {
    FRESHET_ASSIGN(const Range range, ReadRange(step, "tags_start", "tags_end", scale));
    FRESHET_ASSIGN(const Range rows, ReadRange(step, "ids_start", "ids_end", scale));
    FRESHET_ASSIGN(std::vector<Label> labels, tags->Take(range));
    if (rows.last - rows.first != labels.size()) return InvalidArgument(StrCat("line ", step.line, ": sizes differ"));
    plan->Delete(std::move(labels));
    const std::vector<Label> fresh = plan->Insert(Rows(rows));
    for (std::size_t i = 0; i < fresh.size(); ++i) tags->Put(range.first + i, fresh[i]);
  } else {
    return InvalidArgument(StrCat("line ", step.line, ": operation `", operation, "`"));
  }
  return Status::Ok();
}

}  // namespace

Result<ChurnPlan> ReadRunbook(const std::string& path, const std::string& name, std::size_t rows) {
  FRESHET_ASSIGN(const std::string text, ReadFile(path));
  FRESHET_ASSIGN(const YamlNode root, ParseYaml(text, path));
  if (!root.IsMapping() || root.members.empty()) return InvalidArgument(path + ": not a runbook");
  const YamlNode& set = root.members.front().second;
  // The steps are numbered from 1; beside them the file may hold max_pts and a URL.
  double points = 0;
  for (const auto& [key, step] : set.members) {
    for (const char* end : {"end", "ids_end"}) {
      const YamlNode* node = step.Find(end);
      if (node != nullptr) points = std::max(points, ParseDouble(node->scalar).value_or(0));
    }
  }
  if (points <= 0) return InvalidArgument(path + ": no points");
  PlanBuilder plan(name);
  Tags tags;
  for (std::size_t number = 1;; ++number) {
    const YamlNode* step = set.Find(StrCat(number));
    if (step == nullptr) break;
    const Status added = AddStep(*step, static_cast<double>(rows) / points, &plan, &tags);
    if (!added.ok()) return added.Prefixed(path);
  }
  return plan.Take();
}

ChurnPlan Turnover(const std::string& name, const std::vector<std::uint32_t>& group_of, std::size_t live,
                   std::size_t times, std::uint64_t seed) {
  std::vector<std::vector<std::uint32_t>> groups(*std::max_element(group_of.begin(), group_of.end()) + 1);
  for (std::uint32_t row = 0; row < group_of.size(); ++row) groups[group_of[row]].push_back(row);
  std::erase_if(groups, [](const auto& group) { return group.empty(); });
  std::mt19937_64 random(seed);
  std::shuffle(groups.begin(), groups.end(), random);
  std::deque<std::size_t> waiting;
  for (std::size_t i = 0; i < groups.size(); ++i) waiting.push_back(i);

  PlanBuilder plan(name);
  std::vector<std::pair<std::size_t, std::vector<Label>>> live_groups;
  std::size_t inserted = 0;
  const auto fill = [&] {
    std::vector<std::uint32_t> rows;
    std::vector<std::size_t> added;
    while (plan.live() + rows.size() < live && !waiting.empty()) {
      const std::size_t group = waiting.front();
      waiting.pop_front();
      rows.insert(rows.end(), groups[group].begin(), groups[group].end());
      added.push_back(group);
    }
    const std::vector<Label> labels = plan.Insert(rows);
    inserted += rows.size();
    auto at = labels.begin();
    for (const std::size_t group : added) {
      const auto end = at + static_cast<std::ptrdiff_t>(groups[group].size());
      live_groups.emplace_back(group, std::vector<Label>(at, end));
      at = end;
    }
  };
  fill();
  plan.Search();
  inserted = 0;
  for (std::size_t searches = 1; searches <= times;) {
    const std::size_t pick = random() % live_groups.size();
    plan.Delete(live_groups[pick].second);
    waiting.push_back(live_groups[pick].first);
    live_groups.erase(live_groups.begin() + static_cast<std::ptrdiff_t>(pick));
    fill();
    if (inserted < searches * live) continue;
    plan.Search();
    ++searches;
  }
  return plan.Take();
}

ChurnPlan Drift(const std::string& name, std::size_t rows, std::size_t live, std::size_t times) {
  constexpr std::size_t kPieces = 10;  // of a turnover
  PlanBuilder plan(name);
  std::deque<Label> window;
  std::size_t next = 0;
  const auto insert = [&](std::size_t count) {
    std::vector<std::uint32_t> piece;
    for (std::size_t i = 0; i < count; ++i) piece.push_back(static_cast<std::uint32_t>(next++ % rows));
    for (const Label label : plan.Insert(piece)) window.push_back(label);
  };
  insert(live);
  plan.Search();
  const std::size_t piece = std::max<std::size_t>(1, live / kPieces);
  for (std::size_t i = 1; i <= times * kPieces; ++i) {
    const auto end = window.begin() + static_cast<std::ptrdiff_t>(piece);
    plan.Delete({window.begin(), end});
    window.erase(window.begin(), end);
    insert(piece);
    if (i % kPieces == 0) plan.Search();
  }
  return plan.Take();
}

}  // namespace freshet::bench
