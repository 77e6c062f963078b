// ANN recall: how much of a model's own ranking an index finds, apart from whether that ranking is any good.
//
// Place in the flow: private to judging. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "freshet/core/status.h"
#include "freshet/encoder/evaluation.h"
#include "scorers.h"

namespace freshet {

// Of these users (each once), by every K of `options`. Whom the model refuses is left out:
// `users` may be 0, then all is 0. Errors: of the model and of
// `search`; kInternal where that answers for other queries, or with what is no item.
[[nodiscard]] Result<AnnRecall> JudgeIndex(VectorScorer* model, std::span<const std::int32_t> users,
                                           const EvaluateOptions& options, const SearchIndex& search);

}  // namespace freshet
