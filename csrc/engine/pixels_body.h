// The loops of Kernels::pixel_row; ../isa/loops.h says what may stand here.
#pragma once

#include "kernels.h"

namespace pipnet {
namespace {

// float = byte * scale + shift, colors interleaved: after as many pixels as a vector has lanes, three vectors, the
// colors stand in the lanes as before.
void normalize_bytes(const PixelRowTask& task, float* output) {
  float scale[3 * Vec::kLanes], shift[3 * Vec::kLanes];
  for (int i = 0; i < 3 * Vec::kLanes; ++i) scale[i] = task.scale[i % 3], shift[i] = task.shift[i % 3];
  const auto three_vectors = [&](std::int64_t begin) {
    for (int v = 0; v < 3 * Vec::kLanes; v += Vec::kLanes)
      Vec::fma(Vec::load(task.bytes + begin + v), Vec::load(scale + v), Vec::load(shift + v)).store(output + begin + v);
  };
  std::int64_t i = 0;
  const std::int64_t count = 3 * task.width;
  for (; i + 3 * Vec::kLanes <= count; i += 3 * Vec::kLanes) three_vectors(i);
  if (i > 0 && i < count) return three_vectors(count - 3 * Vec::kLanes);  // some pixels once more
  for (; i < count; ++i) output[i] = static_cast<float>(task.bytes[i]) * task.scale[i % 3] + task.shift[i % 3];
}

void pixel_row(const PixelRowTask& task) {
  float* output = task.output;
  for (std::int64_t i = 0; i < 3 * task.padding; ++i) *output++ = 0.0f;
  if (task.bytes) {
    normalize_bytes(task, output);
  } else {
    for (std::int64_t x = 0; x < task.width; ++x)
      for (int color = 0; color < 3; ++color) output[3 * x + color] = task.planes[color * task.plane + x];
  }
  output += 3 * task.width;
  for (std::int64_t i = 0; i < 3 * task.padding; ++i) *output++ = 0.0f;
}

}  // namespace
}  // namespace pipnet
