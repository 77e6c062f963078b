// The sidecar: follow the changelog, run the user tower, answer.
//
// Place in the flow: the composition root of `freshet sidecar`. It has a store of its own, so that a restart continues
// where it stopped, and the same applying and answering code as the engine; it encodes no items. When the engine has
// changed its model it goes on answering in the space that it has, until it can move over whole: then it wants to be
// started anew. As Engine otherwise.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "freshet/core/status.h"
#include "freshet/deploy/config.h"

namespace freshet {

class Sidecar {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Sidecar>> Start(const Config& config,
                                                              const std::function<void(double)>& rebuild_progress = {});
  virtual ~Sidecar() = default;
  [[nodiscard]] virtual Status status() const = 0;
  virtual Status Stop() = 0;
  // Stop() it and Start() it again: the next one is of another embedding space.
  [[nodiscard]] virtual bool wants_restart() const = 0;
  [[nodiscard]] virtual std::string http_address() const = 0;
  [[nodiscard]] virtual const Applier& applier() const = 0;
  [[nodiscard]] virtual const Store& store() const = 0;
  [[nodiscard]] virtual const RecallService& recall() const = 0;
};

}  // namespace freshet
