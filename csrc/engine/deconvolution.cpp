// 4x4 deconvolutions of stride 2.
#include "layer_type.h"
#include "step.h"

namespace pipnet {
namespace {

void check_window(const Layer& layer, const std::string& where) { expect_window(layer, 4, 2, 1, where); }

std::int64_t side(const Layer&, std::int64_t input) { return 2 * input; }

ArraySizes arrays(const Layer& layer, std::int64_t inputs) {
  const std::int64_t outputs = layer.output.channels;
  return {inputs * outputs * layer.kernel * layer.kernel, outputs, 0, 0};
}

}  // namespace

const LayerType kDeconvolution{kActivates | kEnds, check_window, side, arrays, make_winograd};

}  // namespace pipnet
