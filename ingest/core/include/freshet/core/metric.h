// How vectors are compared, and what a vector must be to be compared at all.
//
// Place in the flow: encoders prepare what they put out, the query path what it is asked, the index relies on both.
// Thread-safe.
#pragma once

#include <span>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

enum class Metric { kCosine, kInnerProduct, kL2 };
[[nodiscard]] const char* MetricName(Metric metric);  // "cosine", "ip", "l2"
// Errors: kConfig.
[[nodiscard]] Result<Metric> ParseMetric(std::string_view name);

// Checks a vector and normalises it for cosine. Errors: kInvalidArgument (dimension, NaN, infinity, zero length).
Status PrepareVector(Metric metric, int dim, std::span<float> vector);

}  // namespace freshet
