// Searches that stay in their place until a gate is opened: what tests of places and of the queue stand on, whatever
// the protocol. A fixture inherits it, first, so that it outlives a server that still searches.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "fake_replica.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

class HeldSearches {
 protected:
  // An item and three users that can be searched for, by one thread.
  void HoldSearches(FakeReplica* replica, FakeUserEncoder* encoder, HttpOptions* options) {
    replica->Put("a", {1, 0});
    for (const char* user : {"busy", "first", "second"}) replica->users[user].history = {{"a", "view", 1, 1}};
    options->threads = 1;
    options->request_timeout_ms = 30'000;
    // Whoever is searched for stays in its place until the gate is opened.
    encoder->on_encode = [this](const UserContext& user) {
      {
        const std::lock_guard lock(mu_);
        searched_.push_back(user.user_id);
      }
      ++inside_;
      EXPECT_TRUE(WaitFor([&] { return gate_is_open_.load(); }));
    };
  }
  [[nodiscard]] bool PlaceIsTaken() {
    return WaitFor([&] { return inside_ == 1; });
  }
  [[nodiscard]] std::vector<std::string> Searched() {
    const std::lock_guard lock(mu_);
    return searched_;
  }

  std::atomic<bool> gate_is_open_{false};

 private:
  std::mutex mu_;
  std::vector<std::string> searched_;  // guarded by mu_
  std::atomic<int> inside_{0};
};

}  // namespace freshet::test
