// What an interaction does to a user. Pure: the same changes in the same order give the same state.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "freshet/encoder/encoded_batch.h"
#include "freshet/store/replica.h"

namespace freshet {

struct HistoryBounds {
  std::size_t history = 50;
  std::size_t seen = 1024;
};

// What a change did to the history: counts of interactions follow it, so that they are always those of the histories.
struct HistoryChange {
  std::vector<HistoryEntry> added;
  std::vector<HistoryEntry> removed;
};

// `user` is nothing where unknown, and becomes nothing when forgotten. An interaction that the history holds already,
// or that is older than all of a full one, changes nothing but, maybe, that its item was seen: so reading a log again
// changes nothing.
inline void ApplyUserChange(const UserChange& change, const HistoryBounds& bounds, std::optional<UserState>* user,
                            HistoryChange* done) {
  if (const auto* update = std::get_if<UserUpdate>(&change.body)) {
    if (update->forgotten) {
      if (*user) done->removed.insert(done->removed.end(), (*user)->history.begin(), (*user)->history.end());
      user->reset();
      return;
    }
    if (!*user) user->emplace();
    (*user)->features = update->features;
    return;
  }
  const auto& interaction = std::get<Interaction>(change.body);
  if (!*user) user->emplace();
  auto& history = (*user)->history;
  auto& seen = (*user)->seen;
  HistoryEntry entry{interaction.item_id, interaction.event, interaction.value,
                     TimeOf(interaction, change.record_timestamp_ms)};
  // In event-time order; a late event goes where it belongs, ties keep log order.
  const auto [first, last] = std::equal_range(history.begin(), history.end(), entry, [](const auto& a, const auto& b) {
    return a.timestamp_ms < b.timestamp_ms;
  });
  const bool duplicate = std::any_of(first, last, [&](const HistoryEntry& known) {
    return known.item_id == entry.item_id && known.event == entry.event && known.value == entry.value;
  });
  if (duplicate) return;
  const bool newest = last == history.end();
  const bool too_old = last == history.begin() && history.size() >= bounds.history;
  if (!too_old) {
    done->added.push_back(entry);
    history.insert(last, std::move(entry));
    if (history.size() > bounds.history) {
      done->removed.push_back(std::move(history.front()));
      history.erase(history.begin());
    }
  }
  // The newest was seen last; a late one is remembered where there is room, and moves nothing.
  const auto known = std::find(seen.begin(), seen.end(), interaction.item_id);
  if (newest) {
    if (known != seen.end()) seen.erase(known);
    seen.push_back(interaction.item_id);
    if (seen.size() > bounds.seen) seen.erase(seen.begin());
  } else if (known == seen.end() && seen.size() < bounds.seen) {
    seen.insert(seen.begin(), interaction.item_id);
  }
}

}  // namespace freshet
