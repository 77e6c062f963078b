// The engine: ingest -> encode -> apply -> publish, and answers where `query:` is configured.
//
// Place in the flow: the composition root of `freshet run`; the tests run it in process. Start() returns when
// everything is up; Stop() goes left to right: stop reading, drain, commit, publish, stop answering. Destroying without
// Stop() does the same. What was not stored when the process ends is read again from the stored offsets.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "freshet/core/status.h"
#include "freshet/deploy/config.h"

namespace freshet {

class Engine {
 public:
  // Errors: kConfig, kUnavailable (broker), kCorruption, kFailedPrecondition (see Store and ModelPackage).
  [[nodiscard]] static Result<std::unique_ptr<Engine>> Start(const Config& config,
                                                             const std::function<void(double)>& rebuild_progress = {});
  virtual ~Engine() = default;
  // Ok while all stages run; else why the first of them stopped.
  [[nodiscard]] virtual Status status() const = 0;
  virtual Status Stop() = 0;
  [[nodiscard]] virtual std::string http_address() const = 0;  // empty without `query:`
  [[nodiscard]] virtual const Applier& applier() const = 0;
  [[nodiscard]] virtual const Store& store() const = 0;
  [[nodiscard]] virtual const RecallService& recall() const = 0;
};

}  // namespace freshet
