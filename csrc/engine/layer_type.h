// The kinds of layers. All that there is to know of one is its LayerType, in the file of that kind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace pipnet {

struct Layer;
struct Network;
class Step;

enum class LayerKind : std::uint32_t {
  convolution = 1,    // weight (O, I, k, k), bias (O)
  depthwise = 2,      // weight (C, k, k), bias (C)
  deconvolution = 3,  // weight (I, O, 4, 4), bias (O); stride 2, padding 1
  max_pool = 4,       // no weights; padding counts as minus infinity
  gate = 5,           // x times hard_sigmoid(W2 relu(W1 mean(x) + b1) + b2), squeeze and excite: W1 (S, C), W2 (C, S)
};

enum LayerTrait : unsigned {
  kActivates = 1,      // may have an activation
  kAddsResidual = 2,   // may have a residual
  kKeepsChannels = 4,  // has as many channels as its input
  kSqueezes = 8,       // has a number of squeezed channels
  kJoins = 16,         // may be made in one step with the layer before
  kEnds = 32,          // may be the last layer: its step writes pixel by pixel too, as the head reads
};

// Floats in each of a layer's arrays, 0 where there is none.
struct ArraySizes {
  std::int64_t weight, bias, weight2, bias2;
};

struct LayerType {
  unsigned traits;  // sum of LayerTrait
  // Refuses (refuse.h) a kernel, stride or padding that this kind does not allow.
  void (*check_window)(const Layer& layer, const std::string& where);
  // Height or width of the output from that of the input, at most twice it; below 1 where the window does not fit.
  std::int64_t (*side)(const Layer& layer, std::int64_t input);
  // Of a checked layer. Each is below 2^40, so that nothing overflows.
  ArraySizes (*arrays)(const Layer& layer, std::int64_t input_channels);
  // The step of layer i, or of two from i on. Throws std::invalid_argument if there is no code for it.
  std::unique_ptr<const Step> (*make)(const Network& network, std::size_t i);

  bool has(LayerTrait trait) const { return (traits & trait) != 0; }
};

extern const LayerType kConvolution, kDepthwise, kDeconvolution, kMaxPool, kGate;
// By their kinds' numbers, from 1.
constexpr const LayerType* kLayerTypes[] = {&kConvolution, &kDepthwise, &kDeconvolution, &kMaxPool, &kGate};

// Throws std::invalid_argument for a number that is no kind's.
const LayerType& type_of(LayerKind kind);

// What several kinds have in common: a check for one window only, and the side that a sliding window leaves.
void expect_window(const Layer& layer, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                   const std::string& where);
std::int64_t window_side(const Layer& layer, std::int64_t input);

}  // namespace pipnet
