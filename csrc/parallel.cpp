#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace pipnet {
namespace {

using Body = std::function<void(std::int64_t, std::int64_t, int)>;

// Workers wait on a condition variable; a job is published under the mutex by a new generation number.
class Pool {
 public:
  bool try_run(std::int64_t count, int threads, const Body& body) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    threads = std::min(threads, 1 + grow(threads - 1));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      count_ = count;
      parts_ = threads;
      running_ = threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    run_part(body, count, threads, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    return true;
  }

 private:
  static void run_part(const Body& body, std::int64_t count, int parts, int part) {
    const std::int64_t begin = count * part / parts, end = count * (part + 1) / parts;
    if (begin < end) body(begin, end, part);
  }

  // Starts threads up to this many workers, or as many as the system allows; returns how many there are.
  int grow(int workers) {
    try {
      while (workers_ < workers) {
        // Starts after the present generation, so that it does not take part in a job published before it.
        std::thread(&Pool::work, this, workers_ + 1, generation_).detach();
        ++workers_;
      }
    } catch (const std::system_error&) {
      // The callers' own threads carry on.
    }
    return workers_;
  }

  void work(int index, std::uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= parts_) continue;
      const Body& body = *body_;
      const std::int64_t count = count_;
      const int parts = parts_;
      lock.unlock();
      run_part(body, count, parts, index);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_;  // held by the caller whose job runs
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_, done_;
  std::uint64_t generation_ = 0;
  const Body* body_ = nullptr;
  std::int64_t count_ = 0;
  int parts_ = 0, running_ = 0;
  int workers_ = 0;  // changed by the owner alone
};

// Leaked on purpose: workers may outlive static destruction, and a forked child must not join the parent's.
std::atomic<Pool*> pool{new Pool};

#if !defined(_WIN32)
// A forked child has none of the parent's threads, and perhaps its locked mutexes: it starts with a new pool.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { pool.store(new Pool); });
#endif

}  // namespace

int worthwhile_threads(std::int64_t work, std::int64_t per_thread, int threads) {
  const std::int64_t useful = 1 + (kSplitAlways ? work : work / per_thread);
  return static_cast<int>(std::clamp<std::int64_t>(useful, 1, std::max(1, threads)));
}

void parallel_for(std::int64_t count, int threads, const Body& body) {
  threads = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (threads > 1 && pool.load()->try_run(count, threads, body)) return;
  if (count > 0) body(0, count, 0);
}

}  // namespace pipnet
