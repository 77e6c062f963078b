// Named places where tests (and the brave) make things go wrong.
//
// Place in the flow: before and after every write, rename, publish and trim. Disarmed, a point costs one relaxed load.
// Armed by the environment variable FRESHET_FAULTS or ArmFaults(): comma-separated `point=action[@N]`, where action is
// `kill` (SIGKILL to ourselves), `error` (returns kUnavailable), `stop` (returns kInternal) or `sleep:MS`, done at the
// N-th pass only (default 1). Thread-safe.
#pragma once

#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

// Replaces what was armed. Errors: kConfig for a malformed plan, which then arms nothing.
Status ArmFaults(std::string_view plan);
// Arms from FRESHET_FAULTS where it is set.
Status ArmFaultsFromEnvironment();

// Ok, unless this pass is the one that was asked to fail.
Status FaultPoint(std::string_view name);

}  // namespace freshet
