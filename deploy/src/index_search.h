// The index that serves, over vectors that are at hand: for mining negatives in training, and for ANN recall.
//
// Place in the flow: private to the command line, which may know both the encoder and the index.
#pragma once

#include <cstddef>

#include "freshet/encoder/evaluation.h"

namespace freshet {

// Built anew for each set of items, which are remembered. `ef`: search effort, 0: as serving chooses it. One thread at
// a time.
[[nodiscard]] SearchIndex SearchByIndex(std::size_t ef);

}  // namespace freshet
