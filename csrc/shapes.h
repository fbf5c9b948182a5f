// Shapes and arguments of the operations, as raw pointers: the core knows neither Python nor torch. Without a
// function in it: sources of every instruction set include this, and the linker would keep one copy for all.
// Letters as in pipnet_fast/ops/types.py.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace pipnet {

// Landmarks whose score rows are stored interleaved; ops/types.py packs them so.
constexpr std::int64_t kPanel = 16;

// A last panel of so few landmarks is scored row by row: most of its lanes would be padding. Even.
constexpr std::int64_t kFewLandmarks = 6;

// The best score before any.
constexpr float kLowest = -HUGE_VALF;

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

// An IEEE half-precision number.
struct Half {
  std::uint16_t bits;
};

// How weights are stored; features, biases and sums are float32 always.
enum class Storage { float32, float16, int8 };

struct HeadDecodeArgs {
  std::int64_t batch, channels, landmarks, neighbors;
  Grid grid;
  const float* features;  // (B, C, H, W)
  Strides strides;
  Storage storage;
  const void* score_weight;  // (ceil(N / kPanel), C, kPanel)
  const void* vote_weight;   // (N, 2 + 2K, C)
  const float* score_bias;   // (ceil(N / kPanel) * kPanel)
  const float* vote_bias;    // (N, 2 + 2K)
  const float* score_scale;  // as score_bias: what a row of int8 is multiplied by; null for 1
  const float* vote_scale;   // as vote_bias
  MergeTable table;
  float* cells;   // scratch (B, ceil(N / kPanel) * kPanel): the winning ones, exact up to 2^24
  float* votes;   // scratch (B, N, 1 + K, 2)
  float* rows;    // scratch (kFewLandmarks, C): the last panel's weights
  float* points;  // (B, N, 2)
  float* scores;  // (B, N)
};

}  // namespace pipnet
