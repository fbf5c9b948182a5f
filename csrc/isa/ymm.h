// 8 floats of AVX2 with FMA and F16C, which AVX-512 needs too.
#pragma once

#include <immintrin.h>

#include "../half.h"

namespace pipnet {
namespace {

struct Ymm {
  static constexpr int kLanes = 8;
  using Mask = __m256;
  __m256 v;

  static Ymm load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Ymm load(const Half* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
  static Ymm load(const std::int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
  }
  static Ymm load(const std::uint8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
  }
  static Ymm broadcast(float x) { return {_mm256_set1_ps(x)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  static Ymm divide(Ymm a, Ymm b) { return {_mm256_div_ps(a.v, b.v)}; }
  static Ymm add(Ymm a, Ymm b) { return {_mm256_add_ps(a.v, b.v)}; }
  static Ymm sub(Ymm a, Ymm b) { return {_mm256_sub_ps(a.v, b.v)}; }
  static Ymm mul(Ymm a, Ymm b) { return {_mm256_mul_ps(a.v, b.v)}; }
  // A NaN in b is kept.
  static Ymm min(Ymm a, Ymm b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Ymm max(Ymm a, Ymm b) { return {_mm256_max_ps(a.v, b.v)}; }
  static Ymm fma(Ymm a, Ymm b, Ymm c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  // maxps gives its second operand where either is NaN.
  static Ymm max_ignoring_nan(Ymm a, Ymm best) { return {_mm256_max_ps(a.v, best.v)}; }
  static Mask greater(Ymm a, Ymm b) { return _mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ); }
  static Ymm select(Mask mask, Ymm yes, Ymm no) { return {_mm256_blendv_ps(no.v, yes.v, mask)}; }
  // The sums of the lanes of a and of b.
  static void sum_two(Ymm a, Ymm b, float* out) {
    const __m256 pairs = _mm256_hadd_ps(a.v, b.v);  // two sums of a, two of b, in either half
    const __m128 both = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    const __m128 sums = _mm_hadd_ps(both, both);
    _mm_storel_pi(reinterpret_cast<__m64*>(out), sums);
  }
  float max() const {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }
};

// Into the second-level cache: what is wanted in a while would push out of the first what is used now.
inline void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

}  // namespace
}  // namespace pipnet
