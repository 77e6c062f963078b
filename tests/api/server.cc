// A server for the tests of the API's contract: the real doors and the real recall over a replica in memory.
//
//   freshet_api_server      prints its address, and serves until its standard input ends
#include <cstdio>
#include <iostream>
#include <string>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_server.h"

int main() {
  using namespace freshet;
  test::FakeReplica replica;
  for (int i = 0; i < 50; ++i) {
    Attributes attributes = {{"added", std::string("2011-05-30T08:00:00Z")},
                             {"category", std::string(i % 2 == 0 ? "film" : "book")},
                             {"in_stock", i % 3 == 0},
                             {"price", 0.5 * i},
                             {"tags", std::vector<std::string>{"x", "y"}},
                             {"year", std::int64_t{1980 + i}}};
    replica.Put(StrCat("item-", i), {1.0F, 0.1F * static_cast<float>(i)}, std::move(attributes));
  }
  UserState user;
  user.features = {{"age", 33.0}, {"tags", std::vector<std::string>{"x"}}};
  user.history = {{"item-1", "view", 1, 1'306'863'000'000}};
  user.seen = {"item-1"};
  replica.users["user-1"] = user;
  replica.popular = {{"item-3", 2.5}, {"item-4", 1}};
  // As fresh as can be asked for: a `min_as_of` of the year 4693 would rightly be answered 503, which a tool takes for
  // a fault.
  replica.as_of = 253'402'300'799'999;
  const test::FakeUserEncoder encoder;
  const SystemClock clock;
  Metrics metrics;
  const test::FakeReranker reranker;
  const RecallService service(&replica, &encoder, &clock, &metrics, {}, &reranker);
  const auto server = MakeHttpServer(
      {}, &service, &metrics, {}, [] { return std::string(R"({"items_live":50})"); }, [] {});
  if (const Status started = server->Start(); !started.ok()) {
    (void)std::fprintf(stderr, "freshet_api_server: %s\n", started.ToString().c_str());
    return 1;
  }
  std::cout << server->address() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  server->Stop();
  return 0;
}
