// One float at a time, for any CPU; compilers turn the panel's loops into what the baseline has.
#pragma once

namespace pipnet {
namespace {

struct Vec {
  static constexpr int kLanes = 1;
  // Grid cells of a score tile: accumulators for kPanel landmarks times this many must fit the registers.
  static constexpr int kTileCells = 2;
  using Mask = bool;
  float v;

  static Vec load(const float* p) { return {*p}; }
  static Vec broadcast(float x) { return {x}; }
  void store(float* p) const { *p = v; }
  static Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  static Vec max_ignoring_nan(Vec a, Vec best) { return {a.v > best.v ? a.v : best.v}; }
  static Mask greater(Vec a, Vec b) { return a.v > b.v; }
  static Vec select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
  float sum() const { return v; }
  float max() const { return v; }
};

}  // namespace
}  // namespace pipnet
