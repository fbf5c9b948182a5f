// The inner loops of head_decode_body.h: scores of a tile, votes, and both at once.
#pragma once

#include "half.h"
#include "shapes.h"

namespace pipnet {
namespace {

constexpr int kVecs = static_cast<int>(kPanel) / Vec::kLanes;

// The best score and its cell so far, one lane a landmark. Cell numbers are floats, exact up to 2^24 cells.
struct Winners {
  Vec score[kVecs], cell[kVecs];
};

// Memory that is wanted soon.
struct Ahead {
  const char *next, *end;

  void fetch() {
    constexpr int kLine = 64, kLines = 3;
    if (next >= end) return;
    for (int i = 0; i < kLines; ++i) prefetch(next + i * kLine);
    next += kLines * kLine;
  }
};

// Scores of one panel at T evenly spaced cells, summed channel by channel.
template <int T, class Weight>
struct ScoreTile {
  static constexpr int kVoteRows = 4;  // at once beside it: more have more addresses than there are registers
  static constexpr int kBases = (T + 3) / 4;
  const Weight* weight;
  const float* column[kBases];  // of every fourth cell: compilers keep these in registers, and would not keep all
  const float* end;             // of the first column
  std::ptrdiff_t step;          // from cell to cell
  Vec sum[T][kVecs];

  bool has(std::int64_t channels) const { return end - column[0] >= channels; }

  [[gnu::always_inline]] void add_channel(Ahead& ahead) {
    ahead.fetch();
    Vec row[kVecs];
    for (int v = 0; v < kVecs; ++v) row[v] = Vec::load(weight + v * Vec::kLanes);
    for (int t = 0; t < T; ++t) {
      const Vec feature = Vec::broadcast(column[t / 4][t % 4 * step]);
      for (int v = 0; v < kVecs; ++v) sum[t][v] = Vec::fma(feature, row[v], sum[t][v]);
    }
    weight += kPanel;
    for (int i = 0; i < kBases; ++i) ++column[i];
  }

  // Folds the cells, in order, into the winners. The first of equal scores stays; a NaN is not greater than
  // anything and never wins.
  void fold(std::int64_t first_cell, Winners& best) const {
    for (int t = 0; t < T; ++t) {
      const Vec cell = Vec::broadcast(static_cast<float>(first_cell + t));
      for (int v = 0; v < kVecs; ++v) {
        const Vec::Mask wins = Vec::greater(sum[t][v], best.score[v]);
        best.score[v] = Vec::select(wins, sum[t][v], best.score[v]);
        best.cell[v] = Vec::select(wins, cell, best.cell[v]);
      }
    }
  }
};

// In the place of a tile: nothing.
template <int ROWS>
struct NoTile {
  static constexpr int kVoteRows = ROWS;
  void add_channel(Ahead&) {}
};

// ROWS x COLUMNS dot products of contiguous weight rows with feature columns, each as PARTS partial sums; with every
// step the tile advances by a channel.
template <int ROWS, int COLUMNS, int PARTS, class Weight, class Tile>
[[gnu::always_inline]] inline void dot_rows(const Weight* weight, std::int64_t channels, const float* const* column,
                                            float* const* results, std::int64_t first_row, Tile& tile, Ahead& ahead) {
  constexpr int kStep = PARTS * DotVec::kLanes;
  const Weight* row[ROWS];
  const float* features[COLUMNS];
  DotVec sum[COLUMNS][ROWS][PARTS];
  for (int r = 0; r < ROWS; ++r) row[r] = weight + (first_row + r) * channels;
  for (int i = 0; i < COLUMNS; ++i) {
    features[i] = column[i];
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < PARTS; ++v) sum[i][r][v] = DotVec::broadcast(0.0f);
  }
  const std::int64_t whole = channels / kStep * kStep;
  for (const float* end = column[0] + whole; features[0] < end;) {
    tile.add_channel(ahead);
    for (int v = 0; v < PARTS; ++v) {
      DotVec feature[COLUMNS];
      for (int i = 0; i < COLUMNS; ++i) feature[i] = DotVec::load(features[i] + v * DotVec::kLanes);
      for (int r = 0; r < ROWS; ++r) {
        const DotVec weights = DotVec::load(row[r] + v * DotVec::kLanes);
        for (int i = 0; i < COLUMNS; ++i) sum[i][r][v] = DotVec::fma(weights, feature[i], sum[i][r][v]);
      }
    }
    for (int r = 0; r < ROWS; ++r) row[r] += kStep;
    for (int i = 0; i < COLUMNS; ++i) features[i] += kStep;
  }
  for (int i = 0; i < COLUMNS; ++i) {
    float* const out = results[i] + first_row;
    for (int v = 1; v < PARTS; ++v)
      for (int r = 0; r < ROWS; ++r) sum[i][r][0] = DotVec::add(sum[i][r][0], sum[i][r][v]);
    for (int r = 0; r < ROWS; r += 2) DotVec::sum_two(sum[i][r][0], sum[i][r + 1][0], out + r);
    for (int r = 0; whole < channels && r < ROWS; ++r)
      for (std::int64_t j = 0; j < channels - whole; ++j) out[r] += to_float(row[r][j]) * features[i][j];
  }
}

}  // namespace
}  // namespace pipnet
