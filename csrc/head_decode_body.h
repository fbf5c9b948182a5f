// The one body behind head_decode_panels_*, written against simd/*.h. In an anonymous namespace and free of the
// standard library's templates: the linker may not merge code of different instruction sets.
//
// A panel is kPanel landmarks. Their scores are lanes of vectors, so the running argmax over the cells is a
// compare and two blends, and never leaves the registers; then the votes are computed at the winning cells.
//
// Scores keep the arithmetic busy, votes wait for their weights, each of which is used once an image. So the two
// alternate: a tile of one panel's scores, meanwhile fetching weights ahead, then a few votes of the panel before.
#pragma once

#include <cmath>

#include "half.h"
#include "head_decode.h"

namespace pipnet {
namespace {

constexpr int kVecs = static_cast<int>(kPanel) / Vec::kLanes;
constexpr float kLowest = -HUGE_VALF;

// A number as a type.
template <int N>
struct Size {
  static constexpr int value = N;
};

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

// Scores of one panel at T cells, in order, folded into the winners. The first of equal scores stays; a NaN
// is not greater than anything and never wins.
template <int T, class Weight>
inline void score_tile(const Weight* weight, const Vec* start, std::int64_t channels, const float* const* column,
                       std::int64_t first_cell, Winners& best, Ahead& ahead) {
  Vec sum[T][kVecs];
  for (int t = 0; t < T; ++t)
    for (int v = 0; v < kVecs; ++v) sum[t][v] = start[v];
  for (std::int64_t c = 0; c < channels; ++c, weight += kPanel) {
    ahead.fetch();
    Vec row[kVecs];
    for (int v = 0; v < kVecs; ++v) row[v] = Vec::load(weight + v * Vec::kLanes);
    for (int t = 0; t < T; ++t) {
      const Vec feature = Vec::broadcast(column[t][c]);
      for (int v = 0; v < kVecs; ++v) sum[t][v] = Vec::fma(feature, row[v], sum[t][v]);
    }
  }
  for (int t = 0; t < T; ++t) {
    const Vec cell = Vec::broadcast(static_cast<float>(first_cell + t));
    for (int v = 0; v < kVecs; ++v) {
      const Vec::Mask wins = Vec::greater(sum[t][v], best.score[v]);
      best.score[v] = Vec::select(wins, sum[t][v], best.score[v]);
      best.cell[v] = Vec::select(wins, cell, best.cell[v]);
    }
  }
}

// The channels of a cell, which are contiguous.
inline const float* cell_column(const HeadDecodeArgs& a, std::int64_t image, std::int64_t cell) {
  const std::int64_t y = cell / a.grid.width, x = cell % a.grid.width;
  return a.features + image * a.strides.batch + y * a.strides.row + x * a.strides.column;
}

// Where an image's winning cells for the landmarks from `first` on are kept.
inline float* winning_cells(const HeadDecodeArgs& a, std::int64_t image, std::int64_t first) {
  return a.cells + image * ((a.landmarks + kPanel - 1) / kPanel * kPanel) + first;
}

// ROWS x COLUMNS dot products of contiguous weight rows with feature columns.
template <int ROWS, int COLUMNS, class Weight>
inline void dot_rows(const Weight* weight, std::int64_t channels, const float* const* column, float* const* results,
                     std::int64_t first_row) {
  weight += first_row * channels;
  DotVec sum[COLUMNS][ROWS];
  for (int i = 0; i < COLUMNS; ++i)
    for (int r = 0; r < ROWS; ++r) sum[i][r] = DotVec::broadcast(0.0f);
  std::int64_t c = 0;
  for (; c + DotVec::kLanes <= channels; c += DotVec::kLanes) {
    DotVec feature[COLUMNS];
    for (int i = 0; i < COLUMNS; ++i) feature[i] = DotVec::load(column[i] + c);
    for (int r = 0; r < ROWS; ++r) {
      const DotVec row = DotVec::load(weight + r * channels + c);
      for (int i = 0; i < COLUMNS; ++i) sum[i][r] = DotVec::fma(row, feature[i], sum[i][r]);
    }
  }
  for (int i = 0; i < COLUMNS; ++i) {
    float* const out = results[i] + first_row;
    for (int r = 0; r < ROWS; r += 2) DotVec::sum_two(sum[i][r], sum[i][r + 1], out + r);
    for (int r = 0; c < channels && r < ROWS; ++r)
      for (std::int64_t j = c; j < channels; ++j) out[r] += to_float(weight[r * channels + j]) * column[i][j];
  }
}

// The votes of a landmark in IMAGES images.
template <int IMAGES, class Weight>
inline void vote_in(const HeadDecodeArgs& a, std::int64_t image, std::int64_t landmark) {
  const std::int64_t rows = 2 * (1 + a.neighbors);
  const Weight* weight = static_cast<const Weight*>(a.vote_weight) + landmark * rows * a.channels;
  std::int64_t cell[IMAGES];
  const float* column[IMAGES];
  float* votes[IMAGES];
  for (int i = 0; i < IMAGES; ++i) {
    cell[i] = static_cast<std::int64_t>(*winning_cells(a, image + i, landmark));
    column[i] = cell_column(a, image + i, cell[i]);
    votes[i] = a.votes + ((image + i) * a.landmarks + landmark) * rows;
  }
  // As many sums at once as hide the latency of adding to one.
  constexpr int kRows = IMAGES == 1 ? 8 : 2;
  std::int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) dot_rows<kRows, IMAGES>(weight, a.channels, column, votes, r);
  switch (rows - r) {
    case 6: dot_rows<6, IMAGES>(weight, a.channels, column, votes, r); break;
    case 4: dot_rows<4, IMAGES>(weight, a.channels, column, votes, r); break;
    case 2: dot_rows<2, IMAGES>(weight, a.channels, column, votes, r); break;
    default: break;
  }
  const float* bias = a.vote_bias + landmark * rows;
  const float* scale = a.vote_scale == nullptr ? nullptr : a.vote_scale + landmark * rows;
  for (int i = 0; i < IMAGES; ++i) {
    const float corner[2] = {static_cast<float>(cell[i] % a.grid.width), static_cast<float>(cell[i] / a.grid.width)};
    for (r = 0; r < rows; ++r) {
      if (scale != nullptr) votes[i][r] *= scale[r];
      votes[i][r] += corner[r % 2] + bias[r];
    }
  }
}

// Winners of the last landmarks, from `first` on, which are too few for a panel: row by row, with channels as lanes.
template <class Weight>
void score_rows(const HeadDecodeArgs& a, std::int64_t first) {
  const std::int64_t count = a.landmarks - first, rows = count + count % 2, cells = a.grid.height * a.grid.width;
  const Weight* weight = static_cast<const Weight*>(a.score_weight) + first * a.channels;
  for (std::int64_t c = 0; c < a.channels; ++c, weight += kPanel) {
    float lanes[kPanel];
    for (int v = 0; v < kVecs; ++v) Vec::load(weight + v * Vec::kLanes).store(lanes + v * Vec::kLanes);
    for (std::int64_t r = 0; r < rows; ++r) a.rows[r * a.channels + c] = lanes[r];
  }
  constexpr int kCells = 4;
  for (std::int64_t image = 0; image < a.batch; ++image) {
    float *best = a.scores + image * a.landmarks + first, *winner = winning_cells(a, image, first);
    for (std::int64_t i = 0; i < count; ++i) best[i] = kLowest, winner[i] = 0.0f;
    for (std::int64_t cell = 0; cell < cells; cell += kCells) {
      const float* column[kCells];
      float sums[kCells][kFewLandmarks], *sum[kCells];
      for (std::int64_t t = 0; t < kCells; ++t) {
        column[t] = cell_column(a, image, cell + t < cells ? cell + t : cell);
        sum[t] = sums[t];
      }
      for (std::int64_t r = 0; r < rows; r += 2) dot_rows<2, kCells>(a.rows, a.channels, column, sum, r);
      for (std::int64_t t = 0; t < kCells && cell + t < cells; ++t) {
        for (std::int64_t i = 0; i < count; ++i) {
          const float scale = a.score_scale == nullptr ? 1.0f : a.score_scale[first + i];
          const float score = sums[t][i] * scale + a.score_bias[first + i];
          if (score > best[i]) best[i] = score, winner[i] = static_cast<float>(cell + t);
        }
      }
    }
  }
}

// Landmarks [next, end) whose winners are known, and which have not voted.
struct Voters {
  std::int64_t next, end;
};

template <class Weight>
inline void vote_up_to(const HeadDecodeArgs& a, Voters& voters, std::int64_t last) {
  for (; voters.next < last; ++voters.next) {
    std::int64_t image = 0;
    for (; image + 4 <= a.batch; image += 4) vote_in<4, Weight>(a, image, voters.next);
    for (; image < a.batch; ++image) vote_in<1, Weight>(a, image, voters.next);
  }
}

template <class Weight>
inline const char* vote_rows(const HeadDecodeArgs& a, std::int64_t landmark) {
  const std::int64_t size = 2 * (1 + a.neighbors) * a.channels * static_cast<std::int64_t>(sizeof(Weight));
  return static_cast<const char*>(a.vote_weight) + landmark * size;
}

// How far the fetching may be ahead of the votes: half the second-level cache of a small core.
constexpr std::ptrdiff_t kFarthest = 256 << 10;

template <class Weight>
inline const char* fetch_end(const HeadDecodeArgs& a, std::int64_t landmark) {
  const char *here = vote_rows<Weight>(a, landmark), *end = vote_rows<Weight>(a, a.landmarks);
  return end - here < kFarthest ? end : here + kFarthest;
}

// Winners of a panel in all images; meanwhile the voters vote.
template <class Weight>
void score_panel(const HeadDecodeArgs& a, std::int64_t panel, Voters& voters, Ahead& ahead) {
  constexpr std::int64_t T = kTileCells;
  const Weight* weight = static_cast<const Weight*>(a.score_weight) + panel * a.channels * kPanel;
  const std::int64_t first = panel * kPanel, cells = a.grid.height * a.grid.width;
  const std::int64_t count = a.landmarks - first < kPanel ? a.landmarks - first : kPanel;
  Vec start[kVecs];
  for (int v = 0; v < kVecs; ++v) {
    const std::int64_t lane = first + v * Vec::kLanes;
    start[v] = Vec::load(a.score_bias + lane);
    if (a.score_scale != nullptr) start[v] = Vec::divide(start[v], Vec::load(a.score_scale + lane));
  }
  const std::int64_t tiles = a.batch * ((cells + T - 1) / T), waiting = voters.end - voters.next;
  std::int64_t tile = 0;
  for (std::int64_t image = 0; image < a.batch; ++image) {
    Winners best;
    for (int v = 0; v < kVecs; ++v) {
      best.score[v] = Vec::broadcast(kLowest);
      best.cell[v] = Vec::broadcast(0.0f);
    }
    for (std::int64_t cell = 0; cell < cells; cell += T) {
      ahead.end = fetch_end<Weight>(a, voters.next);
      const float* column[T];
      std::int64_t left = cells - cell < T ? cells - cell : T, done = 0;
      for (std::int64_t t = 0; t < left; ++t) column[t] = cell_column(a, image, cell + t);
      const auto score = [&](auto size) {
        constexpr int kSize = decltype(size)::value;
        score_tile<kSize>(weight, start, a.channels, column + done, cell + done, best, ahead);
        done += kSize, left -= kSize;
      };
      if (left == T) score(Size<T>{});
      if (left >= 4) score(Size<4>{});
      if (left >= 2) score(Size<2>{});
      if (left >= 1) score(Size<1>{});
      vote_up_to<Weight>(a, voters, voters.end - waiting + waiting * ++tile / tiles);
    }
    float scores[kPanel];
    for (int v = 0; v < kVecs; ++v) {
      best.score[v].store(scores + v * Vec::kLanes);
      best.cell[v].store(winning_cells(a, image, first) + v * Vec::kLanes);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const float scale = a.score_scale == nullptr ? 1.0f : a.score_scale[first + i];
      a.scores[image * a.landmarks + first + i] = scores[i] * scale;
    }
  }
}

template <class Weight>
void panels_stored_as(const HeadDecodeArgs& a, std::int64_t begin, std::int64_t end) {
  Voters voters{begin * kPanel, begin * kPanel};
  Ahead ahead{vote_rows<Weight>(a, voters.next), nullptr};
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const std::int64_t first = panel * kPanel, last = first + kPanel < a.landmarks ? first + kPanel : a.landmarks;
    if (last - first <= kFewLandmarks) {
      vote_up_to<Weight>(a, voters, voters.end);
      score_rows<Weight>(a, first);
    } else {
      score_panel<Weight>(a, panel, voters, ahead);
    }
    voters = {first, last};
  }
  vote_up_to<Weight>(a, voters, voters.end);
}

void head_decode_panels(const HeadDecodeArgs& a, std::int64_t begin, std::int64_t end) {
  switch (a.storage) {
    case Storage::float32: return panels_stored_as<float>(a, begin, end);
    case Storage::float16: return panels_stored_as<Half>(a, begin, end);
    case Storage::int8: return panels_stored_as<std::int8_t>(a, begin, end);
  }
}

}  // namespace
}  // namespace pipnet
