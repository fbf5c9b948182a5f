// One float at a time, for any CPU; compilers turn the panel's loops into what the baseline has.
//
// any:

#include "../half.h"

namespace pipnet {
namespace {

struct Vec {
  static constexpr int kLanes = 1;
  using Mask = bool;
  float v;

  static Vec load(const float* p) { return {*p}; }
  static Vec load(const Half* p) { return {to_float(*p)}; }
  static Vec load(const std::int8_t* p) { return {to_float(*p)}; }
  static Vec load(const std::uint8_t* p) { return {static_cast<float>(*p)}; }
  static Vec broadcast(float x) { return {x}; }
  void store(float* p) const { *p = v; }
  static Vec divide(Vec a, Vec b) { return {a.v / b.v}; }
  static Vec add(Vec a, Vec b) { return {a.v + b.v}; }
  static Vec sub(Vec a, Vec b) { return {a.v - b.v}; }
  static Vec mul(Vec a, Vec b) { return {a.v * b.v}; }
  // A NaN in b is kept.
  static Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  static Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  static Vec max_ignoring_nan(Vec a, Vec best) { return {a.v > best.v ? a.v : best.v}; }
  static Mask greater(Vec a, Vec b) { return a.v > b.v; }
  static Vec select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
  // The sums of the lanes of a and of b.
  static void sum_two(Vec a, Vec b, float* out) { out[0] = a.v, out[1] = b.v; }
  float max() const { return v; }
};

using DotVec = Vec;
constexpr int kTileCells = 2;  // accumulators for kPanel landmarks times this many cells must fit the registers
constexpr int kProductTile = 2;  // likewise
constexpr bool kVotesBeside = false;

inline void prefetch(const char*) {}

}  // namespace
}  // namespace pipnet

#include "loops.h"

namespace pipnet {

extern constexpr Isa isa_scalar{"scalar", 0, 0, {}, kLoops};

}  // namespace pipnet
