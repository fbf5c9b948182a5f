#include "head_decode.h"

#include <algorithm>
#include <atomic>

#include "isa.h"
#include "merge.h"
#include "parallel.h"
#include "scratch.h"

namespace pipnet {

class Panels {
 public:
  std::int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> next_{0};
};

std::int64_t take_panel(Panels& panels) { return panels.take(); }

namespace {

// A thread with fewer multiplications than this to do is not worth waking.
constexpr std::int64_t kMultipliesPerThread = std::int64_t{1} << 21;

std::int64_t multiplies(const HeadDecodeArgs& a) {
  const std::int64_t rows = a.grid.height * a.grid.width + 2 * (1 + a.neighbors);
  return a.batch * a.landmarks * rows * a.channels;
}

// Images that take turns with a landmark's weights before the next landmark's are read.
constexpr std::int64_t kImages = 8;
// Cells that are transposed together: a column's stores keep to as many lines as a cache set has ways.
constexpr std::int64_t kBlock = 8;

// One block of cells of one image, channels innermost.
void transpose_block(const HeadDecodeArgs& a, std::int64_t image, std::int64_t first, float* columns) {
  const std::int64_t cells = a.grid.height * a.grid.width, last = std::min(first + kBlock, cells);
  const float* column[kBlock];
  for (std::int64_t cell = first; cell < last; ++cell) {
    column[cell - first] = a.features + image * a.strides.batch + cell / a.grid.width * a.strides.row +
                           cell % a.grid.width * a.strides.column;
  }
  float* out = columns + (image * cells + first) * a.channels;
  for (std::int64_t c = 0; c < a.channels; ++c)
    for (std::int64_t i = 0; i < last - first; ++i) out[i * a.channels + c] = column[i][c * a.strides.channel];
}

void transpose(HeadDecodeArgs& args, float* columns, int threads) {
  const std::int64_t cells = args.grid.height * args.grid.width, blocks = (cells + kBlock - 1) / kBlock;
  parallel_for(args.batch * blocks, threads, [&](std::int64_t block) {
    transpose_block(args, block / blocks, block % blocks * kBlock, columns);
  });
  args.features = columns;
  args.strides = {cells * args.channels, 1, args.grid.width * args.channels, args.channels};
}

}  // namespace

void head_decode(HeadDecodeArgs args, int threads) {
  threads = worthwhile_threads(multiplies(args), kMultipliesPerThread, threads);
  HeadDecodePanels* const run = current_isa().loops.head_decode_panels;
  const std::int64_t panels = (args.landmarks + kPanel - 1) / kPanel, batch = args.batch;
  // What the implementations take; other layouts are transposed.
  const bool fit = args.strides.channel == 1 &&
                   (args.grid.height == 1 || args.strides.row == args.grid.width * args.strides.column);
  const std::int64_t columns = fit ? 0 : args.grid.height * args.grid.width * args.channels;
  const std::int64_t votes = args.landmarks * (1 + args.neighbors) * 2;
  const std::int64_t each = panels * kPanel + votes + columns;
  args.rows = thread_scratch(static_cast<std::size_t>(kFewLandmarks * args.channels + std::min(batch, kImages) * each));
  args.cells = args.rows + kFewLandmarks * args.channels;
  for (std::int64_t first = 0; first < batch; first += kImages) {
    HeadDecodeArgs images = args;
    images.batch = std::min(batch - first, kImages);
    images.features += first * args.strides.batch;
    images.points += first * args.landmarks * 2;
    images.scores += first * args.landmarks;
    images.votes = images.cells + images.batch * panels * kPanel;
    if (columns != 0) transpose(images, images.votes + images.batch * votes, threads);
    Panels waiting;
    parallel_for(std::min<std::int64_t>(panels, threads), threads, [&](std::int64_t) { run(images, waiting); });
    merge_votes(images);
  }
}

}  // namespace pipnet
