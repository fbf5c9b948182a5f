// Convolutions over all channels, but that of the crop (stem.cpp): which way each takes.
#include <stdexcept>

#include "layer_type.h"
#include "refuse.h"
#include "step.h"

namespace pipnet {
namespace {

void check_window(const Layer& layer, const std::string& where) {
  expect_between(layer.kernel, 1, 7, where, "kernel");
  if (layer.kernel % 2 == 0) refuse(where + "kernel", "an odd number", layer.kernel);
  expect_between(layer.stride, 1, 2, where, "stride");
  expect_between(layer.padding, 0, layer.kernel / 2, where, "padding");
}

ArraySizes arrays(const Layer& layer, std::int64_t inputs) {
  const std::int64_t outputs = layer.output.channels;
  return {outputs * inputs * layer.kernel * layer.kernel, outputs, 0, 0};
}

StepPointer make(const Network& network, std::size_t i) {
  const Layer& layer = network.layers[i];
  if (layer.kernel == 1) return make_pointwise(network, i);
  if (layer.kernel == 3 && layer.padding == 1) return make_winograd(network, i);
  const std::string kernel = std::to_string(layer.kernel);
  throw std::invalid_argument("expected a convolution of 1x1 or, padded by 1, 3x3; got " + kernel + "x" + kernel +
                              " padded by " + std::to_string(layer.padding));
}

}  // namespace

const LayerType kConvolution{kActivates | kAddsResidual | kEnds, check_window, window_side, arrays, make};

}  // namespace pipnet
