// What a tower's calls ask of a device that works on its own: queues, and what waits for what.
//
// Place in the flow: under device_calls of the LibTorch adapter; a GPU's streams in service, threads in tests. Work of
// one queue runs in its order, work of different queues at the same time. Not thread-safe: one caller.
#pragma once

#include <functional>

namespace freshet {

class DeviceQueues {
 public:
  // Results go back through two, so that the one part is waited for while the other is still computed.
  enum Queue { kCopyIn, kCompute, kCopyOutEven, kCopyOutOdd, kQueues };

  virtual ~DeviceQueues() = default;
  // Puts work into a queue; it may run before this returns, or later. What it throws is thrown here or by Finish.
  virtual void Put(Queue queue, const std::function<void()>& work) = 0;
  // What is put into `later` from now on waits until all that `earlier` holds now is done.
  virtual void After(Queue later, Queue earlier) = 0;
  // Waits until all that the queue holds is done.
  virtual void Finish(Queue queue) = 0;
  // Whether the device still does a simple thing. A GPU whose context an error has destroyed never does again.
  [[nodiscard]] virtual bool Alive() = 0;
};

}  // namespace freshet
