// A scan of every row by its codes: what a search does where so few may be returned that a walk through the graph would
// cost more.
//
// The codes put nearly everything in its place; so the best by them, some more than are asked for, are scored exactly.
// Nothing is missed for want of a way to it. Thread-safe, as the view is. Errors: std::bad_alloc.
#pragma once

#include <cstddef>
#include <vector>

#include "search_view.h"

namespace freshet {

// Best first; exactly min(k, live matching) but for `score_threshold`. The `rescored` (at least k) best by their codes
// are scored exactly.
[[nodiscard]] std::vector<Hit> ScanCodes(const SearchView& view, const float* query, const SearchOptions& options,
                                         std::size_t rescored);

}  // namespace freshet
