// Golden inputs and outputs: what the towers, and the re-ranker, must answer before they are trusted. `goldens.json`,
// both ways. Plain values, thread-compatible.
#pragma once

#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/encoder/reranker.h"

namespace freshet {

struct RerankGolden {
  UserContext user;
  std::vector<float> user_vector;
  std::vector<RerankCandidate> candidates;
  std::vector<float> scores;  // parallel to candidates
};

struct Goldens {
  double tolerance = 1e-4;        // of each value of a vector; of a score, or of its size where that is above 1
  std::vector<ItemUpdate> items;  // `vector` holds the expected output
  std::vector<UserContext> users;
  std::vector<std::vector<float>> user_vectors;  // parallel to users
  std::vector<RerankGolden> reranks;
};

[[nodiscard]] std::string GoldensToJson(const Goldens& goldens);
// Errors: kCorruption with the reason.
[[nodiscard]] Result<Goldens> GoldensFromJson(const std::string& text, int dim);

// Runs the encoder over the goldens. Errors: kCorruption, which golden and how far it is off; transient ones of the
// encoder as they are.
Status CheckGoldens(const Goldens& goldens, Metric metric, ItemEncoder* encoder);
Status CheckGoldens(const Goldens& goldens, Metric metric, const UserEncoder& encoder);
Status CheckGoldens(const Goldens& goldens, const Reranker& reranker);

}  // namespace freshet
