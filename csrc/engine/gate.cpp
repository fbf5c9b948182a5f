#include "gate.h"

#include <stdexcept>

#include "../parallel.h"
#include "layer_type.h"

namespace pipnet {
namespace {

// Weights that one thread reads faster than another is woken.
constexpr std::int64_t kFewWeights = 1 << 14;

void run_layer(const Call& call, const float* input, const PackedWeights& weights, const AlignedBytes& bias,
               std::int64_t inputs, std::int64_t outputs, GateStep step, float* output) {
  const std::int64_t blocks = blocks_of(outputs);
  const int parts = worthwhile_threads(inputs * outputs, kFewWeights, call.threads);
  parallel_for(parts, parts, [&](std::int64_t part) {
    call.kernels.linear({input, inputs, static_cast<const float*>(weights.matrix(0)), bias.floats(), step, output,
                         blocks * part / parts, blocks * (part + 1) / parts});
  });
}

void check_window(const Layer& layer, const std::string& where) { expect_window(layer, 0, 0, 0, where); }

std::int64_t side(const Layer&, std::int64_t input) { return input; }

ArraySizes arrays(const Layer& layer, std::int64_t) {
  const std::int64_t channels = layer.output.channels, weights = layer.squeezed * channels;
  return {weights, layer.squeezed, weights, channels};
}

StepPointer make(const Network&, std::size_t) {
  throw std::invalid_argument("expected a gate right behind a depthwise convolution");
}

}  // namespace

Excitation::Excitation(const Layer& layer)
    : channels_(layer.output.channels),
      squeezed_(layer.squeezed),
      activation_(layer.activation),
      squeeze_(1, squeezed_, channels_, Storage::float32),
      expand_(1, channels_, squeezed_, Storage::float32),
      squeeze_bias_(packed_bias(layer.bias, squeezed_)),
      expand_bias_(packed_bias(layer.bias2, channels_)) {
  for (std::int64_t s = 0; s < squeezed_; ++s) {
    for (std::int64_t c = 0; c < channels_; ++c) {
      squeeze_.set(0, s, c, layer.weight[s * channels_ + c]);
      expand_.set(0, c, s, layer.weight2[c * squeezed_ + s]);
    }
  }
}

void Excitation::run(const Call& call, const float* means, float* hidden, float* gates) const {
  run_layer(call, means, squeeze_, squeeze_bias_, channels_, squeezed_, GateStep::relu, hidden);
  run_layer(call, hidden, expand_, expand_bias_, squeezed_, channels_, GateStep::hard_sigmoid, gates);
}

const LayerType kGate{kActivates | kKeepsChannels | kSqueezes | kJoins, check_window, side, arrays, make};

}  // namespace pipnet
