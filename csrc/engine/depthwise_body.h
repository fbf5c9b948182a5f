// The loops of Kernels::depthwise; ../isa/loops.h says what may stand here.
//
// A tile of outputs of one row is in registers at a time; of the kernel's rows those inside the plane are added one
// after the other, each column of the input being loaded once.
#pragma once

#include "activation.h"

namespace pipnet {
namespace {

constexpr int kDepthwiseTile = 8;  // sums enough to hide the latency of the multiply-add

alignas(64) constexpr float kZeros[kBlock] = {};

// What one row of outputs is computed from: the vector of channels is chosen by the pointers.
struct DepthwiseRow {
  const float* input;   // the first row of the input that is read
  std::int64_t width;   // of the input
  const float* weight;  // the kernel's row for it
  std::int64_t rows;    // of the kernel and the input that meet
  const float* bias;
  Activation activation;
  float* output;
};

// COUNT outputs that lie side by side. AT_EDGE: some of their columns may be outside of the plane, which only the first
// and the last `padding` ones can be.
template <int KERNEL, int STRIDE, int COUNT, bool AT_EDGE>
struct DepthwiseTile {
  static constexpr int kPadding = KERNEL / 2;
  static constexpr int kColumns = (COUNT - 1) * STRIDE + KERNEL;
  static constexpr int kHalf = (kColumns + 1) / 2;
  Vec sum[COUNT];
  Vec taps[KERNEL];

  // One column of the input, the first being `left`, times every tap that meets it; then those after it. Neighboring
  // columns add to the same sums: taking turns between the two halves, the latency of the multiply-add is hidden.
  template <int TURN>
  [[gnu::always_inline]] void add_columns(const float* row, std::int64_t left, std::int64_t width) {
    constexpr int kColumn = TURN % 2 * kHalf + TURN / 2;
    if constexpr (kColumn < kColumns) {
      constexpr bool kMayBeOutside = AT_EDGE && (kColumn < kPadding || kColumn >= kColumns - kPadding);
      const bool outside = kMayBeOutside && (left + kColumn < 0 || left + kColumn >= width);
      const Vec column = Vec::load(outside ? kZeros : row + (left + kColumn) * kBlock);
      constexpr int kFirst = kColumn < KERNEL ? 0 : (kColumn - KERNEL) / STRIDE + 1;
      constexpr int kLast = kColumn / STRIDE < COUNT ? kColumn / STRIDE : COUNT - 1;
      for (int t = kFirst; t <= kLast; ++t) sum[t] = Vec::fma(column, taps[kColumn - t * STRIDE], sum[t]);
    }
    if constexpr (TURN + 1 < 2 * kHalf) add_columns<TURN + 1>(row, left, width);
  }
};

// COUNT outputs from column x on; returns the sum of all but the first `repeated` of them.
template <int KERNEL, int STRIDE, int COUNT, bool AT_EDGE>
inline Vec depthwise_tile(const DepthwiseRow& r, std::int64_t x, std::int64_t repeated) {
  DepthwiseTile<KERNEL, STRIDE, COUNT, AT_EDGE> tile;
  const Vec bias = Vec::load(r.bias);
  for (int t = 0; t < COUNT; ++t) tile.sum[t] = bias;
  const float* input = r.input;
  const float* weight = r.weight;
  for (std::int64_t row = 0; row < r.rows; ++row, input += r.width * kBlock, weight += KERNEL * kBlock) {
    for (int k = 0; k < KERNEL; ++k) tile.taps[k] = Vec::load(weight + k * kBlock);
    tile.template add_columns<0>(input, x * STRIDE - KERNEL / 2, r.width);
  }
  Vec total = Vec::broadcast(0.0f);
  // Chosen here and not outside of the loops: a predicted branch for each tile costs less than four copies of the code.
  with_activation(r.activation, [&](auto constant) {
    for (int t = 0; t < COUNT; ++t) {
      const Vec output = activated<decltype(constant)::value>(tile.sum[t]);
      output.store(r.output + (x + t) * kBlock);
      if (t >= repeated) total = Vec::add(total, output);
    }
  });
  return total;
}

// `count` outputs, COUNT or more; returns their sum. The last tile ends with the row, and may repeat some outputs.
template <int KERNEL, int STRIDE, int COUNT>
inline Vec depthwise_tiles(const DepthwiseRow& r, std::int64_t count) {
  Vec sum = Vec::broadcast(0.0f);
  for (std::int64_t done = 0; done < count; done += COUNT) {
    const std::int64_t x = done + COUNT <= count ? done : count - COUNT;
    if constexpr (COUNT == kDepthwiseTile) {
      if (x > 0 && x == done && (x + COUNT - 1) * STRIDE + KERNEL / 2 < r.width) {
        sum = Vec::add(sum, depthwise_tile<KERNEL, STRIDE, COUNT, false>(r, x, 0));
        continue;
      }
    }
    sum = Vec::add(sum, depthwise_tile<KERNEL, STRIDE, COUNT, true>(r, x, done - x));
  }
  return sum;
}

template <int KERNEL, int STRIDE>
inline Vec depthwise_row(const DepthwiseRow& r, std::int64_t count) {
  if (count >= kDepthwiseTile) return depthwise_tiles<KERNEL, STRIDE, kDepthwiseTile>(r, count);
  if (count >= 4) return depthwise_tiles<KERNEL, STRIDE, 4>(r, count);
  return depthwise_tiles<KERNEL, STRIDE, 1>(r, count);
}

template <int KERNEL, int STRIDE>
void depthwise_rows(const DepthwiseTask& task) {
  Vec sums[kBlock / Vec::kLanes];
  for (Vec& sum : sums) sum = Vec::broadcast(0.0f);
  for (std::int64_t y = task.first; y < task.last; ++y) {
    const std::int64_t top = y * STRIDE - KERNEL / 2;
    const std::int64_t begin = top < 0 ? -top : 0;
    const std::int64_t end = top + KERNEL > task.height ? task.height - top : KERNEL;
    for (std::int64_t i = 0; i < kBlock / Vec::kLanes; ++i) {
      const std::int64_t lane = i * Vec::kLanes;
      const DepthwiseRow row{task.input + (top + begin) * task.width * kBlock + lane,
                             task.width,
                             task.weight + begin * KERNEL * kBlock + lane,
                             end - begin,
                             task.bias + lane,
                             task.activation,
                             task.output + y * task.out_width * kBlock + lane};
      sums[i] = Vec::add(sums[i], depthwise_row<KERNEL, STRIDE>(row, task.out_width));
    }
  }
  if (task.sums)
    for (std::int64_t i = 0; i < kBlock / Vec::kLanes; ++i) sums[i].store(task.sums + i * Vec::kLanes);
}

void depthwise(const DepthwiseTask& task) {
  if (task.kernel == 3)
    task.stride == 1 ? depthwise_rows<3, 1>(task) : depthwise_rows<3, 2>(task);
  else
    task.stride == 1 ? depthwise_rows<5, 1>(task) : depthwise_rows<5, 2>(task);
}

}  // namespace
}  // namespace pipnet
