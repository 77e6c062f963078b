// Systems that are judged: they score every candidate for a user.
//
// Place in the flow: private to judging. Not thread-safe. A scorer sees what lies before the judged part, and nothing
// else.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/encoder/package.h"

namespace freshet {

// What is known when judging begins.
struct EvaluationHistory {
  std::vector<ItemUpdate> items;                // the candidates
  std::vector<UserContext> users;               // with history, oldest first
  std::vector<std::vector<std::int32_t>> seen;  // per user: items of the history, oldest first
  std::vector<std::int64_t> counts;             // per item: interactions of the history
  std::vector<std::int64_t> recent_counts;      // per item: those of its newest part
};

class Scorer {
 public:
  explicit Scorer(std::string name) : name_(std::move(name)) {}
  virtual ~Scorer() = default;
  [[nodiscard]] const std::string& name() const { return name_; }
  // `out` holds users.size() rows of a score an item, higher is better; -infinity: not recommended at all.
  virtual Status Score(std::span<const std::int32_t> users, std::span<float> out) = 0;

 private:
  const std::string name_;
};

// One that scores by vectors of users and items, as serving does.
class VectorScorer : public Scorer {
 public:
  using Scorer::Scorer;
  [[nodiscard]] virtual int dim() const = 0;
  [[nodiscard]] virtual Metric metric() const = 0;
  // Of all candidates, row after row; the row of one that the model refuses is another's.
  [[nodiscard]] virtual std::span<const float> items() const = 0;
  // `out` holds users.size() rows; those of whom the model refuses are zeros, and their numbers go to `refused`.
  virtual Status Embed(std::span<const std::int32_t> users, std::span<float> out,
                       std::vector<std::size_t>* refused) = 0;
  // Of rows of vectors, whosoever they are, as Score().
  virtual Status ScoreVectors(std::span<const float> vectors, std::span<float> out) const = 0;
};

// The same counts for everybody.
[[nodiscard]] std::unique_ptr<Scorer> MakeCountScorer(std::string name, const std::vector<std::int64_t>& counts);
[[nodiscard]] std::unique_ptr<Scorer> MakeRandomScorer(std::uint64_t seed);
// The towers of a package: all items are embedded here. Those that the model refuses are recommended to nobody, as in
// serving; a warning names the first. `history` outlives the scorer. Errors: as BatchEmbedder; kInvalidArgument, every
// item is refused.
[[nodiscard]] Result<std::unique_ptr<VectorScorer>> MakeModelScorer(std::string name, const ModelPackage& package,
                                                                    const EvaluationHistory& history);
// Another system's output, JSON lines: {"user_id": "u", "items": ["best", "next", ...]} or {"user_id": "u", "scores":
// {"item": 1.5, ...}}. Unknown items and users are left out, but not all of them; a user without a line gets nothing.
// Errors: kNotFound, kInvalidArgument (file:line), kIoError.
[[nodiscard]] Result<std::unique_ptr<Scorer>> MakeListScorer(std::string name, const std::string& file,
                                                             const EvaluationHistory& history);

}  // namespace freshet
