// Golden inputs and outputs: what the towers must answer before they are trusted. `goldens.json`, both ways.
// Plain values, thread-compatible.
#pragma once

#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"

namespace freshet {

struct Goldens {
  double tolerance = 1e-4;        // of each value of a vector
  std::vector<ItemUpdate> items;  // `vector` holds the expected output
  std::vector<UserContext> users;
  std::vector<std::vector<float>> user_vectors;  // parallel to users
};

[[nodiscard]] std::string GoldensToJson(const Goldens& goldens);
// Errors: kCorruption with the reason.
[[nodiscard]] Result<Goldens> GoldensFromJson(const std::string& text, int dim);

// Runs the encoder over the goldens. Errors: kCorruption, which golden and how far it is off; transient ones of the
// encoder as they are.
Status CheckGoldens(const Goldens& goldens, Metric metric, ItemEncoder* encoder);
Status CheckGoldens(const Goldens& goldens, Metric metric, const UserEncoder& encoder);

}  // namespace freshet
