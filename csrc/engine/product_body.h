// Matrix products: every convolution's arithmetic; ../isa/loops.h says what may stand here.
#pragma once

#include "activation.h"
#include "kernels.h"

namespace pipnet {
namespace {

// Sums of T pixels, PIXEL floats apart, for one block of outputs. Never inlined: compilers then keep them in registers.
template <int T, int PIXEL, class Weight>
[[gnu::noinline]] void product_tile(const ProductTask& task, const float* input, const Weight* weight,
                                    std::int64_t length, const float* bias, const float* residual, float* output) {
  Vec sum[T][kBlockVecs];
  for (int v = 0; v < kBlockVecs; ++v) {
    const Vec start = bias == nullptr ? Vec::broadcast(0.0f) : Vec::load(bias + v * Vec::kLanes);
    for (int t = 0; t < T; ++t) sum[t][v] = start;
  }
  for (std::int64_t left = task.inputs; left > 0; left -= length, input += task.run) {
    const float* const end = input + (left < length ? left : length);
    for (const float* x = input; x < end; ++x, weight += kBlock) {
      Vec row[kBlockVecs];
      for (int v = 0; v < kBlockVecs; ++v) row[v] = Vec::load(weight + v * Vec::kLanes);
      for (int t = 0; t < T; ++t) {
        const Vec feature = Vec::broadcast(x[t * PIXEL]);
        for (int v = 0; v < kBlockVecs; ++v) sum[t][v] = Vec::fma(feature, row[v], sum[t][v]);
      }
    }
  }
  with_activation(task.activation, [&](auto activation) {
    for (int t = 0; t < T; ++t) {
      for (int v = 0; v < kBlockVecs; ++v) {
        Vec y = sum[t][v];
        if (residual != nullptr) y = Vec::add(y, Vec::load(residual + t * kBlock + v * Vec::kLanes));
        activated<decltype(activation)::value>(y).store(output + t * task.pixel + v * Vec::kLanes);
      }
    }
  });
}

template <int PIXEL, class Weight>
void product_of(const ProductTask& task, std::int64_t length) {
  for (std::int64_t block = task.first; block < task.last; ++block) {
    const Weight* const weight = static_cast<const Weight*>(task.weight) + block * task.inputs * kBlock;
    const float* const bias = task.bias == nullptr ? nullptr : task.bias + block * kBlock;
    std::int64_t pixel = 0;
    const auto tile = [&](auto run) {
      const float* const residual =
          task.residual == nullptr ? nullptr : task.residual + block * task.residual_block + pixel * kBlock;
      run(task, task.input + pixel * PIXEL, weight, length, bias, residual,
          task.output + block * task.block + pixel * task.pixel);
    };
    while (pixel < task.pixels) {
      const std::int64_t left = task.pixels - pixel;
      // Two tiles of half the size are better than a large one and a small one, whose few sums wait for one another.
      if (left >= kProductTile && left != kProductTile + 2) {
        tile(product_tile<kProductTile, PIXEL, Weight>);
        pixel += kProductTile;
      } else if (kProductTile > 8 && left >= 8) {
        tile(product_tile<8, PIXEL, Weight>);
        pixel += 8;
      } else if (kProductTile > 4 && left >= 4) {
        tile(product_tile<4, PIXEL, Weight>);
        pixel += 4;
      } else if (kProductTile > 2 && left >= 2) {
        tile(product_tile<2, PIXEL, Weight>);
        pixel += 2;
      } else {
        tile(product_tile<1, PIXEL, Weight>);
        pixel += 1;
      }
    }
  }
}

// Pixels of a crop are three floats, and the first layer's outputs two pixels apart.
constexpr int kCropPixel = 6;

void product(const ProductTask& task) {
  if (task.storage == Storage::float16) return product_of<kBlock, Half>(task, kBlock);
  product_of<kBlock, float>(task, kBlock);
}

void crop_product(const ProductTask& task, std::int64_t length) {
  if (task.storage == Storage::float16) return product_of<kCropPixel, Half>(task, length);
  product_of<kCropPixel, float>(task, length);
}

}  // namespace
}  // namespace pipnet
