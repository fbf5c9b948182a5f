// The merge of neighbors' votes, for both operations: points = table * votes / (W, H).
#pragma once

#include "shapes.h"

namespace pipnet {

inline void merge_votes(const MergeTable& table, const Grid& grid, std::int64_t landmarks, const float* votes,
                        float* points) {
  const float width = static_cast<float>(grid.width), height = static_cast<float>(grid.height);
  for (std::int64_t n = 0; n < landmarks; ++n) {
    float x = 0.0f, y = 0.0f;
    for (std::int32_t i = table.starts[n]; i < table.starts[n + 1]; ++i) {
      const float* vote = votes + 2 * static_cast<std::ptrdiff_t>(table.sources[i]);
      x += table.weights[i] * vote[0];
      y += table.weights[i] * vote[1];
    }
    points[2 * n] = x / width;
    points[2 * n + 1] = y / height;
  }
}

}  // namespace pipnet
