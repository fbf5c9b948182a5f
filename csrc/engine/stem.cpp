// The first convolution, of stride 2, from pixels: a crop becomes rows of normalized floats with zeros around, on which
// what lies under a row of the kernel is a run of floats, so that the convolution is a matrix product. The max-pooling
// that ResNets have behind it is done while its rows are in the cache.
#include <algorithm>
#include <stdexcept>

#include "../parallel.h"
#include "../scratch.h"
#include "packed.h"
#include "step.h"

namespace pipnet {
namespace {

constexpr double kMean[3] = {0.485, 0.456, 0.406}, kDeviation[3] = {0.229, 0.224, 0.225};

class Stem final : public Step {
 public:
  Stem(const Network& network, bool pooled)
      : layer_(network.layers[0]),
        size_(network.input_size),
        pooled_(pooled),
        out_(network.layers[pooled ? 1 : 0].output),
        weights_(1, layer_.output.channels, inputs(), network.weight_storage),
        bias_(packed_bias(layer_.bias, layer_.output.channels)) {
    const std::int64_t k = layer_.kernel;
    const float* weight = layer_.weight;
    for (std::int64_t o = 0; o < layer_.output.channels; ++o)
      for (std::int64_t color = 0; color < 3; ++color)
        for (std::int64_t y = 0; y < k; ++y)
          for (std::int64_t x = 0; x < k; ++x) weights_.set(0, o, (y * k + x) * 3 + color, *weight++);
    for (int color = 0; color < 3; ++color) {
      scale_[color] = static_cast<float>(1 / (255 * kDeviation[color]));
      shift_[color] = static_cast<float>(-kMean[color] / kDeviation[color]);
    }
  }

  void run(const Call& call) const override {
    const std::int64_t padded = rows();
    parallel_for(ceil_div(call.batch * padded, kRows), call.threads, [&](std::int64_t group) {
      const std::int64_t end = std::min((group + 1) * kRows, call.batch * padded);
      for (std::int64_t row = group * kRows; row < end; ++row) fill_row(call, row / padded, row % padded);
    });
    const std::int64_t groups = ceil_div(out_.height, kRows), blocks = blocks_of(out_.channels);
    parallel_for(call.batch * groups * blocks, call.threads, [&](std::int64_t item) {
      const std::int64_t block = item % blocks, first = item / blocks % groups * kRows, image = item / blocks / groups;
      const std::int64_t last = std::min(first + kRows, out_.height);
      const Map& map = call.map(pooled_ ? 2 : 1);
      float* const output = map.data + image * map.image + block * map.block;
      if (!pooled_) {
        convolve(call, image, block, first, last, output + first * out_.width * map.pixel, map.pixel);
        return;
      }
      const TensorShape& full = layer_.output;
      const std::int64_t top = std::max<std::int64_t>(0, 2 * first - 1), bottom = std::min(full.height, 2 * last);
      float* const conv = thread_scratch(static_cast<std::size_t>((bottom - top) * full.width * kBlock));
      convolve(call, image, block, top, bottom, conv, kBlock);
      // The plane begins where its row 0 would be.
      const MaxPoolTask task{conv - top * full.width * kBlock, full.height, full.width, output, out_.height, out_.width,
                             first, last};
      call.kernels.max_pool(task);
    });
  }

  std::size_t shared_floats(std::int64_t batch) const override {
    return static_cast<std::size_t>(batch * rows() * pitch());
  }
  const char* name() const override { return pooled_ ? "stem, max-pool" : "stem"; }
  std::size_t layers() const override { return pooled_ ? 2 : 1; }
  std::int64_t multiplies() const override {
    const TensorShape& full = layer_.output;
    return inputs() * full.channels * full.height * full.width;
  }
  std::size_t weight_bytes() const override { return weights_.size() + bias_.size(); }

 private:
  static constexpr std::int64_t kRows = 16;  // of the output, at once

  std::int64_t inputs() const { return 3 * layer_.kernel * layer_.kernel; }
  std::int64_t rows() const { return size_ + 2 * layer_.padding; }
  std::ptrdiff_t pitch() const { return 3 * rows(); }

  void fill_row(const Call& call, std::int64_t image, std::int64_t row) const {
    float* const output = call.shared + (image * rows() + row) * pitch();
    const std::int64_t y = row - layer_.padding;
    if (y < 0 || y >= size_) {
      std::fill_n(output, pitch(), 0.0f);
      return;
    }
    PixelRowTask task{};
    if (call.crops.bytes != nullptr) task.bytes = call.crops.bytes + (image * size_ + y) * size_ * 3;
    else task.planes = call.crops.planes + (image * 3 * size_ + y) * size_;
    task.plane = size_ * size_;
    task.width = size_, task.padding = layer_.padding;
    task.scale = scale_, task.shift = shift_;
    task.output = output;
    call.kernels.pixel_row(task);
  }

  // Rows [first, last) of a block.
  void convolve(const Call& call, std::int64_t image, std::int64_t block, std::int64_t first, std::int64_t last,
                float* output, std::ptrdiff_t pixel) const {
    ProductTask task{};
    task.run = pitch();
    task.inputs = inputs();
    task.pixels = layer_.output.width;
    task.storage = weights_.storage(), task.weight = weights_.matrix(0);
    task.first = block, task.last = block + 1;
    task.bias = bias_.floats();
    task.activation = layer_.activation;
    task.block = 0, task.pixel = pixel;
    for (std::int64_t y = first; y < last; ++y, output += layer_.output.width * pixel) {
      task.input = call.shared + (image * rows() + 2 * y) * pitch();
      task.output = output;
      call.kernels.crop_product(task, 3 * layer_.kernel);
    }
  }

  Layer layer_;
  std::int64_t size_;
  bool pooled_;
  TensorShape out_;
  PackedWeights weights_;
  AlignedBytes bias_;
  float scale_[3], shift_[3];
};

}  // namespace

StepPointer make_stem(const Network& network) {
  const Layer& first = network.layers[0];
  if (first.kind != LayerKind::convolution || first.stride != 2 || first.residual >= 0 ||
      first.padding != first.kernel / 2)
    throw std::invalid_argument("expected a convolution of stride 2, padded by half its kernel");
  const bool pooled = network.layers.size() > 2 && network.layers[1].kind == LayerKind::max_pool &&
                      network.layers[1].input == 1 && network.readers(1) == 1;
  return std::make_unique<Stem>(network, pooled);
}

}  // namespace pipnet
