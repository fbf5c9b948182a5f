// AVX-512F: 16 floats; its dot products take 8, because half-precision numbers convert no faster by 16.
//
// x86_64: -mavx512f -mfma -mf16c
// x86_64 with MSVC: /arch:AVX512

#include "ymm.h"

namespace pipnet {
namespace {

struct Zmm {
  static constexpr int kLanes = 16;
  using Mask = __mmask16;
  // With a full mask it is the plain instruction; GCC's header warns of its own in the unmasked form.
  static constexpr Mask kAll = 0xffff;
  __m512 v;

  static Zmm load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Zmm load(const Half* p) { return {_mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
  static Zmm load(const std::int8_t* p) {
    return {_mm512_maskz_cvtepi32_ps(kAll, _mm512_maskz_cvtepi8_epi32(kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  static Zmm load(const std::uint8_t* p) {
    return {_mm512_maskz_cvtepi32_ps(kAll, _mm512_maskz_cvtepu8_epi32(kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  static Zmm broadcast(float x) { return {_mm512_set1_ps(x)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static Zmm divide(Zmm a, Zmm b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Zmm add(Zmm a, Zmm b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Zmm sub(Zmm a, Zmm b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static Zmm mul(Zmm a, Zmm b) { return {_mm512_mul_ps(a.v, b.v)}; }
  // A NaN in b is kept.
  static Zmm min(Zmm a, Zmm b) { return {_mm512_maskz_min_ps(kAll, a.v, b.v)}; }
  static Zmm max(Zmm a, Zmm b) { return {_mm512_maskz_max_ps(kAll, a.v, b.v)}; }
  static Zmm fma(Zmm a, Zmm b, Zmm c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  // maxps gives its second operand where either is NaN.
  static Zmm max_ignoring_nan(Zmm a, Zmm best) { return {_mm512_maskz_max_ps(kAll, a.v, best.v)}; }
  static Mask greater(Zmm a, Zmm b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
  static Zmm select(Mask mask, Zmm yes, Zmm no) { return {_mm512_mask_blend_ps(mask, no.v, yes.v)}; }
  float max() const { return _mm512_reduce_max_ps(v); }
};

using Vec = Zmm;
using DotVec = Ymm;
constexpr int kTileCells = 8;  // enough independent sums to hide the latency of the multiply-add
constexpr int kProductTile = 16;  // 1 vector x 16 pixels: the weights are loaded once for all
constexpr bool kVotesBeside = true;  // 8 sums of votes fit the registers beside the tile

}  // namespace
}  // namespace pipnet

#include "loops.h"

namespace pipnet {

// The bits of AVX-512F, FMA and F16C; zmm registers and masks are kept.
extern constexpr Isa isa_avx512{
    "avx512", 3, 0xe6, {{7, CpuidBit::ebx, 16}, {1, CpuidBit::ecx, 12}, {1, CpuidBit::ecx, 29}}, kLoops};

}  // namespace pipnet
