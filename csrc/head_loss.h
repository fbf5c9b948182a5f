// Training loss of the head at the labelled cells. What it computes: pipnet_fast/ops/head_loss.py; the products of the
// whole score map with weights and features are the caller's.
#pragma once

#include "shapes.h"

namespace pipnet {

// What both passes read. Layers are offset_x, offset_y, neighbor_x and neighbor_y, of N, N, N * K and N * K rows.
struct HeadLossArgs {
  std::int64_t batch, channels, landmarks, neighbors;
  Grid grid;
  const float* features;    // (B * H * W, C)
  const float* weights[4];  // of the layers, rows of C
};

struct HeadLossForward {
  const float* points;            // (B, N, 2), fractions of the crop
  const std::int64_t* neighbors;  // (N, K)
  const float* sample_weights;    // (B, 3); null for ones
  const float* biases[4];         // of the layers
  float* score;                   // (B * H * W, N): the score map, which becomes half the gradient of its term
  std::int64_t* index;            // out: (N, B), the labelled cells among all features
  float* vote_grad;               // out: (N, 2, 1 + K, B), the gradients of the votes' terms
  float* terms[3];                // out: score, offset, neighbor
};

struct HeadLossBackward {
  const float* score_grad;  // as the forward pass left it, as are the next two
  const std::int64_t* index;
  const float* vote_grad;
  float of_terms[3];       // gradients of score, offset, neighbor
  float* weights[4];       // out: gradients of the layers; null, all or none, where nobody asks
  float* biases[5];        // out: of the score and the layers, likewise
  float* features;         // the score map's part of their gradient, to which the votes' is added; null likewise
};

// The caller has checked every shape, the neighbors and the index.
void head_loss_forward(const HeadLossArgs& args, const HeadLossForward& pass, int threads);
void head_loss_backward(const HeadLossArgs& args, const HeadLossBackward& pass, int threads);

// Matrices (count, rows, columns) to (count, columns, rows): channels-first features to channels-last ones and back.
void transpose(const float* in, std::int64_t count, std::int64_t rows, std::int64_t columns, float* out, int threads);

// outs[o][c] = sum over s of coefficients[o * out_stride + s * source_stride] * sources[s][c], for channels [begin, end).
struct WeightedSums {
  const float* const* sources;
  float* const* outs;
  std::int64_t num_sources, num_outs;
  const float* coefficients;
  std::int64_t source_stride, out_stride;
  bool add;  // to what outs hold
};

// Of an instruction set.
struct HeadLossKernels {
  // products[r * images + i] = rows[r] . columns[i]; an even number of rows
  void (*dot)(const float* const* rows, std::int64_t num_rows, const float* const* columns, std::int64_t images,
              std::int64_t channels, float* products);
  void (*sum)(const WeightedSums& sums, std::int64_t begin, std::int64_t end);
};

}  // namespace pipnet
