// Small networks of random weights, and what they give: layer by layer, in double precision, straight from the layers'
// definitions (csrc/engine/network.h, layer_type.h).
#pragma once

#include <utility>

#include "check.h"
#include "engine/network.h"

namespace check {

class NaiveNetwork {
 public:
  NaiveNetwork(Index input_size, pipnet::Storage storage, std::uint32_t seed) : engine_(seed) {
    network.input_size = input_size;
    network.weight_storage = storage;
  }
  NaiveNetwork(NaiveNetwork&&) = default;

  // A tensor that is no layer's: for the steps that read it.
  Index given(const pipnet::TensorShape& shape) {
    pipnet::Layer layer{};
    layer.output = shape, layer.residual = -1;
    return add(layer);
  }

  // Each appends a layer and returns the tensor that it writes.
  Index convolution(Index input, Index channels, Index kernel, Index stride = 1,
                    Activation activation = Activation::none, Index residual = -1) {
    const Index fan = shape(input).channels * kernel * kernel;
    pipnet::Layer layer = windowed(pipnet::LayerKind::convolution, input, channels, kernel, stride, activation);
    layer.residual = residual;
    layer.weight = numbers(channels * fan, fan);
    layer.bias = numbers(channels, 4);
    return add(layer);
  }
  Index depthwise(Index input, Index kernel, Index stride, Activation activation = Activation::none) {
    const Index channels = shape(input).channels;
    pipnet::Layer layer = windowed(pipnet::LayerKind::depthwise, input, channels, kernel, stride, activation);
    layer.weight = numbers(channels * kernel * kernel, kernel * kernel);
    layer.bias = numbers(channels, 4);
    return add(layer);
  }
  Index deconvolution(Index input, Index channels, Activation activation = Activation::none) {
    const pipnet::TensorShape in = shape(input);
    pipnet::Layer layer = windowed(pipnet::LayerKind::deconvolution, input, channels, 4, 2, activation);
    layer.padding = 1;
    layer.output = {channels, 2 * in.height, 2 * in.width};
    layer.weight = numbers(in.channels * channels * 16, in.channels * 4);
    layer.bias = numbers(channels, 4);
    return add(layer);
  }
  Index max_pool(Index input) {
    return add(windowed(pipnet::LayerKind::max_pool, input, shape(input).channels, 3, 2, Activation::none));
  }
  Index gate(Index input, Index squeezed, Activation activation = Activation::none) {
    const Index channels = shape(input).channels;
    pipnet::Layer layer = windowed(pipnet::LayerKind::gate, input, channels, 1, 1, activation);
    layer.kernel = layer.stride = 0;
    layer.squeezed = squeezed;
    layer.weight = numbers(squeezed * channels, channels);
    layer.bias = numbers(squeezed, 4);
    layer.weight2 = numbers(channels * squeezed, 1);
    layer.bias2 = numbers(channels, 4);
    return add(layer);
  }

  pipnet::TensorShape shape(Index tensor) const { return network.shape(tensor); }
  Index floats(Index tensor) const { return shape(tensor).channels * shape(tensor).height * shape(tensor).width; }
  Floats random(Index count, Index fan = 3) { return uniform(count, fan); }

  // What layer `number` makes of its tensors (C, H, W).
  Doubles layer_output(std::size_t number, const Doubles& input, const Doubles* residual) const {
    const pipnet::Layer& layer = network.layers[number];
    const pipnet::TensorShape in = shape(layer.input), out = layer.output;
    Doubles output(size(out.channels * out.height * out.width));
    const Doubles gates = layer.kind == pipnet::LayerKind::gate ? gates_of(layer, input) : Doubles();
    for (std::size_t i = 0; i < output.size(); ++i) {
      const Index pixel = Index(i) % (out.height * out.width), o = Index(i) / (out.height * out.width);
      const Index y = pixel / out.width, x = pixel % out.width;
      double sum = layer.bias == nullptr || !gates.empty() ? 0.0 : double(layer.bias[o]);
      switch (layer.kind) {
        case pipnet::LayerKind::convolution:
          for (Index c = 0; c < in.channels; ++c) {
            const float* const weight = layer.weight + (o * in.channels + c) * layer.kernel * layer.kernel;
            sum += window(layer, in, input, c, y, x, weight);
          }
          break;
        case pipnet::LayerKind::depthwise:
          sum += window(layer, in, input, o, y, x, layer.weight + o * layer.kernel * layer.kernel);
          break;
        case pipnet::LayerKind::deconvolution:
          for (Index tap = 0; tap < 16; ++tap) {
            // Pixel (row, column) of the input adds its tap (v, u) to pixel (2 row - 1 + v, 2 column - 1 + u).
            const Index row = y + 1 - tap / 4, column = x + 1 - tap % 4;
            if (row < 0 || column < 0 || row % 2 != 0 || column % 2 != 0) continue;
            if (row / 2 >= in.height || column / 2 >= in.width) continue;
            for (Index c = 0; c < in.channels; ++c)
              sum += input[size((c * in.height + row / 2) * in.width + column / 2)] *
                     double(layer.weight[(c * out.channels + o) * 16 + tap]);
          }
          break;
        case pipnet::LayerKind::max_pool:
          sum = -INFINITY;
          for (Index tap = 0; tap < 9; ++tap) {
            const Index row = 2 * y - 1 + tap / 3, column = 2 * x - 1 + tap % 3;
            if (row >= 0 && row < in.height && column >= 0 && column < in.width)
              sum = std::max(sum, input[size((o * in.height + row) * in.width + column)]);
          }
          break;
        case pipnet::LayerKind::gate: sum = input[i] * gates[size(o)]; break;
      }
      if (residual != nullptr) sum += (*residual)[i];
      output[i] = activated(layer.activation, sum);
    }
    return output;
  }

