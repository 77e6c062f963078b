// Comparing index, catalog and store: all at once where nothing is applied, and a page at a time while batches go on.
#include <algorithm>
#include <chrono>

#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/applier.h"

namespace freshet {
namespace {

constexpr Label kNoLabel = ~Label{0};  // none that is given is as high

using Rows = std::vector<std::pair<Label, std::string>>;

// Times pages, and waits between them.
class Pacer {
 public:
  explicit Pacer(const AuditPace& pace) : pace_(pace) {}
  // Errors: kCancelled.
  Status BetweenPages() {
    using std::chrono::microseconds;
    if (!pace_.wait) return Status::Ok();
    const auto worked = std::chrono::steady_clock::now() - begin_;
    const double wanted = std::chrono::duration<double, std::micro>(worked).count() * (1 / pace_.share - 1);
    if (!pace_.wait(microseconds(static_cast<std::int64_t>(wanted)))) return Cancelled("the audit was stopped");
    begin_ = std::chrono::steady_clock::now();
    return Status::Ok();
  }

 private:
  const AuditPace& pace_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Of those up to `to`, what is in one of them alone.
struct Differences {
  std::vector<Label> missing;  // not in the index
  std::vector<Label> ghosts;   // in the index alone
};
Differences Compare(const Rows& stored, const std::vector<Label>& indexed, Label to) {
  Differences found;
  std::vector<Label> labels;
  labels.reserve(stored.size());
  for (const auto& [label, id] : stored) {
    if (label <= to) labels.push_back(label);
  }
  const auto end = std::upper_bound(indexed.begin(), indexed.end(), to);
  std::set_difference(labels.begin(), labels.end(), indexed.begin(), end, std::back_inserter(found.missing));
  std::set_difference(indexed.begin(), end, labels.begin(), labels.end(), std::back_inserter(found.ghosts));
  return found;
}

// Up to where pages of both have been read whole.
Label EndOf(const Rows& stored, const std::vector<Label>& indexed, std::size_t max) {
  Label to = kNoLabel;
  if (stored.size() == max) to = std::min(to, stored.back().first);
  if (indexed.size() == max) to = std::min(to, indexed.back());
  return to;
}

}  // namespace

Status Applier::Audit() const {
  std::vector<Label> stored;
  std::size_t items = 0;
  FRESHET_TRY(store_->ForEachItem([&](std::string_view id, const ItemRow& row) {
    ++items;
    stored.push_back(row.label);
    if (catalog_.StoredLabelOf(id) != row.label) {
      return Corruption(StrCat("item `", id, "` is stored under another label than the catalog has"));
    }
    return Status::Ok();
  }));
  if (catalog_.live() + catalog_.hidden() != items) {
    return Corruption(
        StrCat("the catalog has ", catalog_.live() + catalog_.hidden(), " live items, the store ", items));
  }
  std::sort(stored.begin(), stored.end());
  const std::vector<Label> indexed = index_->LiveLabels();
  if (indexed != stored) {
    return Corruption(
        StrCat("the index has ", indexed.size(), " live labels, the store ", stored.size(), ", or they differ"));
  }
  return Status::Ok();
}

Result<std::uint64_t> Applier::AuditAndRepair(const AuditPace& pace) {
  std::uint64_t repaired = 0;
  Pacer pacer(pace);
  for (Label from = 0;;) {
    FRESHET_TRY(FaultPoint("audit.before_page"));
    FRESHET_ASSIGN(const Rows stored, store_->LabelsFrom(from, pace.page_rows));
    const std::vector<Label> indexed = index_->LiveLabelsFrom(from, pace.page_rows);
    const Label to = EndOf(stored, indexed, pace.page_rows);
    const Differences found = Compare(stored, indexed, to);
    if (!found.missing.empty() || !found.ghosts.empty()) {
      FRESHET_ASSIGN(const std::uint64_t differences, RepairAtRest(from, to, pace.page_rows));
      repaired += differences;
    }
    if (to == kNoLabel) break;
    from = to + 1;
    FRESHET_TRY(pacer.BetweenPages());
  }
  return repaired;
}

// Most of what differed came or went while we looked. At rest everything that is committed is visible: what differs
// then, differs. `max` rows at most are looked at; labels are given in ascending order, so what was added since is
// above `to` or in the last page.
Result<std::uint64_t> Applier::RepairAtRest(Label from, Label to, std::size_t max) {
  std::uint64_t repaired = 0;
  const Status done = AtRest([&]() -> Status {
    FRESHET_ASSIGN(const Rows stored, store_->LabelsFrom(from, max));
    const std::vector<Label> indexed = index_->LiveLabelsFrom(from, max);
    const Differences found = Compare(stored, indexed, std::min(to, EndOf(stored, indexed, max)));
    for (const auto& [label, id] : stored) {
      if (!std::binary_search(found.missing.begin(), found.missing.end(), label)) continue;
      FRESHET_ASSIGN(const std::optional<ItemRow> row, store_->GetItem(id));
      if (!row || row->label != label) {
        return Corruption(StrCat("label ", label, " names item `", id, "`, which has another"));
      }
    }
    index_->Tombstone(found.ghosts);
    FRESHET_TRY(InsertStored(found.missing, {}));
    repaired = found.missing.size() + found.ghosts.size();
    return Status::Ok();
  });
  if (!done.ok()) return done;
  if (repaired > 0) {
    audit_differences_.Add(static_cast<double>(repaired));
    LogError("store", "index and store differed; repaired from the store", {{"differences", StrCat(repaired)}});
  }
  return repaired;
}

Result<IndexHealth> Applier::AuditIndex(const AuditPace& pace) {
  Pacer pacer(pace);
  AuditOptions options;
  if (pace.wait) options.between = [&pacer] { return pacer.BetweenPages().ok(); };
  return index_->Audit(options);
}

Result<StoreCheck> Applier::AuditStore(const AuditPace& pace) const {
  StoreCheck check;
  Pacer pacer(pace);
  for (std::string from;;) {
    FRESHET_ASSIGN(std::optional<std::string> next,
                   store_->CheckNumbers(options_.items_topic, from, pace.page_rows, &check));
    if (!next) return check;
    from = std::move(*next);
    FRESHET_TRY(pacer.BetweenPages());
  }
}

}  // namespace freshet
