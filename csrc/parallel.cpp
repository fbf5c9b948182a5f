#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace pipnet {
namespace {

using Body = std::function<void(std::int64_t)>;

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Looks for some ten microseconds whether `done` holds: going to sleep and being woken takes longer.
template <class Done>
bool spin_until(const Done& done) {
  for (int i = 0; i < 512; ++i) {
    if (done()) return true;
    pause();
  }
  return false;
}

// How many Awake there are.
std::atomic<int> awake{0};

// The same for as long as there is an Awake; yielding, so that where there are more threads than cores those with work
// get on.
template <class Done>
void stay_until(const Done& done) {
  while (!spin_until(done) && awake.load(std::memory_order_relaxed) > 0) std::this_thread::yield();
}

// One job at a time, published under the mutex by a new generation number; its items are taken one by one by
// whoever is free. The caller never waits for a worker that has not begun: on a busy machine it does all alone.
// Who does wait for another spins for a short while, then sleeps on a condition variable.
class Pool {
  struct Worker {
    std::thread::native_handle_type handle;
#if defined(__linux__)
    cpu_set_t free;  // where it may run unless it is pinned
#endif
  };

 public:
  bool try_run(std::int64_t count, int threads, const Body& body) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    grow(threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      count_ = count;
      next_ = 0;
      wanted_ = welcome_ = threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    take_items(body, count);
    std::unique_lock<std::mutex> lock(mutex_);
    welcome_ = 0;
    lock.unlock();
    const auto alone = [this] { return running_ == 0; };
    stay_until(alone);
    lock.lock();
    alone_.wait(lock, alone);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return true;
  }

  void pin(const std::vector<int>& cores) {
    std::lock_guard<std::mutex> owner(owner_);
    cores_ = cores;
    for (std::size_t i = 0; i < workers_.size(); ++i) pin_worker(i);
  }

 private:
  void take_items(const Body& body, std::int64_t count) {
    try {
      for (std::int64_t item; (item = next_.fetch_add(1)) < count;) body(item);
    } catch (...) {
      next_ = count;
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
  }

  // Starts threads up to this many workers, or as many as the system allows.
  void grow(int workers) {
    try {
      while (static_cast<int>(workers_.size()) < workers) {
        const std::size_t index = workers_.size();
        workers_.reserve(index + 1);
        std::thread thread(&Pool::work, this, static_cast<int>(index), generation_.load());
        workers_.emplace_back();
        workers_.back().handle = thread.native_handle();
        thread.detach();
#if defined(__linux__)
        pthread_getaffinity_np(workers_.back().handle, sizeof(cpu_set_t), &workers_.back().free);
#endif
        if (!cores_.empty()) pin_worker(index);
      }
    } catch (const std::system_error&) {
      // The callers' own threads carry on.
    }
  }

  // The first core is the caller's.
  void pin_worker(std::size_t i) {
#if defined(__linux__)
    cpu_set_t set = workers_[i].free;
    if (!cores_.empty()) {
      CPU_ZERO(&set);
      CPU_SET(static_cast<std::size_t>(cores_[(i + 1) % cores_.size()]), &set);
    }
    pthread_setaffinity_np(workers_[i].handle, sizeof set, &set);  // a core that there is no more: it stays where it is
#else
    (void)i;
#endif
  }

  void work(int index, std::uint64_t seen) {
    const auto published = [&] { return generation_ != seen; };
    for (;;) {
      // Only those that the last job had work for: others would take the cores of threads that have some.
      if (index < wanted_.load(std::memory_order_relaxed)) stay_until(published);
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, published);
      seen = generation_;
      if (welcome_ == 0) continue;
      --welcome_;
      ++running_;
      const Body& body = *body_;
      const std::int64_t count = count_;
      lock.unlock();
      take_items(body, count);
      lock.lock();
      if (--running_ == 0) alone_.notify_one();
    }
  }

  std::mutex owner_;  // held by the caller whose job runs
  std::mutex mutex_;  // guards what follows; atomic is what is looked at without it too
  std::condition_variable wake_, alone_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<std::int64_t> next_{0};
  std::atomic<int> running_{0};  // workers
  std::atomic<int> wanted_{0};   // workers that the last job could use
  const Body* body_ = nullptr;
  std::int64_t count_ = 0;
  std::exception_ptr error_;
  int welcome_ = 0;  // workers that may still join the job
  // Of the owner alone.
  std::vector<Worker> workers_;
  std::vector<int> cores_;
};

// Leaked on purpose: workers may outlive static destruction, and a forked child must not join the parent's.
std::atomic<Pool*> pool{new Pool};

#if !defined(_WIN32)
// A forked child has none of the parent's threads, and perhaps its locked mutexes: it starts with a new pool.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  pool.store(new Pool);
  awake.store(0);
});
#endif

#if defined(__linux__)
// The first that a thread cannot be pinned to. One of its own tries, for the caller stays where he is.
std::optional<int> first_unusable(const std::vector<int>& cores) {
  std::optional<int> unusable;
  std::thread([&] {
    for (const int core : cores) {
      cpu_set_t set;
      CPU_ZERO(&set);
      if (core >= 0 && core < CPU_SETSIZE) CPU_SET(static_cast<std::size_t>(core), &set);
      if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0) continue;
      unusable = core;
      return;
    }
  }).join();
  return unusable;
}
#endif

}  // namespace

int worthwhile_threads(std::int64_t work, std::int64_t per_thread, int threads) {
  const std::int64_t useful = 1 + (kSplitAlways ? work : work / per_thread);
  return static_cast<int>(std::clamp<std::int64_t>(useful, 1, std::max(1, threads)));
}

Awake::Awake(int threads) : counted_(threads > 1 ? 1 : 0) { awake.fetch_add(counted_, std::memory_order_relaxed); }
Awake::~Awake() { awake.fetch_sub(counted_, std::memory_order_relaxed); }

void pin_workers(const std::vector<int>& cores) {
#if defined(__linux__)
  if (const std::optional<int> core = first_unusable(cores)) {
    throw std::invalid_argument("cores: expected numbers of cores that this process may use, got " +
                                std::to_string(*core));
  }
  pool.load()->pin(cores);
#else
  if (!cores.empty()) throw std::invalid_argument("cores: threads can be pinned on Linux only");
#endif
}

void parallel_for(std::int64_t count, int threads, const Body& body) {
  threads = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (threads > 1 && pool.load()->try_run(count, threads, body)) return;
  for (std::int64_t item = 0; item < count; ++item) body(item);
}

}  // namespace pipnet
