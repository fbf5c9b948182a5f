// The one body behind head_decode_panels_*, written against simd/*.h. In an anonymous namespace and free of the
// standard library's templates: the linker may not merge code of different instruction sets.
//
// A panel is kPanel landmarks. Their scores are lanes of vectors, so the running argmax over the cells is a
// compare and two blends, and never leaves the registers; then the votes are computed at the winning cells.
#pragma once

#include <cmath>

#include "head_decode.h"

namespace pipnet {
namespace {

constexpr int kVecs = static_cast<int>(kPanel) / Vec::kLanes;
constexpr float kLowest = -HUGE_VALF;

// The best score and its cell so far, one lane a landmark. Cell numbers are floats, exact up to 2^24 cells.
struct Winners {
  Vec score[kVecs], cell[kVecs];
};

// Scores of one panel at T cells, in order, folded into the winners. The first of equal scores stays; a NaN
// is not greater than anything and never wins.
template <int T>
inline void score_tile(const float* weight, const float* bias, std::int64_t channels, const float* const* column,
                       std::ptrdiff_t channel_stride, float first_cell, Winners& best) {
  Vec sum[T][kVecs];
  for (int t = 0; t < T; ++t)
    for (int v = 0; v < kVecs; ++v) sum[t][v] = Vec::load(bias + v * Vec::kLanes);
  std::ptrdiff_t at = 0;
  for (std::int64_t c = 0; c < channels; ++c, at += channel_stride, weight += kPanel) {
    Vec row[kVecs];
    for (int v = 0; v < kVecs; ++v) row[v] = Vec::load(weight + v * Vec::kLanes);
    for (int t = 0; t < T; ++t) {
      const Vec feature = Vec::broadcast(column[t][at]);
      for (int v = 0; v < kVecs; ++v) sum[t][v] = Vec::fma(feature, row[v], sum[t][v]);
    }
  }
  for (int t = 0; t < T; ++t) {
    const Vec cell = Vec::broadcast(first_cell + static_cast<float>(t));
    for (int v = 0; v < kVecs; ++v) {
      const Vec::Mask wins = Vec::greater(sum[t][v], best.score[v]);
      best.score[v] = Vec::select(wins, sum[t][v], best.score[v]);
      best.cell[v] = Vec::select(wins, cell, best.cell[v]);
    }
  }
}

// Address of a cell's first channel.
inline const float* cell_column(const HeadDecodeArgs& a, std::int64_t image, std::int64_t cell) {
  const std::int64_t y = cell / a.grid.width, x = cell % a.grid.width;
  return a.features + image * a.strides.batch + y * a.strides.row + x * a.strides.column;
}

void score_panel(const HeadDecodeArgs& a, std::int64_t panel, std::int64_t image, float* scores,
                 float* winning_cells) {
  const float* weight = a.score_weight + panel * a.channels * kPanel;
  const float* bias = a.score_bias + panel * kPanel;
  Winners best;
  for (int v = 0; v < kVecs; ++v) {
    best.score[v] = Vec::broadcast(kLowest);
    best.cell[v] = Vec::broadcast(0.0f);
  }
  constexpr int T = Vec::kTileCells;
  const float* column[T];
  const std::int64_t cells = a.grid.height * a.grid.width;
  std::int64_t cell = 0;
  for (; cell + T <= cells; cell += T) {
    for (int t = 0; t < T; ++t) column[t] = cell_column(a, image, cell + t);
    score_tile<T>(weight, bias, a.channels, column, a.strides.channel, static_cast<float>(cell), best);
  }
  for (; cell < cells; ++cell) {
    column[0] = cell_column(a, image, cell);
    score_tile<1>(weight, bias, a.channels, column, a.strides.channel, static_cast<float>(cell), best);
  }
  for (int v = 0; v < kVecs; ++v) {
    best.score[v].store(scores + v * Vec::kLanes);
    best.cell[v].store(winning_cells + v * Vec::kLanes);
  }
}

// ROWS dot products of contiguous weight rows with one feature column.
template <int ROWS>
inline void dot_rows(const float* weight, std::int64_t channels, const float* column, float* out) {
  Vec sum[ROWS];
  for (int r = 0; r < ROWS; ++r) sum[r] = Vec::broadcast(0.0f);
  std::int64_t c = 0;
  for (; c + Vec::kLanes <= channels; c += Vec::kLanes) {
    const Vec feature = Vec::load(column + c);
    for (int r = 0; r < ROWS; ++r) sum[r] = Vec::fma(Vec::load(weight + r * channels + c), feature, sum[r]);
  }
  for (int r = 0; r < ROWS; ++r) {
    float tail = 0.0f;
    for (std::int64_t i = c; i < channels; ++i) tail += weight[r * channels + i] * column[i];
    out[r] = sum[r].sum() + tail;
  }
}

void vote(const HeadDecodeArgs& a, std::int64_t image, std::int64_t landmark, std::int64_t cell, float* scratch) {
  const float* column = cell_column(a, image, cell);
  if (a.strides.channel != 1) {
    for (std::int64_t c = 0; c < a.channels; ++c) scratch[c] = column[c * a.strides.channel];
    column = scratch;
  }
  const std::int64_t rows = 2 * (1 + a.neighbors);
  const float* weight = a.vote_weight + landmark * rows * a.channels;
  const float* bias = a.vote_bias + landmark * rows;
  float* votes = a.votes + (image * a.landmarks + landmark) * rows;
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dot_rows<4>(weight + r * a.channels, a.channels, column, votes + r);
  for (; r < rows; r += 2) dot_rows<2>(weight + r * a.channels, a.channels, column, votes + r);
  const float corner_x = static_cast<float>(cell % a.grid.width);
  const float corner_y = static_cast<float>(cell / a.grid.width);
  for (r = 0; r < rows; r += 2) {
    votes[r] += corner_x + bias[r];
    votes[r + 1] += corner_y + bias[r + 1];
  }
}

void head_decode_panels(const HeadDecodeArgs& a, std::int64_t begin, std::int64_t end, int thread) {
  float* scratch = a.columns + thread * a.channels;
  float scores[kPanel], cells[kPanel];
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const std::int64_t first = panel * kPanel;
    const std::int64_t count = a.landmarks - first < kPanel ? a.landmarks - first : kPanel;
    for (std::int64_t image = 0; image < a.batch; ++image) {
      score_panel(a, panel, image, scores, cells);
      for (std::int64_t i = 0; i < count; ++i) {
        a.scores[image * a.landmarks + first + i] = scores[i];
        vote(a, image, first + i, static_cast<std::int64_t>(cells[i]), scratch);
      }
    }
  }
}

}  // namespace
}  // namespace pipnet
