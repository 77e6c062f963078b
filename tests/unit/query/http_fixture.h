// What a server of these tests answers from. The server itself is each test's own, and its last member: it goes first.
#pragma once

#include <gtest/gtest.h>

#include "fake_replica.h"
#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_service.h"

namespace freshet::test {

class HttpTest : public ::testing::Test {
 protected:
  FakeReplica replica_;
  FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
  HttpOptions options_;
};

}  // namespace freshet::test
