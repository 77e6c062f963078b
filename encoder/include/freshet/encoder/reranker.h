// Candidates of a recall, scored once more by all that is known where a query is answered.
//
// Place in the flow: after the search, before the answer; made by a model package that brings one, called by query's
// RecallService. It sees vectors of one embedding space, space_id(). Thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/ingest/event.h"

namespace freshet {

struct RerankCandidate {
  ItemUpdate item;       // its id, its vector (dim floats), and features: where reads_features(), of its attributes
  float similarity = 0;  // the score of the recall
  float popularity = 0;  // ln(1 + the decayed count of its interactions)
  float age_hours = -1;  // since it last changed, by log time; below 0: not known
};

class Reranker {
 public:
  virtual ~Reranker() = default;
  [[nodiscard]] virtual int dim() const = 0;
  [[nodiscard]] virtual const std::string& space_id() const = 0;
  // Whether the candidates' features are looked at.
  [[nodiscard]] virtual bool reads_features() const = 0;
  // One score a candidate, higher is better. `user` is empty where it was not a user who asked; `user_vector` is what
  // was searched with. REQUIRES: scores.size() == candidates.size(). All or nothing. Errors: kInvalidArgument when the
  // script refuses the input, or returns another shape or numbers that are not finite; kResourceExhausted; kInternal
  // when it is the model or LibTorch that fails. A call that does not come back ends the process.
  [[nodiscard]] virtual Status Score(const UserContext& user, std::span<const float> user_vector,
                                     std::span<const RerankCandidate> candidates, std::span<float> scores) const = 0;
};

// What a re-ranker's item features are made of: booleans and numbers as numbers, texts and lists of texts as they are.
// Lists of numbers and booleans are left out.
[[nodiscard]] Features FeaturesOfAttributes(const Attributes& attributes);

}  // namespace freshet