  // The last tensor (H, W, C) of a normalized crop (3, S, S).
  Doubles run(const Doubles& crop) const {
    std::vector<Doubles> tensors{crop};
    for (std::size_t i = 0; i < network.layers.size(); ++i) {
      const pipnet::Layer& layer = network.layers[i];
      tensors.push_back(layer_output(i, tensors[size(layer.input)],
                                     layer.residual < 0 ? nullptr : &tensors[size(layer.residual)]));
    }
    const pipnet::TensorShape last = network.layers.back().output;
    const Index pixels = last.height * last.width;
    Doubles features(tensors.back().size());
    for (Index c = 0; c < last.channels; ++c)
      for (Index pixel = 0; pixel < pixels; ++pixel)
        features[size(pixel * last.channels + c)] = tensors.back()[size(c * pixels + pixel)];
    return features;
  }

  pipnet::Network network{};  // points into arrays_

 private:
  pipnet::Layer windowed(pipnet::LayerKind kind, Index input, Index channels, Index kernel, Index stride,
                         Activation activation) const {
    const pipnet::TensorShape in = shape(input);
    pipnet::Layer layer{};
    layer.kind = kind, layer.activation = activation;
    layer.input = input, layer.residual = -1;
    layer.kernel = kernel, layer.stride = stride, layer.padding = kernel / 2;
    layer.output = {channels, (in.height - 1) / stride + 1, (in.width - 1) / stride + 1};
    return layer;
  }

  Index add(const pipnet::Layer& layer) {
    network.layers.push_back(layer);
    return static_cast<Index>(network.layers.size());
  }

  // Of a variance that keeps the sums of `fan` products near 1.
  Floats uniform(Index count, Index fan) {
    const double limit = std::sqrt(3.0 / static_cast<double>(fan));
    Floats values(size(count));
    for (float& value : values) value = static_cast<float>((static_cast<double>(engine_()) * 0x1p-31 - 1.0) * limit);
    return values;
  }
  const float* numbers(Index count, Index fan) {
    arrays_.push_back(uniform(count, fan));
    return arrays_.back().data();
  }

  static double window(const pipnet::Layer& layer, const pipnet::TensorShape& in, const Doubles& input, Index channel,
                       Index y, Index x, const float* weight) {
    double sum = 0.0;
    for (Index v = 0; v < layer.kernel; ++v) {
      for (Index u = 0; u < layer.kernel; ++u, ++weight) {
        const Index row = y * layer.stride - layer.padding + v, column = x * layer.stride - layer.padding + u;
        if (row >= 0 && row < in.height && column >= 0 && column < in.width)
          sum += input[size((channel * in.height + row) * in.width + column)] * double(*weight);
      }
    }
    return sum;
  }

  static Doubles gates_of(const pipnet::Layer& layer, const Doubles& input) {
    const Index channels = layer.output.channels, pixels = layer.output.height * layer.output.width;
    Doubles hidden, gates;
    for (Index s = 0; s < layer.squeezed; ++s) {
      double sum = 0.0;
      for (Index i = 0; i < channels * pixels; ++i)
        sum += input[size(i)] * double(layer.weight[s * channels + i / pixels]) / static_cast<double>(pixels);
      hidden.push_back(std::max(sum + double(layer.bias[s]), 0.0));
    }
    for (Index c = 0; c < channels; ++c) {
      double sum = layer.bias2[c];
      for (Index s = 0; s < layer.squeezed; ++s) sum += hidden[size(s)] * double(layer.weight2[c * layer.squeezed + s]);
      gates.push_back(std::min(std::max(sum + 3.0, 0.0), 6.0) / 6.0);
    }
    return gates;
  }

  std::mt19937 engine_;
  std::vector<Floats> arrays_;
};

}  // namespace check
