// The loops of Loops::head_loss; isa/loops.h says what may stand here.
//
// Small matrix products of rows that lie wherever they lie: the weights of one landmark's votes, and the features of
// its cells in all images.
#pragma once

#include "head_loss.h"

namespace pipnet {
namespace {

// ROWS x IMAGES dot products.
template <int ROWS, int IMAGES>
inline void dot_tile(const float* const* rows, const float* const* columns, std::int64_t channels, float* products,
                     std::int64_t stride) {
  DotVec sum[ROWS][IMAGES];
  for (int r = 0; r < ROWS; ++r)
    for (int i = 0; i < IMAGES; ++i) sum[r][i] = DotVec::broadcast(0.0f);
  std::int64_t c = 0;
  for (; c + DotVec::kLanes <= channels; c += DotVec::kLanes) {
    DotVec column[IMAGES];
    for (int i = 0; i < IMAGES; ++i) column[i] = DotVec::load(columns[i] + c);
    for (int r = 0; r < ROWS; ++r) {
      const DotVec row = DotVec::load(rows[r] + c);
      for (int i = 0; i < IMAGES; ++i) sum[r][i] = DotVec::fma(row, column[i], sum[r][i]);
    }
  }
  for (int r = 0; r < ROWS; r += 2) {
    for (int i = 0; i < IMAGES; ++i) {
      float both[2];
      DotVec::sum_two(sum[r][i], sum[r + 1][i], both);
      for (std::int64_t j = c; j < channels; ++j) {
        both[0] += rows[r][j] * columns[i][j];
        both[1] += rows[r + 1][j] * columns[i][j];
      }
      products[r * stride + i] = both[0];
      products[(r + 1) * stride + i] = both[1];
    }
  }
}

void dot(const float* const* rows, std::int64_t num_rows, const float* const* columns, std::int64_t images,
         std::int64_t channels, float* products) {
  std::int64_t i = 0;
  for (; i + 4 <= images; i += 4)
    for (std::int64_t r = 0; r < num_rows; r += 2)
      dot_tile<2, 4>(rows + r, columns + i, channels, products + r * images + i, images);
  for (; i < images; ++i) {
    // As many sums at once as hide the latency of adding to one.
    std::int64_t r = 0;
    for (; r + 8 <= num_rows; r += 8)
      dot_tile<8, 1>(rows + r, columns + i, channels, products + r * images + i, images);
    for (; r + 4 <= num_rows; r += 4)
      dot_tile<4, 1>(rows + r, columns + i, channels, products + r * images + i, images);
    for (; r < num_rows; r += 2)
      dot_tile<2, 1>(rows + r, columns + i, channels, products + r * images + i, images);
  }
}

// OUTS sums over VECS vectors of channels.
template <int OUTS, int VECS>
inline void sum_tile(const WeightedSums& s, std::int64_t out, std::int64_t c) {
  Vec sum[OUTS][VECS];
  for (int o = 0; o < OUTS; ++o)
    for (int v = 0; v < VECS; ++v)
      sum[o][v] = s.add ? Vec::load(s.outs[out + o] + c + v * Vec::kLanes) : Vec::broadcast(0.0f);
  const float* coefficient = s.coefficients + out * s.out_stride;
  for (std::int64_t j = 0; j < s.num_sources; ++j, coefficient += s.source_stride) {
    Vec source[VECS];
    for (int v = 0; v < VECS; ++v) source[v] = Vec::load(s.sources[j] + c + v * Vec::kLanes);
    for (int o = 0; o < OUTS; ++o) {
      const Vec factor = Vec::broadcast(coefficient[o * s.out_stride]);
      for (int v = 0; v < VECS; ++v) sum[o][v] = Vec::fma(factor, source[v], sum[o][v]);
    }
  }
  for (int o = 0; o < OUTS; ++o)
    for (int v = 0; v < VECS; ++v) sum[o][v].store(s.outs[out + o] + c + v * Vec::kLanes);
}

template <int OUTS, int VECS>
inline void sum_outs(const WeightedSums& s, std::int64_t out, std::int64_t c, std::int64_t end) {
  for (; c + VECS * Vec::kLanes <= end; c += VECS * Vec::kLanes) sum_tile<OUTS, VECS>(s, out, c);
  for (; c + Vec::kLanes <= end; c += Vec::kLanes) sum_tile<OUTS, 1>(s, out, c);
  for (; c < end; ++c) {
    for (std::int64_t o = out; o < out + OUTS; ++o) {
      float sum = s.add ? s.outs[o][c] : 0.0f;
      for (std::int64_t j = 0; j < s.num_sources; ++j)
        sum += s.coefficients[o * s.out_stride + j * s.source_stride] * s.sources[j][c];
      s.outs[o][c] = sum;
    }
  }
}

void sum(const WeightedSums& s, std::int64_t begin, std::int64_t end) {
  std::int64_t out = 0;
  for (; out + 4 <= s.num_outs; out += 4) sum_outs<4, 2>(s, out, begin, end);
  for (; out + 2 <= s.num_outs; out += 2) sum_outs<2, 4>(s, out, begin, end);
  for (; out < s.num_outs; ++out) sum_outs<1, 4>(s, out, begin, end);
}

}  // namespace
}  // namespace pipnet
