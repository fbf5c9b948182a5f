// Half-precision numbers one at a time; whole vectors of them: simd/*.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "shapes.h"

namespace pipnet {
namespace {

// Exact, for every number a half can hold, infinities and NaN included.
inline float to_float(Half half) {
  const std::uint32_t magnitude = half.bits & 0x7fffu;
  float value = static_cast<float>(magnitude) * 0x1p-24f;  // a subnormal is a multiple of the least one
  if (magnitude >= 0x0400u) {
    // Of the others only the exponent's bias differs; infinity and NaN keep the highest exponent.
    const std::uint32_t bits = (magnitude << 13) + ((magnitude < 0x7c00u ? 127u - 15u : 255u - 31u) << 23);
    std::memcpy(&value, &bits, sizeof value);
  }
  return half.bits >= 0x8000u ? -value : value;
}

inline float to_float(float value) { return value; }
inline float to_float(std::int8_t value) { return static_cast<float>(value); }

}  // namespace
}  // namespace pipnet
