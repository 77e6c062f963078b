// Filters as people write them, and as JSON.
//
// Place in the flow: `freshet query --filter` reads the language and sends JSON; POST /v1/recall reads JSON. Both are
// described in query/README.md. Stateless. The bounds of filter.h hold in both.
#pragma once

#include <string>
#include <string_view>

#include "freshet/core/json.h"
#include "freshet/core/status.h"
#include "freshet/store/filter.h"

namespace freshet {

// `category = "film" and year >= 1990` as the JSON of a request's `filter`.
// Errors: kInvalidArgument, "column 12: ..." (columns count code points, from 1).
[[nodiscard]] Result<std::string> FilterTextToJson(std::string_view text);

// A request's `filter`. Errors: kInvalidArgument, the message starts with the JSON pointer, beneath `pointer`.
[[nodiscard]] Result<Filter> ParseFilter(const JsonValue& value, const std::string& pointer = "/filter");

}  // namespace freshet
