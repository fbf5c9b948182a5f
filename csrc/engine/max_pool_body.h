// The loops of Kernels::max_pool; ../isa/loops.h says what may stand here.
#pragma once

#include "kernels.h"

namespace pipnet {
namespace {

void max_pool(const MaxPoolTask& task) {
  const std::int64_t row = task.width * kBlock;
  for (std::int64_t y = task.first; y < task.last; ++y) {
    // Where a row or a column is outside, one inside is taken twice, which leaves the maximum as it is.
    const float* middle = task.input + 2 * y * row;
    const float* above = y > 0 ? middle - row : middle;
    const float* below = 2 * y + 1 < task.height ? middle + row : middle;
    for (std::int64_t lane = 0; lane < kBlock; lane += Vec::kLanes) {
      const auto column = [=](std::int64_t x) {
        const std::int64_t at = x * kBlock + lane;
        return Vec::max(Vec::max(Vec::load(above + at), Vec::load(middle + at)), Vec::load(below + at));
      };
      float* output = task.output + y * task.out_width * kBlock + lane;
      Vec left = column(0);
      const std::int64_t whole = task.width / 2;  // outputs with a column on their right
      for (std::int64_t x = 0; x < whole; ++x) {
        const Vec right = column(2 * x + 1);
        Vec::max(Vec::max(left, column(2 * x)), right).store(output + x * kBlock);
        left = right;
      }
      if (whole < task.out_width) Vec::max(left, column(2 * whole)).store(output + whole * kBlock);
    }
  }
}

}  // namespace
}  // namespace pipnet
