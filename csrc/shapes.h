// Shapes and arguments of the operations, as raw pointers: the core knows neither Python nor torch.
// Letters as in pipnet_fast/ops/types.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pipnet {

// Landmarks whose score rows are stored interleaved; ops/types.py packs them so.
constexpr std::int64_t kPanel = 16;

// In elements, in the order batch, channel, row, column.
using Strides = std::array<std::ptrdiff_t, 4>;

// The sparse matrix that merges votes: row n at starts[n] .. starts[n + 1].
struct MergeTable {
  const std::int32_t* starts;   // (N + 1)
  const std::int32_t* sources;  // (N * (1 + K)), indices of votes
  const float* weights;         // (N * (1 + K))
};

struct Grid {
  std::int64_t height, width;
  std::int64_t cells() const { return height * width; }
};

struct DecodeArgs {
  std::int64_t batch, landmarks, neighbors;
  Grid grid;
  std::array<const float*, 5> maps;  // in the official order
  std::array<Strides, 5> strides;
  MergeTable table;
  float* votes;   // scratch (B, N, 1 + K, 2)
  float* points;  // (B, N, 2)
  float* scores;  // (B, N)
};

struct HeadDecodeArgs {
  std::int64_t batch, channels, landmarks, neighbors;
  Grid grid;
  const float* features;  // (B, C, H, W)
  Strides strides;
  const float* score_weight;  // (ceil(N / kPanel), C, kPanel)
  const float* score_bias;    // (ceil(N / kPanel) * kPanel)
  const float* vote_weight;   // (N, 2 + 2K, C)
  const float* vote_bias;     // (N, 2 + 2K)
  MergeTable table;
  float* columns;  // scratch, C floats a thread: a feature column that is not contiguous
  float* votes;    // scratch (B, N, 1 + K, 2)
  float* points;   // (B, N, 2)
  float* scores;   // (B, N)
  std::int64_t panels() const { return (landmarks + kPanel - 1) / kPanel; }
};

}  // namespace pipnet
