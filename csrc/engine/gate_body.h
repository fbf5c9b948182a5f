// The loops of Kernels::linear and Kernels::scale, the two halves of squeeze and excite; ../isa/loops.h says what may
// stand here.
#pragma once

#include "activation.h"

namespace pipnet {
namespace {

// BLOCKS blocks of outputs, by PARTS sums of every output, each over every PARTS-th input: the latency of the
// multiply-add wants several sums at once.
template <int BLOCKS, int PARTS>
inline void linear_tile(const LinearTask& task, std::int64_t block) {
  Vec sum[PARTS][BLOCKS][kBlockVecs];
  for (int p = 0; p < PARTS; ++p)
    for (int b = 0; b < BLOCKS; ++b)
      for (int v = 0; v < kBlockVecs; ++v) sum[p][b][v] = Vec::broadcast(0.0f);
  const std::int64_t size = task.inputs * kBlock;
  const float* weight = task.weight + block * size;
  const auto add_input = [&](std::int64_t i, Vec(&sums)[BLOCKS][kBlockVecs]) {
    const Vec input = Vec::broadcast(task.input[i]);
    for (int b = 0; b < BLOCKS; ++b)
      for (int v = 0; v < kBlockVecs; ++v)
        sums[b][v] = Vec::fma(input, Vec::load(weight + b * size + i * kBlock + v * Vec::kLanes), sums[b][v]);
  };
  std::int64_t i = 0;
  for (; i + PARTS <= task.inputs; i += PARTS)
    for (int p = 0; p < PARTS; ++p) add_input(i + p, sum[p]);
  for (; i < task.inputs; ++i) add_input(i, sum[0]);
  for (int b = 0; b < BLOCKS; ++b) {
    for (int v = 0; v < kBlockVecs; ++v) {
      const std::int64_t output = (block + b) * kBlock + v * Vec::kLanes;
      Vec total = Vec::load(task.bias + output);
      for (int p = 0; p < PARTS; ++p) total = Vec::add(total, sum[p][b][v]);
      total = task.step == GateStep::relu ? activated<Activation::relu>(total) : hard_sigmoid(total);
      total.store(task.output + output);
    }
  }
}

void linear(const LinearTask& task) {
  constexpr int kBlocks = kBlockVecs == 1 ? 4 : kBlockVecs == 2 ? 2 : 1;
  constexpr int kParts = kBlockVecs > 4 ? 1 : 2;
  std::int64_t block = task.first;
  for (; block + kBlocks <= task.last; block += kBlocks) linear_tile<kBlocks, kParts>(task, block);
  for (; block < task.last; ++block) linear_tile<1, kBlocks * kParts>(task, block);
}

void scale(const ScaleTask& task) {
  with_activation(task.activation, [&](auto constant) {
    Vec gate[kBlockVecs];
    for (int v = 0; v < kBlockVecs; ++v) gate[v] = Vec::load(task.gate + v * Vec::kLanes);
    for (std::int64_t pixel = 0; pixel < task.pixels; ++pixel) {
      for (int v = 0; v < kBlockVecs; ++v) {
        const std::int64_t at = pixel * kBlock + v * Vec::kLanes;
        const Vec scaled = Vec::mul(Vec::load(task.input + at), gate[v]);
        activated<decltype(constant)::value>(scaled).store(task.output + at);
      }
    }
  });
}

}  // namespace
}  // namespace pipnet
