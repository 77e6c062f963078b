// Is what a replica answers, stores and indexes exactly what the oracle says?
#pragma once

#include <string>

#include "freshet/query/recall_service.h"
#include "freshet/store/applier.h"
#include "freshet/store/store.h"
#include "freshet_test/oracle.h"

namespace freshet::test {

// Empty when all agree; else the first difference. Looks at the store (items, vectors, attributes), the index (labels,
// one to one), and the answers: an exact search for everything returns each live item once, scored by its newest
// vector.
[[nodiscard]] std::string Differs(const Oracle& oracle, const Applier& applier, const Store& store,
                                  const RecallService& recall);

}  // namespace freshet::test
