// NEON on 64-bit ARM: 4 floats.
#pragma once

#include <arm_neon.h>

namespace pipnet {
namespace {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kTileCells = 6;  // 4 vectors x 6 cells = 24 of 32 registers
  using Mask = uint32x4_t;
  float32x4_t v;

  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  void store(float* p) const { vst1q_f32(p, v); }
  static Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static Vec max_ignoring_nan(Vec a, Vec best) { return {vbslq_f32(vcgtq_f32(a.v, best.v), a.v, best.v)}; }
  static Mask greater(Vec a, Vec b) { return vcgtq_f32(a.v, b.v); }
  static Vec select(Mask mask, Vec yes, Vec no) { return {vbslq_f32(mask, yes.v, no.v)}; }
  float sum() const { return vaddvq_f32(v); }
  float max() const { return vmaxvq_f32(v); }
};

}  // namespace
}  // namespace pipnet
