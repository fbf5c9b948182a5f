// 3x3 max-pooling of stride 2, where it does not stand behind the stem.
#include "../parallel.h"
#include "layer_type.h"
#include "step.h"

namespace pipnet {
namespace {

class MaxPool final : public Step {
 public:
  MaxPool(const Network& network, std::size_t i)
      : input_(network.layers[i].input),
        output_(static_cast<std::int64_t>(i) + 1),
        in_(network.shape(input_)),
        out_(network.layers[i].output) {}

  void run(const Call& call) const override {
    parallel_for(call.batch * blocks_of(in_.channels), call.threads, [&](std::int64_t plane) {
      call.kernels.max_pool({call.map(input_).data + plane * in_.height * in_.width * kBlock, in_.height, in_.width,
                             call.map(output_).data + plane * out_.height * out_.width * kBlock, out_.height,
                             out_.width, 0, out_.height});
    });
  }

  const char* name() const override { return "max-pool"; }
  std::int64_t multiplies() const override { return 0; }
  std::size_t weight_bytes() const override { return 0; }

 private:
  std::int64_t input_, output_;
  TensorShape in_, out_;
};

void check_window(const Layer& layer, const std::string& where) { expect_window(layer, 3, 2, 1, where); }

ArraySizes arrays(const Layer&, std::int64_t) { return {}; }

StepPointer make(const Network& network, std::size_t i) { return std::make_unique<MaxPool>(network, i); }

}  // namespace

const LayerType kMaxPool{kKeepsChannels | kJoins, check_window, window_side, arrays, make};

}  // namespace pipnet
