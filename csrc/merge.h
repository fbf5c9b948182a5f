// The merge of neighbors' votes, for both operations: points = table * votes / (W, H). Not for sources of one
// instruction set.
#pragma once

#include <stdexcept>
#include <string>

#include "shapes.h"

namespace pipnet {

// Throws std::invalid_argument for a table that would have merge_image read outside of its arrays or the votes.
inline void check_table(const MergeTable& table, std::int64_t landmarks, std::int64_t neighbors) {
  const std::int64_t votes = landmarks * (1 + neighbors);
  bool good = table.starts[0] == 0 && table.starts[landmarks] == votes;
  for (std::int64_t n = 0; n < landmarks; ++n) good &= table.starts[n] <= table.starts[n + 1];
  for (std::int64_t i = 0; i < votes; ++i) good &= table.sources[i] >= 0 && table.sources[i] < votes;
  if (!good) {
    throw std::invalid_argument("table: expected increasing starts from 0 to " + std::to_string(votes) +
                                " and sources below it");
  }
}

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
