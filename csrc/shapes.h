// Shapes and arguments of the operations, as raw pointers: the core knows neither Python nor torch. Without a
// function in it: sources of every instruction set include this, and the linker would keep one copy for all.
// Letters as in pipnet_fast/ops/types.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pipnet {

// Landmarks whose score rows are stored interleaved; ops/types.py packs them so.
constexpr std::int64_t kPanel = 16;

// In elements.
struct Strides {
  std::ptrdiff_t batch, channel, row, column;
};

// The sparse matrix that merges votes: row n at starts[n] .. starts[n + 1].
struct MergeTable {
  const std::int32_t* starts;   // (N + 1)
  const std::int32_t* sources;  // (N * (1 + K)), indices of votes
  const float* weights;         // (N * (1 + K))
};

struct Grid {
  std::int64_t height, width;
};

struct DecodeArgs {
  std::int64_t batch, landmarks, neighbors;
  Grid grid;
  const float* maps[5];  // in the official order
  Strides strides[5];
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
};

}  // namespace pipnet
