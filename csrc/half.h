// Half-precision numbers one at a time; whole vectors of them: isa/.
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

// Rounded to the nearest, ties to even; beyond the largest half it is infinity.
inline Half to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const float magnitude = value < 0 ? -value : value;
  std::uint32_t half;
  if (!(magnitude == magnitude)) {
    half = 0x7e00u;
  } else if (magnitude >= 65520.0f) {
    half = 0x7c00u;
  } else if (magnitude < 0x1p-14f) {
    // Adding a number whose last place is that of the subnormal halves rounds to them.
    const float shifted = magnitude + 0.5f;
    std::memcpy(&half, &shifted, sizeof half);
    half -= 0x3f000000u;
  } else {
    bits &= 0x7fffffffu;
    half = (bits - (112u << 23) + 0x0fffu + (bits >> 13 & 1u)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

inline float to_float(float value) { return value; }
inline float to_float(std::int8_t value) { return static_cast<float>(value); }

}  // namespace
}  // namespace pipnet
