#include "layer_type.h"

#include <iterator>
#include <stdexcept>

#include "network.h"
#include "refuse.h"

namespace pipnet {

const LayerType& type_of(LayerKind kind) {
  const auto number = static_cast<std::uint32_t>(kind);
  if (number < 1 || number > std::size(kLayerTypes)) throw std::invalid_argument("unknown kind");
  return *kLayerTypes[number - 1];
}

void expect_window(const Layer& layer, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                   const std::string& where) {
  expect_between(layer.kernel, kernel, kernel, where, "kernel");
  expect_between(layer.stride, stride, stride, where, "stride");
  expect_between(layer.padding, padding, padding, where, "padding");
}

std::int64_t window_side(const Layer& layer, std::int64_t input) {
  return (input + 2 * layer.padding - layer.kernel + layer.stride) / layer.stride;
}

}  // namespace pipnet
