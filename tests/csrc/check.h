// What the tests share: numbers to test with, and how results are compared and counted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "engine/kernels.h"
#include "isa.h"

namespace check {

using Index = std::int64_t;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using pipnet::Activation;

// ThreadSanitizer (and qemu-user) cannot follow threads started in the forked child of a process that had some.
#if defined(__SANITIZE_THREAD__) || defined(PIPNET_NO_FORK)
constexpr bool kCanFork = false;
#else
constexpr bool kCanFork = true;
#endif

// In a buffer before a call, and wanted after it where the call should have left it alone.
constexpr double kUntouched = NAN;
constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::relu6, Activation::hard_swish};

inline std::size_t size(Index n) { return static_cast<std::size_t>(n); }

inline std::string text(Index n) { return std::to_string(n); }

// -4 to 4: their products are exact in float32, and so are sums of a few hundred of these; float16 holds them too.
inline Floats eighths(Index count) {
  static std::mt19937 engine{7};
  Floats values(size(count));
  for (float& value : values) value = static_cast<float>(static_cast<int>(engine() % 65) - 32) / 8.0f;
  return values;
}

inline double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::relu: return std::max(x, 0.0);
    case Activation::relu6: return std::min(std::max(x, 0.0), 6.0);
    case Activation::hard_swish: return x * std::min(std::max(x + 3.0, 0.0), 6.0) / 6.0;
    default: return x;
  }
}

inline int passed = 0, failed = 0;

inline void report(const std::string& what, bool good, const std::string& why = "") {
  ++(good ? passed : failed);
  if (!good && failed <= 100) std::printf("FAILED %s%s%s\n", what.c_str(), why.empty() ? "" : ": ", why.c_str());
}

// Within `tolerance` times the largest number wanted, and NaN just where NaN is wanted.
inline void compare(const std::string& what, const Floats& got, const Doubles& want, double tolerance = 1e-6) {
  double largest = 0.0, worst = 0.0;
  for (double value : want) largest = std::max(largest, std::isnan(value) ? 0.0 : std::abs(value));
  bool same_nan = got.size() == want.size();
  for (std::size_t i = 0; same_nan && i < got.size(); ++i) {
    same_nan = std::isnan(got[i]) == std::isnan(want[i]);
    worst = std::max(worst, std::isnan(want[i]) ? 0.0 : std::abs(double(got[i]) - want[i]));
  }
  report(what, same_nan && worst <= tolerance * largest,
         "off by " + std::to_string(worst) + " of " + std::to_string(largest) + (same_nan ? "" : ", other NaN"));
}

// The exit status.
inline int summary() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace check
