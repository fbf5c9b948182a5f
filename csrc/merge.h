// The merge of neighbors' votes, for both operations: points = table * votes / (W, H).
#pragma once

#include "shapes.h"

namespace pipnet {

inline void merge_image(const MergeTable& table, const Grid& grid, std::int64_t landmarks, const float* votes,
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

// All images of either operation's arguments: their votes (B, N, 1 + K, 2) to points (B, N, 2).
template <class Args>
void merge_votes(const Args& a) {
  for (std::int64_t b = 0; b < a.batch; ++b) {
    const float* votes = a.votes + b * a.landmarks * (1 + a.neighbors) * 2;
    merge_image(a.table, a.grid, a.landmarks, votes, a.points + b * a.landmarks * 2);
  }
}

}  // namespace pipnet
