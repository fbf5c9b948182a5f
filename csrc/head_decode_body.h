// The loops of Loops::head_decode_panels; isa/loops.h says what may stand here.
//
// A panel is kPanel landmarks. Their scores are lanes of vectors, so the running argmax over the cells is a
// compare and two blends, and never leaves the registers; then the votes are computed at the winning cells.
//
// Scores keep the arithmetic busy, votes wait for their weights, each of which is used once an image. So the two
// alternate: a tile of one panel's scores, meanwhile fetching weights ahead, then a few votes of the panel before.
// Where registers hold the sums of both (kVotesBeside), they alternate step by step, in one loop.
#pragma once

#include "head_decode.h"
#include "head_decode_loops.h"

namespace pipnet {
namespace {

// A number as a type.
template <int N>
struct Size {
  static constexpr int value = N;
};

// The channels of a cell, which are contiguous.
inline const float* cell_column(const HeadDecodeArgs& a, std::int64_t image, std::int64_t cell) {
  return a.features + image * a.strides.batch + cell * a.strides.column;
}

// Where an image's winning cells for the landmarks from `first` on are kept.
inline float* winning_cells(const HeadDecodeArgs& a, std::int64_t image, std::int64_t first) {
  return a.cells + image * ((a.landmarks + kPanel - 1) / kPanel * kPanel) + first;
}

// The votes of a landmark in IMAGES images; meanwhile the tile advances.
template <int IMAGES, class Weight, class Tile>
[[gnu::always_inline]] inline void vote_in(const HeadDecodeArgs& a, std::int64_t image, std::int64_t landmark,
                                           Tile& tile, Ahead& ahead) {
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
  constexpr int kRows = IMAGES == 1 ? Tile::kVoteRows : 2, kParts = kRows == 4 ? 2 : 1;
  std::int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    dot_rows<kRows, IMAGES, kParts>(weight, a.channels, column, votes, r, tile, ahead);
  if constexpr (kRows == 4) {
    if (r < rows) dot_rows<2, IMAGES, 4>(weight, a.channels, column, votes, r, tile, ahead);
  } else if constexpr (kRows == 8) {
    switch (rows - r) {
      case 6: dot_rows<6, IMAGES, 1>(weight, a.channels, column, votes, r, tile, ahead); break;
      case 4: dot_rows<4, IMAGES, 1>(weight, a.channels, column, votes, r, tile, ahead); break;
      case 2: dot_rows<2, IMAGES, 1>(weight, a.channels, column, votes, r, tile, ahead); break;
      default: break;
    }
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
  NoTile<2> no_tile;
  Ahead no_ahead{};
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
      for (std::int64_t r = 0; r < rows; r += 2)
        dot_rows<2, kCells, 1>(a.rows, a.channels, column, sum, r, no_tile, no_ahead);
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
void vote_up_to(const HeadDecodeArgs& a, Voters& voters, std::int64_t last) {
  // Where others of a grid's votes may stand beside a tile, these are summed in the same order: the result must not
  // depend on who votes when.
  const bool as_beside = kVotesBeside && a.grid.height * a.grid.width >= kTileCells;
  NoTile<kVotesBeside ? 4 : 8> few_rows;
  NoTile<8> many_rows;
  Ahead no_ahead{};
  for (; voters.next < last; ++voters.next) {
    std::int64_t image = 0;
    for (; image + 4 <= a.batch; image += 4) vote_in<4, Weight>(a, image, voters.next, many_rows, no_ahead);
    for (; image < a.batch; ++image) {
      if (as_beside) vote_in<1, Weight>(a, image, voters.next, few_rows, no_ahead);
      else vote_in<1, Weight>(a, image, voters.next, many_rows, no_ahead);
    }
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

// Scores of a panel at T cells from `cell` on, folded into the winners; meanwhile voters before `last` vote, if the
// tile has a channel for each of their steps. Never inlined: compilers then keep all its sums in registers.
template <int T, class Weight>
[[gnu::noinline]] void score_tile(const HeadDecodeArgs& a, std::int64_t image, const Weight* weight, const Vec* start,
                                  std::int64_t cell, Winners& best, Voters& voters, std::int64_t last, Ahead& shared) {
  Ahead ahead = shared;
  ScoreTile<T, Weight> tile;
  tile.weight = weight, tile.step = a.strides.column;
  for (int t = 0; t < T; t += 4) tile.column[t / 4] = cell_column(a, image, cell + t);
  tile.end = tile.column[0] + a.channels;
  for (int t = 0; t < T; ++t)
    for (int v = 0; v < kVecs; ++v) tile.sum[t][v] = start[v];
  if constexpr (kVotesBeside && T == kTileCells) {
    // A step takes eight vectors of weights.
    const std::int64_t steps = (1 + a.neighbors) * (a.channels / DotVec::kLanes) / 4;
    for (; a.batch == 1 && voters.next < last && tile.has(steps); ++voters.next)
      vote_in<1, Weight>(a, image, voters.next, tile, ahead);
  }
  while (tile.has(1)) tile.add_channel(ahead);
  shared = ahead;
  tile.fold(cell, best);
}

// Winners of a panel in all images; meanwhile the voters vote.
template <class Weight>
void score_panel(const HeadDecodeArgs& a, std::int64_t first, Voters& voters, Ahead& ahead) {
  constexpr std::int64_t T = kTileCells;
  const Weight* weight = static_cast<const Weight*>(a.score_weight) + first * a.channels;
  const std::int64_t cells = a.grid.height * a.grid.width;
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
      ahead.end = fetch_end<Weight>(a, first - (voters.end - voters.next));
      std::int64_t left = cells - cell < T ? cells - cell : T, at = cell;
      const std::int64_t last = voters.end - waiting + waiting * ++tile / tiles;
      const auto score = [&](auto size) {
        constexpr int kSize = decltype(size)::value;
        score_tile<kSize>(a, image, weight, start, at, best, voters, last, ahead);
        at += kSize, left -= kSize;
      };
      if (left == T) score(Size<T>{});
      if (left >= 4) score(Size<4>{});
      if (left >= 2) score(Size<2>{});
      if (left >= 1) score(Size<1>{});
      vote_up_to<Weight>(a, voters, last);
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
void panels_stored_as(const HeadDecodeArgs& a, Panels& panels) {
  Voters voters{0, 0};
  Ahead ahead{vote_rows<Weight>(a, 0), nullptr};
  for (std::int64_t first; (first = take_panel(panels) * kPanel) < a.landmarks;) {
    const std::int64_t last = first + kPanel < a.landmarks ? first + kPanel : a.landmarks;
    if (first != voters.end) ahead.next = vote_rows<Weight>(a, first);  // others took the panels between
    if (last - first <= kFewLandmarks) {
      vote_up_to<Weight>(a, voters, voters.end);
      score_rows<Weight>(a, first);
    } else {
      score_panel<Weight>(a, first, voters, ahead);
    }
    voters = {first, last};
  }
  vote_up_to<Weight>(a, voters, voters.end);
}

void head_decode_panels(const HeadDecodeArgs& a, Panels& panels) {
  switch (a.storage) {
    case Storage::float32: return panels_stored_as<float>(a, panels);
    case Storage::float16: return panels_stored_as<Half>(a, panels);
    case Storage::int8: return panels_stored_as<std::int8_t>(a, panels);
  }
}

}  // namespace
}  // namespace pipnet
