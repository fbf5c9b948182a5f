// Depthwise convolutions, plane by plane, and the gate that may follow: the sums that its means are made of are taken
// while the planes are written.
#include <algorithm>
#include <memory>

#include "../parallel.h"
#include "gate.h"
#include "layer_type.h"
#include "packed.h"
#include "refuse.h"
#include "step.h"

namespace pipnet {
namespace {

class Depthwise final : public Step {
 public:
  Depthwise(const Network& network, std::size_t i, bool gated)
      : layer_(network.layers[i]),
        output_(static_cast<std::int64_t>(i) + (gated ? 2 : 1)),
        in_(network.shape(layer_.input)),
        blocks_(blocks_of(in_.channels)),
        weights_(1, in_.channels, layer_.kernel * layer_.kernel, Storage::float32),
        bias_(packed_bias(layer_.bias, in_.channels)),
        excitation_(gated ? std::make_unique<Excitation>(network.layers[i + 1]) : nullptr) {
    const std::int64_t taps = layer_.kernel * layer_.kernel;
    for (std::int64_t c = 0; c < in_.channels; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) weights_.set(0, c, tap, layer_.weight[c * taps + tap]);
  }

  void run(const Call& call) const override {
    const TensorShape& out = layer_.output;
    const std::int64_t planes = call.batch * blocks_, pixels = out.height * out.width, parts = row_parts(call);
    float* const sums = call.shared;
    parallel_for(planes * parts, call.threads, [&](std::int64_t item) {
      const std::int64_t plane = item / parts, part = item % parts, block = plane % blocks_;
      DepthwiseTask task{};
      task.input = call.map(layer_.input).data + plane * in_.height * in_.width * kBlock;
      task.height = in_.height, task.width = in_.width;
      task.output = call.map(output_).data + plane * pixels * kBlock;
      task.out_height = out.height, task.out_width = out.width;
      task.kernel = layer_.kernel, task.stride = layer_.stride;
      task.weight = static_cast<const float*>(weights_.matrix(0)) + block * layer_.kernel * layer_.kernel * kBlock;
      task.bias = bias_.floats() + block * kBlock;
      task.activation = layer_.activation;
      task.first = out.height * part / parts, task.last = out.height * (part + 1) / parts;
      task.sums = excitation_ == nullptr ? nullptr : sums + (part * planes + plane) * kBlock;
      call.kernels.depthwise(task);
    });
    if (excitation_ == nullptr) return;
    const std::int64_t channels = planes * kBlock;
    for (std::int64_t i = 0; i < channels; ++i) {
      for (std::int64_t part = 1; part < parts; ++part) sums[i] += sums[part * channels + i];
      sums[i] /= static_cast<float>(pixels);
    }
    float* const gates = sums + parts * channels;
    for (std::int64_t image = 0; image < call.batch; ++image) {
      const std::int64_t first = image * blocks_ * kBlock;
      excitation_->run(call, sums + first, gates + channels, gates + first);
    }
    parallel_for(planes, call.threads, [&](std::int64_t plane) {
      float* const map = call.map(output_).data + plane * pixels * kBlock;
      call.kernels.scale({map, map, pixels, gates + plane * kBlock, excitation_->activation()});
    });
  }

  std::size_t shared_floats(std::int64_t batch) const override {
    if (excitation_ == nullptr) return 0;
    return static_cast<std::size_t>((kMostParts + 1) * batch * blocks_ * kBlock + excitation_->hidden_floats());
  }
  const char* name() const override { return excitation_ == nullptr ? "depthwise" : "depthwise, gate"; }
  std::size_t layers() const override { return excitation_ == nullptr ? 1 : 2; }
  std::int64_t multiplies() const override {
    const TensorShape& out = layer_.output;
    const std::int64_t taps = layer_.kernel * layer_.kernel;
    return out.channels * out.height * out.width * taps + (excitation_ == nullptr ? 0 : excitation_->multiplies());
  }
  std::size_t weight_bytes() const override {
    return weights_.size() + bias_.size() + (excitation_ == nullptr ? 0 : excitation_->weight_bytes());
  }

 private:
  static constexpr std::int64_t kMostParts = 4;

  // In how many parts the rows of a plane are computed: planes alone would leave threads without work at the end.
  std::int64_t row_parts(const Call& call) const {
    if (call.threads == 1) return 1;
    const std::int64_t wanted = ceil_div(8 * call.threads, call.batch * blocks_);
    return std::min({wanted, kMostParts, ceil_div(layer_.output.height, 4)});
  }

  Layer layer_;
  std::int64_t output_;
  TensorShape in_;
  std::int64_t blocks_;
  PackedWeights weights_;
  AlignedBytes bias_;
  std::unique_ptr<const Excitation> excitation_;
};

void check_window(const Layer& layer, const std::string& where) {
  if (layer.kernel != 3 && layer.kernel != 5) refuse(where + "kernel", "3 or 5", layer.kernel);
  expect_between(layer.stride, 1, 2, where, "stride");
  expect_between(layer.padding, layer.kernel / 2, layer.kernel / 2, where, "padding");
}

ArraySizes arrays(const Layer& layer, std::int64_t) {
  const std::int64_t channels = layer.output.channels;
  return {channels * layer.kernel * layer.kernel, channels, 0, 0};
}

// With the gate behind it.
StepPointer make(const Network& network, std::size_t i) {
  const std::int64_t output = static_cast<std::int64_t>(i) + 1;
  const bool gated = i + 1 < network.layers.size() && network.layers[i + 1].kind == LayerKind::gate &&
                     network.layers[i + 1].input == output && network.readers(output) == 1;
  return std::make_unique<Depthwise>(network, i, gated);
}

}  // namespace

const LayerType kDepthwise{kActivates | kKeepsChannels, check_window, window_side, arrays, make};

}  // namespace pipnet
