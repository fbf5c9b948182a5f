// AVX-512F: 16 floats.
#pragma once

#include <immintrin.h>

namespace pipnet {
namespace {

struct Vec {
  static constexpr int kLanes = 16;
  static constexpr int kTileCells = 8;  // enough independent sums to hide the latency of the multiply-add
  using Mask = __mmask16;
  __m512 v;

  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  // maxps gives its second operand where either is NaN.
  static Vec max_ignoring_nan(Vec a, Vec best) { return {_mm512_max_ps(a.v, best.v)}; }
  static Mask greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
  static Vec select(Mask mask, Vec yes, Vec no) { return {_mm512_mask_blend_ps(mask, no.v, yes.v)}; }
  float sum() const { return _mm512_reduce_add_ps(v); }
  float max() const { return _mm512_reduce_max_ps(v); }
};

}  // namespace
}  // namespace pipnet
