// freshet_bench sidecar: the same questions while changes are applied.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "freshet/core/queue.h"
#include "sidecar_load.h"
#include "sidecar_world.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kK = 100;
constexpr std::size_t kUpdatesPerSecond = 2'000;
constexpr std::size_t kCatchUpBatch = 512;

// Brings changes until it goes: so many a second, or (0) as fast as they are taken.
class Changes {
 public:
  Changes(SidecarWorld* world, std::size_t per_second, BoundedQueue<EncodedBatch>* queue)
      : writer_([this, world, per_second, queue] {
          constexpr auto kEvery = std::chrono::milliseconds(10);
          const std::size_t count = per_second > 0 ? per_second / 100 : kCatchUpBatch;
          std::unique_lock lock(mu_);
          for (auto at = std::chrono::steady_clock::now(); !done_;) {
            lock.unlock();
            const bool taken = queue->Push(world->Updates(count), 1);
            lock.lock();
            if (!taken) return;
            applied_ += count;
            if (per_second > 0) wake_.wait_until(lock, at += kEvery, [&] { return done_; });
          }
        }) {}
  ~Changes() {
    {
      const std::lock_guard lock(mu_);
      done_ = true;
    }
    wake_.notify_all();
    writer_.join();
  }
  Changes(const Changes&) = delete;
  Changes& operator=(const Changes&) = delete;
  [[nodiscard]] std::size_t applied() const { return applied_; }

 private:
  std::mutex mu_;
  std::condition_variable wake_;
  bool done_ = false;
  std::atomic<std::size_t> applied_{0};
  std::thread writer_;
};

}  // namespace

Status RunFollowing(SidecarWorld* world, const std::string& address, const SidecarBenchOptions& options,
                    Report* report) {
  FRESHET_ASSIGN(const std::unique_ptr<LoadConnection> connection, LoadConnection::Open(address));
  std::vector<std::string> requests;
  const test::VectorSet& queries = world->queries();
  for (std::size_t i = 0; i < queries.size; ++i) {
    requests.push_back(BinaryRequest({queries.Row(i), static_cast<std::size_t>(queries.dim)}, kK));
  }
  const LoadCall call = [&](std::size_t, std::size_t i) {
    return connection->Call(requests[i % requests.size()]).status();
  };
  std::vector<double> steady;
  std::vector<double> following;
  std::vector<double> catching_up;
  std::vector<double> per_second;
  BoundedQueue<EncodedBatch> queue(8, std::size_t{64} << 20);
  world->applier()->Start(&queue, {});
  const auto ask = [&](std::vector<double>* to) {
    FRESHET_ASSIGN(const LoadResult result, ClosedLoop(call, 1, options.calls));
    to->push_back(result.p99_us);
    return Status::Ok();
  };
  // What was brought is applied and linked.
  const auto settle = [&] {
    while (queue.size() > 0) WaitUntil(Seconds() + 1e-3);
    return world->Settle();
  };
  const auto rounds = [&] {
    for (std::size_t round = 0; round < options.rounds; ++round) {
      FRESHET_TRY(settle());
      FRESHET_TRY(ask(&steady));
      {
        const Changes changes(world, kUpdatesPerSecond, &queue);
        FRESHET_TRY(ask(&following));
      }
      const Changes changes(world, 0, &queue);
      const double begin = Seconds();
      FRESHET_TRY(ask(&catching_up));
      per_second.push_back(static_cast<double>(changes.applied()) / (Seconds() - begin));
    }
    return Status::Ok();
  };
  const Status asked = rounds();
  queue.Close();
  world->applier()->Join();
  FRESHET_TRY(asked);
  FRESHET_TRY(world->applier()->status());
  const auto add = [&](const char* name, double updates, const std::vector<double>& p99_us, double most) {
    report->rows.push_back(
        {name,
         false,
         {{"k", "100"}, {"loop", "closed, 1 asks"}},
         {{"updates_per_second", updates}, {"steady_p99_us", Median(steady)}, {"p99_us", Median(p99_us)}}});
    report->goals.push_back(
        {std::string(name) + ", p99 to steady, ratio", most, Median(p99_us) / Median(steady), true});
  };
  add("HTTP, binary, following", kUpdatesPerSecond, following, 1.5);
  add("HTTP, binary, catching up", Median(per_second), catching_up, 2);
  return Status::Ok();
}

}  // namespace freshet::bench
