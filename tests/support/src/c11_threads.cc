// Under ThreadSanitizer only: C11 threads by way of pthreads.
//
// Debian's librdkafka uses <threads.h>, whose functions GCC 12's ThreadSanitizer does not know: it would not see its
// threads start, and crash in them. These definitions stand before the C library's and lead to what it does know.
// glibc's mtx_t and cnd_t are storage for a pthread mutex and condition variable.
#include <pthread.h>
#include <threads.h>

#include <cerrno>
#include <new>

namespace {

static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t) && sizeof(cnd_t) == sizeof(pthread_cond_t));

struct Start {
  thrd_start_t function;
  void* argument;
};

void* Run(void* opaque) {
  const Start start = *static_cast<Start*>(opaque);
  delete static_cast<Start*>(opaque);
  return reinterpret_cast<void*>(static_cast<long>(start.function(start.argument)));  // NOLINT: what C11 prescribes
}

pthread_mutex_t* Mutex(mtx_t* mutex) { return reinterpret_cast<pthread_mutex_t*>(mutex); }
pthread_cond_t* Condition(cnd_t* condition) { return reinterpret_cast<pthread_cond_t*>(condition); }

int Code(int error) {
  switch (error) {
    case 0:
      return thrd_success;
    case EBUSY:
      return thrd_busy;
    case ETIMEDOUT:
      return thrd_timedout;
    case ENOMEM:
      return thrd_nomem;
    default:
      return thrd_error;
  }
}

}  // namespace

extern "C" {

int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
  return Code(pthread_create(thread, nullptr, &Run, new Start{function, argument}));
}
int thrd_join(thrd_t thread, int* result) {
  void* value = nullptr;
  const int error = pthread_join(thread, &value);
  if (result != nullptr) *result = static_cast<int>(reinterpret_cast<long>(value));  // NOLINT: what C11 prescribes
  return Code(error);
}
int thrd_detach(thrd_t thread) { return Code(pthread_detach(thread)); }

int mtx_init(mtx_t* mutex, int type) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  if ((type & mtx_recursive) != 0) pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  const int error = pthread_mutex_init(Mutex(mutex), &attributes);
  pthread_mutexattr_destroy(&attributes);
  return Code(error);
}
void mtx_destroy(mtx_t* mutex) { pthread_mutex_destroy(Mutex(mutex)); }
int mtx_lock(mtx_t* mutex) { return Code(pthread_mutex_lock(Mutex(mutex))); }
int mtx_trylock(mtx_t* mutex) { return Code(pthread_mutex_trylock(Mutex(mutex))); }
int mtx_unlock(mtx_t* mutex) { return Code(pthread_mutex_unlock(Mutex(mutex))); }

int cnd_init(cnd_t* condition) { return Code(pthread_cond_init(Condition(condition), nullptr)); }
void cnd_destroy(cnd_t* condition) { pthread_cond_destroy(Condition(condition)); }
int cnd_signal(cnd_t* condition) { return Code(pthread_cond_signal(Condition(condition))); }
int cnd_broadcast(cnd_t* condition) { return Code(pthread_cond_broadcast(Condition(condition))); }
int cnd_wait(cnd_t* condition, mtx_t* mutex) { return Code(pthread_cond_wait(Condition(condition), Mutex(mutex))); }
int cnd_timedwait(cnd_t* condition, mtx_t* mutex, const struct timespec* until) {
  return Code(pthread_cond_timedwait(Condition(condition), Mutex(mutex), until));
}

}  // extern "C"
