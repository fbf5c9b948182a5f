// A network as the engine takes it: layers in the order of execution, with plain weights. What a plan file holds
// (plan_file.h) and what a plan is made from (plan.h); independent of instruction sets.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels.h"
#include "layer_type.h"

namespace pipnet {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Blocks of kBlock channels, the last filled up.
constexpr std::int64_t blocks_of(std::int64_t channels) { return ceil_div(channels, kBlock); }

// Floats of one image's map, in whole blocks.
constexpr std::int64_t floats_of(const TensorShape& shape) {
  return blocks_of(shape.channels) * kBlock * shape.height * shape.width;
}

constexpr std::int64_t bytes_of(Storage storage) {
  return storage == Storage::float32 ? 4 : storage == Storage::float16 ? 2 : 1;
}

// Reads tensor `input` and writes a tensor of its own, layer i tensor i + 1; tensor 0 is the normalized crop.
//     output = activation(operation(input) + residual)
struct Layer {
  LayerKind kind;
  Activation activation;
  std::int64_t input;
  std::int64_t residual;  // a tensor of the output's shape, or -1; of convolutions only
  std::int64_t kernel, stride, padding;
  std::int64_t squeezed;  // S of a gate, else 0
  TensorShape output;
  const float *weight, *bias;    // of a gate W1 and b1
  const float *weight2, *bias2;  // of a gate, else null
};

// The head and its table, packed as pipnet_fast/ops/types.py packs them.
struct HeadWeights {
  std::int64_t landmarks, neighbors;
  Storage storage;
  const void *score_weight, *vote_weight;
  const float *score_bias, *vote_bias;
  const float *score_scale, *vote_scale;  // null unless int8
  MergeTable table;

  std::int64_t score_rows() const { return ceil_div(landmarks, kPanel) * kPanel; }
  std::int64_t votes() const { return landmarks * (1 + neighbors); }  // of two rows each, for x and y
};

struct Network {
  std::int64_t input_size;  // side of the square crop, px
  float crop_scale, crop_top_shift;  // how a crop follows from a face box (pipnet_fast/crop.py)
  bool pixel_centers;      // fractions of the crop count from the center of its first pixel, else from its edge
  Storage weight_storage;  // what a plan keeps the layers' weights as: float32 or float16
  std::vector<Layer> layers;
  std::optional<HeadWeights> head;  // of the last layer's output
  int threads = 1;                  // that a plan of it is made with

  TensorShape shape(std::int64_t tensor) const {
    return tensor == 0 ? TensorShape{3, input_size, input_size} : layers[static_cast<std::size_t>(tensor - 1)].output;
  }
  // How often layers read a tensor.
  std::int64_t readers(std::int64_t tensor) const {
    std::int64_t count = 0;
    for (const Layer& layer : layers) count += (layer.input == tensor) + (layer.residual == tensor);
    return count;
  }
};

}  // namespace pipnet
