// NEON, which every 64-bit ARM has: 4 floats.
//
// aarch64:

#include <arm_neon.h>

#include <cstring>

#include "../half.h"

namespace pipnet {
namespace {

struct Vec {
  static constexpr int kLanes = 4;
  using Mask = uint32x4_t;
  float32x4_t v;

  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load(const Half* p) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))))};
  }
  static Vec load(const std::int8_t* p) {
    std::int32_t bytes;  // four of them and no more: the row may end here
    std::memcpy(&bytes, p, sizeof bytes);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)))};
  }
  static Vec load(const std::uint8_t* p) {
    std::uint32_t bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)));
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)))};
  }
  static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  void store(float* p) const { vst1q_f32(p, v); }
  static Vec divide(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
  static Vec add(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
  static Vec sub(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
  static Vec mul(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
  // A NaN in b is kept.
  static Vec min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static Vec max_ignoring_nan(Vec a, Vec best) { return {vbslq_f32(vcgtq_f32(a.v, best.v), a.v, best.v)}; }
  static Mask greater(Vec a, Vec b) { return vcgtq_f32(a.v, b.v); }
  static Vec select(Mask mask, Vec yes, Vec no) { return {vbslq_f32(mask, yes.v, no.v)}; }
  // The sums of the lanes of a and of b.
  static void sum_two(Vec a, Vec b, float* out) {
    const float32x4_t pairs = vpaddq_f32(a.v, b.v);
    vst1_f32(out, vget_low_f32(vpaddq_f32(pairs, pairs)));
  }
  float max() const { return vmaxvq_f32(v); }
};

using DotVec = Vec;
constexpr int kTileCells = 6;  // 4 vectors x 6 cells = 24 of 32 registers
constexpr int kProductTile = 6;  // as many for matrix products
constexpr bool kVotesBeside = false;

inline void prefetch(const char* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace
}  // namespace pipnet

#include "loops.h"

namespace pipnet {

extern constexpr Isa isa_neon{"neon", 1, 0, {}, kLoops};

}  // namespace pipnet
