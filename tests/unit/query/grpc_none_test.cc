// A build without gRPC.
#include <gtest/gtest.h>

#include "freshet_test/test_support.h"
#include "http_fixture.h"

namespace freshet {
namespace {

using GrpcNoneTest = test::HttpTest;

TEST_F(GrpcNoneTest, WhoAsksForGrpcIsToldWhatToDo) {
  options_.grpc_listen = "127.0.0.1:0";
  const auto server = MakeHttpServer(options_, &service_, &metrics_, {}, {});
  const Status started = server->Start();
  EXPECT_EQ(started.code(), Code::kConfig);
  EXPECT_EQ(started.message(),
            "grpc_listen: this freshet was built without gRPC: leave it out, or build with -DFRESHET_GRPC=ON "
            "(query/README.md)");
  EXPECT_EQ(server->grpc_address(), "");
}

}  // namespace
}  // namespace freshet
