// The loops of Loops::decode_planes; isa/loops.h says what may stand here.
#pragma once

#include "decode.h"

namespace pipnet {
namespace {

struct Winner {
  float score;
  std::int64_t cell;
};

Winner winner_contiguous(const float* plane, std::int64_t cells) {
  // First the highest score, then the first cell that has it: two short passes, no index kept in registers.
  Vec best = Vec::broadcast(kLowest);
  std::int64_t i = 0;
  for (; i + Vec::kLanes <= cells; i += Vec::kLanes) best = Vec::max_ignoring_nan(Vec::load(plane + i), best);
  float highest = best.max();
  for (; i < cells; ++i) highest = plane[i] > highest ? plane[i] : highest;
  if (highest == kLowest) return {kLowest, 0};
  std::int64_t cell = 0;
  while (plane[cell] != highest) ++cell;
  return {highest, cell};
}

Winner winner_strided(const float* plane, const Grid& grid, const Strides& strides) {
  Winner best{kLowest, 0};
  for (std::int64_t y = 0; y < grid.height; ++y) {
    for (std::int64_t x = 0; x < grid.width; ++x) {
      const float score = plane[y * strides.row + x * strides.column];
      if (score > best.score) best = {score, y * grid.width + x};
    }
  }
  return best;
}

void decode_planes(const DecodeArgs& a, std::int64_t begin, std::int64_t end) {
  const Strides& s = a.strides[0];
  const bool contiguous = s.column == 1 && s.row == a.grid.width;
  for (std::int64_t plane = begin; plane < end; ++plane) {
    const std::int64_t image = plane / a.landmarks, landmark = plane % a.landmarks;
    const float* score = a.maps[0] + image * s.batch + landmark * s.channel;
    const Winner winner =
        contiguous ? winner_contiguous(score, a.grid.height * a.grid.width) : winner_strided(score, a.grid, s);
    a.scores[plane] = winner.score;

    const std::int64_t y = winner.cell / a.grid.width, x = winner.cell % a.grid.width;
    const auto at = [&](int map, std::int64_t channel) {
      const Strides& t = a.strides[map];
      return a.maps[map][image * t.batch + channel * t.channel + y * t.row + x * t.column];
    };
    const float corner_x = static_cast<float>(x), corner_y = static_cast<float>(y);
    float* vote = a.votes + plane * (1 + a.neighbors) * 2;
    vote[0] = corner_x + at(1, landmark);
    vote[1] = corner_y + at(2, landmark);
    for (std::int64_t k = 0; k < a.neighbors; ++k) {
      vote += 2;
      vote[0] = corner_x + at(3, landmark * a.neighbors + k);
      vote[1] = corner_y + at(4, landmark * a.neighbors + k);
    }
  }
}

}  // namespace
}  // namespace pipnet
