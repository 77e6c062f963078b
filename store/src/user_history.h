// What an interaction does to a user. Pure: the same changes in the same order give the same state.
#pragma once

#include <algorithm>
#include <optional>

#include "freshet/encoder/encoded_batch.h"
#include "freshet/store/replica.h"

namespace freshet {

struct HistoryBounds {
  std::size_t history = 50;
  std::size_t seen = 1024;
};

// `user` is nothing where unknown, and becomes nothing when forgotten.
inline void ApplyUserChange(const UserChange& change, const HistoryBounds& bounds, std::optional<UserState>* user) {
  if (const auto* update = std::get_if<UserUpdate>(&change.body)) {
    if (update->forgotten) {
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
  HistoryEntry entry{interaction.item_id, interaction.event, interaction.value, interaction.timestamp_ms};
  // In event-time order; a late event goes where it belongs, ties keep log order.
  const auto at = std::upper_bound(history.begin(), history.end(), entry,
                                   [](const auto& a, const auto& b) { return a.timestamp_ms < b.timestamp_ms; });
  history.insert(at, std::move(entry));
  if (history.size() > bounds.history) history.erase(history.begin());
  auto& seen = (*user)->seen;
  const auto known = std::find(seen.begin(), seen.end(), interaction.item_id);
  if (known != seen.end()) seen.erase(known);
  seen.push_back(interaction.item_id);
  if (seen.size() > bounds.seen) seen.erase(seen.begin());
}

}  // namespace freshet
