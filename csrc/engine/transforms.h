// Transforms of Winograd's convolutions along one axis; ../isa/loops.h says what may stand here. Their weights'
// side, which is computed once, is in winograd.cpp.
//
// With n points, a product of a 3-tap (or 2-tap) kernel and a row of pixels needs n multiplications. F(4, 3) and the
// 2-tap F(4, 2) use +-sqrt(1/2), +-sqrt(2) and infinity (and 0): their powers stay near 1, so that rounding errors do.
#pragma once

#include "kernels.h"

namespace pipnet {
namespace {

constexpr float kNear = 0.70710678118654752f, kFar = 1.41421356237309505f;

inline Vec operator+(Vec a, Vec b) { return Vec::add(a, b); }
inline Vec operator-(Vec a, Vec b) { return Vec::sub(a, b); }
inline Vec scaled(float factor, Vec x) { return Vec::mul(Vec::broadcast(factor), x); }
// x + factor * y
inline Vec plus(Vec x, float factor, Vec y) { return Vec::fma(Vec::broadcast(factor), y, x); }

template <const TransformShape& SHAPE>
struct Shaped {
  static constexpr int kInputs = SHAPE.inputs, kStep = SHAPE.step, kOutputs = SHAPE.outputs;
  static constexpr int kWeights = SHAPE.weights, kRepeats = SHAPE.repeats, kProducts = kWeights - 1 + kRepeats;
};

// Each: kInputs pixels to kProducts numbers (`to`), as many products to kOutputs pixels (`from`).
struct F4 : Shaped<kShapeF4> {
  static void to(const Vec* d, Vec* v) {
    const Vec far_even = plus(d[4], -2.0f, d[2]), far_odd = plus(d[3], -2.0f, d[1]);
    const Vec near_even = plus(d[4], -0.5f, d[2]), near_odd = plus(d[3], -0.5f, d[1]);
    v[0] = plus(d[0] + d[4], -2.5f, d[2]);
    v[1] = plus(far_even, kNear, far_odd);
    v[2] = plus(far_even, -kNear, far_odd);
    v[3] = plus(near_even, kFar, near_odd);
    v[4] = plus(near_even, -kFar, near_odd);
    v[5] = plus(d[1] + d[5], -2.5f, d[3]);
  }
  static void from(const Vec* m, Vec* y) {
    const Vec near_sum = m[1] + m[2], near_difference = m[1] - m[2];
    const Vec far_sum = m[3] + m[4], far_difference = m[3] - m[4];
    y[0] = m[0] + (near_sum + far_sum);
    y[1] = plus(scaled(kNear, near_difference), kFar, far_difference);
    y[2] = plus(scaled(0.5f, near_sum), 2.0f, far_sum);
    y[3] = plus(plus(m[5], 0.5f * kNear, near_difference), 2.0f * kFar, far_difference);
  }
};

// Points 0, 1, -1 and infinity.
struct F2 : Shaped<kShapeF2> {
  static void to(const Vec* d, Vec* v) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  static void from(const Vec* m, Vec* y) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
};

// A 3-tap kernel of stride 2 is a 2-tap one on every second pixel, F(4, 2), and one tap on those between.
struct F4S2 : Shaped<kShapeF4S2> {
  static void to(const Vec* d, Vec* v) {
    const Vec far_even = plus(d[4], -2.0f, d[0]), far_odd = plus(d[6], -2.0f, d[2]);
    const Vec near_even = plus(d[4], -0.5f, d[0]), near_odd = plus(d[6], -0.5f, d[2]);
    v[0] = plus(far_odd, kNear, far_even);
    v[1] = plus(far_odd, -kNear, far_even);
    v[2] = plus(near_odd, kFar, near_even);
    v[3] = plus(near_odd, -kFar, near_even);
    v[4] = plus(d[0] + d[8], -2.5f, d[4]);
    for (int i = 0; i < 4; ++i) v[5 + i] = d[2 * i + 1];
  }
  static void from(const Vec* m, Vec* y) {
    const Vec near_sum = m[0] + m[1], near_difference = m[0] - m[1];
    const Vec far_sum = m[2] + m[3], far_difference = m[2] - m[3];
    y[0] = m[5] + (near_sum + far_sum);
    y[1] = plus(plus(m[6], kNear, near_difference), kFar, far_difference);
    y[2] = plus(plus(m[7], 0.5f, near_sum), 2.0f, far_sum);
    y[3] = plus(plus(m[4] + m[8], 0.5f * kNear, near_difference), 2.0f * kFar, far_difference);
  }
};

// The same with F(2, 2): points 0, 1 and infinity.
struct F2S2 : Shaped<kShapeF2S2> {
  static void to(const Vec* d, Vec* v) {
    v[0] = d[0] - d[2];
    v[1] = d[2];
    v[2] = d[4] - d[2];
    v[3] = d[1];
    v[4] = d[3];
  }
  static void from(const Vec* m, Vec* y) {
    y[0] = m[3] + (m[0] + m[1]);
    y[1] = m[4] + (m[1] + m[2]);
  }
};

// Of a 4-tap deconvolution of stride 2 each output sees two pixels.
struct Doubled : Shaped<kShapeDoubled> {
  static void to(const Vec* d, Vec* v) {
    v[0] = d[0];
    v[1] = v[2] = d[1];
    v[3] = d[2];
  }
  static void from(const Vec* m, Vec* y) {
    y[0] = m[0] + m[1];
    y[1] = m[2] + m[3];
  }
};

}  // namespace
}  // namespace pipnet
