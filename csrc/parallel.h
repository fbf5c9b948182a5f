// Splitting a loop over a small pool of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace pipnet {

// The sanitizers' build splits however small the work is.
#if defined(PIPNET_SPLIT_ALWAYS)
constexpr bool kSplitAlways = true;
#else
constexpr bool kSplitAlways = false;
#endif

// Threads that are worth waking for `work`, when one should have at least `per_thread` of it.
int worthwhile_threads(std::int64_t work, std::int64_t per_thread, int threads);

// Calls body(item) for every item of [0, count), on up to `threads` threads, the caller's included, and returns when
// all are done. While another call holds the pool, everything runs on the caller's thread. Rethrows what a body throws;
// then some items may not have run.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body);

// Keeps the pool's threads, now and later, each to one of these cores: the second, the third and so on round the list,
// for the first is the caller's, who pins himself. An empty list sets them free. Throws std::invalid_argument for numbers
// that are none of cores that this process may use, and where the system has no such thing. A forked child begins with
// free threads.
void pin_workers(const std::vector<int>& cores);

// While one of more than one thread exists, those that have worked stay awake between two calls of parallel_for: waking
// them takes longer than a layer of a small network. Not for long: they take the time of whoever else wants their core.
class Awake {
 public:
  explicit Awake(int threads);
  ~Awake();
  Awake(const Awake&) = delete;
  Awake& operator=(const Awake&) = delete;

 private:
  int counted_;
};

}  // namespace pipnet
