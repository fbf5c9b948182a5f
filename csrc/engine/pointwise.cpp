// 1x1 convolutions: one matrix product. Of stride 2: the same on every second pixel, which are gathered first.
#include <algorithm>
#include <cstring>

#include "../parallel.h"
#include "packed.h"
#include "step.h"

namespace pipnet {
namespace {

class Pointwise final : public Step {
 public:
  Pointwise(const Network& network, std::size_t i)
      : input_(network.layers[i].input),
        output_(static_cast<std::int64_t>(i) + 1),
        residual_(network.layers[i].residual),
        stride_(network.layers[i].stride),
        activation_(network.layers[i].activation),
        in_(network.shape(network.layers[i].input)),
        out_(network.layers[i].output),
        weights_(1, out_.channels, in_.channels, network.weight_storage),
        bias_(packed_bias(network.layers[i].bias, out_.channels)) {
    const float* const weight = network.layers[i].weight;
    for (std::int64_t o = 0; o < out_.channels; ++o)
      for (std::int64_t c = 0; c < in_.channels; ++c) weights_.set(0, o, c, weight[o * in_.channels + c]);
  }

  void run(const Call& call) const override {
    const std::int64_t pixels = out_.height * out_.width, in_blocks = blocks_of(in_.channels);
    const float* input = call.map(input_).data;
    if (stride_ == 2) {
      parallel_for(call.batch * in_blocks, call.threads, [&](std::int64_t plane) {
        gather(call.map(input_).data + plane * in_.height * in_.width * kBlock, call.shared + plane * pixels * kBlock);
      });
      input = call.shared;
    }
    // Pixels in groups whose inputs stay in the second-level cache while block after block is computed from them; where
    // that makes too few groups for the threads, blocks are split too.
    const std::int64_t most = std::max(kLeastPixels, kGroupFloats / in_.channels / kLeastPixels * kLeastPixels);
    const std::int64_t groups = ceil_div(pixels, most), blocks = blocks_of(out_.channels);
    const std::int64_t each = ceil_div(ceil_div(pixels, groups), kLeastPixels) * kLeastPixels;
    const std::int64_t wanted = call.threads == 1 ? 1 : kPartsPerThread * call.threads;
    const std::int64_t parts = std::min(blocks, ceil_div(wanted, groups * call.batch));
    parallel_for(call.batch * groups * parts, call.threads, [&](std::int64_t item) {
      const std::int64_t part = item % parts, first = item / parts % groups * each, image = item / parts / groups;
      if (first >= pixels) return;
      const Map& output = call.map(output_);
      ProductTask task{};
      task.input = input + (image * in_blocks * pixels + first) * kBlock;
      task.run = pixels * kBlock;
      task.inputs = in_.channels;
      task.pixels = std::min(each, pixels - first);
      task.storage = weights_.storage(), task.weight = weights_.matrix(0);
      task.first = blocks * part / parts, task.last = blocks * (part + 1) / parts;
      task.bias = bias_.floats();
      task.activation = activation_;
      if (residual_ >= 0) task.residual = call.map(residual_).data + (image * blocks * pixels + first) * kBlock;
      task.residual_block = pixels * kBlock;
      task.output = output.data + image * output.image + first * output.pixel;
      task.block = output.block, task.pixel = output.pixel;
      call.kernels.product(task);
    });
  }

  std::size_t shared_floats(std::int64_t batch) const override {
    if (stride_ == 1) return 0;
    return static_cast<std::size_t>(batch * blocks_of(in_.channels) * out_.height * out_.width * kBlock);
  }
  const char* name() const override { return stride_ == 1 ? "1x1" : "1x1/2"; }
  std::int64_t multiplies() const override { return in_.channels * out_.channels * out_.height * out_.width; }
  std::size_t weight_bytes() const override { return weights_.size() + bias_.size(); }

 private:
  static constexpr std::int64_t kGroupFloats = (256 << 10) / sizeof(float), kLeastPixels = 48, kPartsPerThread = 4;

  void gather(const float* plane, float* to) const {
    for (std::int64_t y = 0; y < out_.height; ++y)
      for (std::int64_t x = 0; x < out_.width; ++x, to += kBlock)
        std::memcpy(to, plane + (2 * y * in_.width + 2 * x) * kBlock, kBlock * sizeof(float));
  }

  std::int64_t input_, output_, residual_, stride_;
  Activation activation_;
  TensorShape in_, out_;
  PackedWeights weights_;
  AlignedBytes bias_;
};

}  // namespace

StepPointer make_pointwise(const Network& network, std::size_t i) { return std::make_unique<Pointwise>(network, i); }

}  // namespace pipnet
