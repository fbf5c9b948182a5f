// The pool of threads alone: that every item of a loop is done once and no later than the call returns, whatever the
// numbers of items and threads, with and without Awake, from many callers at once, with bodies that throw, and in a
// forked child. Built under sanitizers like sanitize.cpp; what a lost wake-up would stop is ended by alarm().
#include "parallel.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using check::report;
using check::text;

// Counts plainly, so that ThreadSanitizer sees two threads at one item, and the caller's look if it comes too early.
bool every_item_once(std::int64_t count, int threads) {
  std::vector<int> times(check::size(count), 0);
  pipnet::parallel_for(count, threads, [&](std::int64_t item) { ++times[check::size(item)]; });
  for (int time : times)
    if (time != 1) return false;
  return true;
}

// Loops by chance, some with an Awake around; the number of those that went wrong.
int wrong_loops(std::uint32_t seed, int loops, int most_threads) {
  std::mt19937 engine{seed};
  int wrong = 0;
  std::unique_ptr<pipnet::Awake> awake;
  for (int i = 0; i < loops; ++i) {
    if (engine() % 8 == 0) awake = engine() % 2 == 0 ? std::make_unique<pipnet::Awake>(2) : nullptr;
    const auto threads = 1 + static_cast<int>(engine() % static_cast<unsigned>(most_threads));
    wrong += !every_item_once(engine() % 20, threads);
    // Long enough for threads to fall asleep.
    if (engine() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return wrong;
}

// Threads do join: items that wait for one another need as many, and without them never end.
bool join(int threads) {
  std::atomic<int> there{0};
  pipnet::parallel_for(threads, threads, [&](std::int64_t) {
    ++there;
    while (there < threads) std::this_thread::yield();
  });
  return there == threads;
}

// Threads that have worked sleep once no Awake is left: the process takes next to no time.
bool asleep() {
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  return std::clock() - before < CLOCKS_PER_SEC / 200;
}

// A body that throws, on whatever thread: the caller hears of it, and the pool is none the worse.
void check_throw() {
  int caught = 0, wrong = 0;
  for (int i = 0; i < 200; ++i) {
    std::atomic<int> begun{0};
    try {
      pipnet::parallel_for(12, 3, [&](std::int64_t item) {
        ++begun;
        if (item >= i % 12) throw std::runtime_error("item");
      });
    } catch (const std::runtime_error&) {
      ++caught;
    }
    wrong += begun <= i % 12 || begun > i % 12 + 3;
    wrong += !every_item_once(12, 3);
  }
  report("bodies that throw", caught == 200 && wrong == 0, text(caught) + " caught, " + text(wrong) + " wrong");
}

void check_pinned() {
#if defined(__linux__)
  const int core = sched_getcpu();
  for (const std::vector<int>& cores : {std::vector<int>{core}, {core, core, core}, {}}) {
    pipnet::pin_workers(cores);
    report("pinned to " + text(static_cast<check::Index>(cores.size())) + " cores", wrong_loops(3, 100, 5) == 0);
  }
  for (int none : {-1, CPU_SETSIZE - 1, 1 << 20}) {
    bool refused = false;
    try {
      pipnet::pin_workers({core, none});
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    report("no core " + text(none), refused);
  }
#endif
}

void check_callers() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (std::uint32_t caller = 0; caller < 8; ++caller)
    callers.emplace_back([&wrong, caller] { wrong += wrong_loops(caller, 300, 4); });
  for (std::thread& caller : callers) caller.join();
  report("8 callers at once", wrong == 0, text(wrong) + " loops went wrong");
}

void check_fork() {
  std::fflush(stdout);
  const pipnet::Awake awake(2);  // the parent's, of which the child knows nothing
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    // Twice: a child of the child.
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      alarm(60);
      _exit(join(3) && wrong_loops(7, 100, 4) == 0 ? 0 : 1);
    }
    int status = -1;
    bool right = waitpid(grandchild, &status, 0) == grandchild && status == 0;
    right = right && join(4) && wrong_loops(8, 100, 4) == 0 && asleep();
    _exit(right ? 0 : 1);
  }
  int status = -1;
  const bool waited = child > 0 && waitpid(child, &status, 0) == child;
  report("in a forked child and its child", waited && status == 0, "wait status " + text(status));
  report("after the fork", wrong_loops(9, 100, 4) == 0);
}

}  // namespace

int main() {
  alarm(120);
  for (int threads : {2, 3, 5}) report(text(threads) + " threads at once", join(threads));
  report("2 threads", wrong_loops(1, 20000, 2) == 0);
  report("up to 40 threads", wrong_loops(2, 2000, 40) == 0);
  report("asleep", asleep());
  check_throw();
  check_pinned();
  check_callers();
  if (check::kCanFork) check_fork();
  return check::summary();
}
