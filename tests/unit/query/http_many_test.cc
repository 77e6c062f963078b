// As many connections as there may be, and one more.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "http_fixture.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::RawConnection;
using test::WaitFor;

constexpr char kLive[] = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

rlimit FileLimit() {
  rlimit files{};
  EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  return files;
}

class HttpManyTest : public test::HttpTest {
 protected:
  void StartServer() {
    server_ = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    ASSERT_OK(server_->Start());
  }
  double Open() { return metrics_.GetGauge("freshet_http_connections", "").Value(); }
  double Refused() { return metrics_.GetCounter("freshet_http_refused_connections_total", "").Value(); }

  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpManyTest, TheLimitIsRaisedToWhatItMayBe) {
  const rlimit before = FileLimit();
  rlimit low = before;
  low.rlim_cur = std::min<rlim_t>(before.rlim_max, 256);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(RaiseFileLimit(), before.rlim_max);
  EXPECT_EQ(FileLimit().rlim_cur, before.rlim_max);
}

// 10,000, or as many as this process may have open at both ends.
TEST_F(HttpManyTest, TenThousandIdleConnectionsTakeLittleAndOneMoreIsToldSo) {
  const std::uint64_t files = RaiseFileLimit();
  ASSERT_GT(files, 600U);
  const std::size_t many = std::min<std::size_t>(10'000, (files - 500) / 2);
  options_.max_connections = many;
  options_.header_timeout_ms = options_.idle_timeout_ms = 600'000;
  StartServer();
  [[maybe_unused]] const double before = ResidentBytes();
  std::vector<std::unique_ptr<RawConnection>> connections;
  connections.reserve(many);
  for (std::size_t i = 0; i < many; ++i) {
    connections.push_back(std::make_unique<RawConnection>(server_->address()));
    ASSERT_TRUE(connections.back()->Send(kLive)) << i;
    ASSERT_TRUE(connections.back()->ReadAnswer().starts_with("HTTP/1.1 200 ")) << i;
  }
  EXPECT_EQ(Open(), static_cast<double>(many));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT((ResidentBytes() - before) / static_cast<double>(many), 10'000) << "1,000 of them may take 10 MB";
#endif
  const std::string refusal = RawConnection(server_->address()).ReadToEnd();
  EXPECT_TRUE(refusal.starts_with("HTTP/1.1 503 ")) << refusal;
  EXPECT_NE(refusal.find("Retry-After: 1\r\n"), std::string::npos) << refusal;
  EXPECT_NE(refusal.find("urn:freshet:problem:too-many-connections"), std::string::npos) << refusal;
  EXPECT_EQ(Refused(), 1);
  for (const std::size_t i : {std::size_t{0}, many / 2, many - 1}) {
    ASSERT_TRUE(connections[i]->Send(kLive));
    EXPECT_TRUE(connections[i]->ReadAnswer().starts_with("HTTP/1.1 200 ")) << "the others go on";
  }
  connections.clear();
  EXPECT_TRUE(WaitFor([&] { return Open() == 0; }));
}

TEST_F(HttpManyTest, WithoutAFileForItAConnectionIsToldSoToo) {
  StartServer();
  RawConnection first(server_->address());
  ASSERT_TRUE(first.Send(kLive));
  ASSERT_TRUE(first.ReadAnswer().starts_with("HTTP/1.1 200 "));
  const rlimit before = FileLimit();
  {
    RawConnection late(server_->address(), [&](int fd) {
      // It got the lowest that was free: no other is below.
      rlimit none = before;
      none.rlim_cur = static_cast<rlim_t>(fd) + 1;
      ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    });
    const std::string refusal = late.ReadToEnd();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_TRUE(refusal.starts_with("HTTP/1.1 503 ")) << refusal;
  }
  EXPECT_EQ(Refused(), 1);
  ASSERT_TRUE(first.Send(kLive));
  EXPECT_TRUE(first.ReadAnswer().starts_with("HTTP/1.1 200 "));
  RawConnection next(server_->address());
  ASSERT_TRUE(next.Send(kLive));
  EXPECT_TRUE(next.ReadAnswer().starts_with("HTTP/1.1 200 "));
}

}  // namespace
}  // namespace freshet
