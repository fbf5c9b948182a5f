// 3x3 convolutions and 4x4 deconvolutions by transforms of tiles: what is computed once, and how tiles are split over
// threads. Where there are many tiles each thread takes a group of them all the way, in memory that its cache holds; a
// few tiles of many channels are transformed, multiplied weight by weight, and transformed back together.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "../parallel.h"
#include "../scratch.h"
#include "packed.h"
#include "step.h"

namespace pipnet {
namespace {

constexpr int kMostWeights = 6, kMostTaps = 4;

// A transform's shape and what takes a kernel's taps to its weights, along one axis.
struct Axis {
  TransformShape shape;
  int taps;
  double weights[kMostWeights][kMostTaps];
};

const Axis& axis_of(Transform transform) {
  static const double near = std::sqrt(0.5), far = std::sqrt(2.0);
  static const Axis f4{kShapeF4, 3,
                       {{1, 0, 0},
                        {-2.0 / 3, -2.0 / 3 * near, -1.0 / 3},
                        {-2.0 / 3, 2.0 / 3 * near, -1.0 / 3},
                        {1.0 / 6, 1.0 / 6 * far, 1.0 / 3},
                        {1.0 / 6, -1.0 / 6 * far, 1.0 / 3},
                        {0, 0, 1}}};
  static const Axis f2{kShapeF2, 3, {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}}};
  static const Axis f4s2{kShapeF4S2, 3,
                         {{-1 / (3 * near), 0, -1.0 / 3},
                          {1 / (3 * near), 0, -1.0 / 3},
                          {1 / (3 * far), 0, 1.0 / 3},
                          {-1 / (3 * far), 0, 1.0 / 3},
                          {0, 0, 1},
                          {0, 1, 0}}};
  static const Axis f2s2{kShapeF2S2, 3, {{1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}}};
  static const Axis doubled{kShapeDoubled, 4, {{0, 0, 0, 1}, {0, 1, 0, 0}, {0, 0, 1, 0}, {1, 0, 0, 0}}};
  switch (transform) {
    case Transform::f4: return f4;
    case Transform::f2: return f2;
    case Transform::f4s2: return f4s2;
    case Transform::f2s2: return f2s2;
    case Transform::doubled: return doubled;
  }
  throw std::logic_error("transform");
}

// Products that weight u of both axes takes part in.
int repeats_of(const TransformShape& shape, int u) {
  const int last = shape.weights - 1;
  return (u / shape.weights == last ? shape.repeats : 1) * (u % shape.weights == last ? shape.repeats : 1);
}

// One of the products' matrices: a weight of both axes.
struct Matrix {
  std::int64_t repeats;
  std::int64_t before;  // repeats of the matrices before it
};

class Winograd final : public Step {
 public:
  Winograd(const Network& network, std::size_t i, Transform transform)
      : transform_(transform),
        axis_(axis_of(transform)),
        layer_(network.layers[i]),
        output_(static_cast<std::int64_t>(i) + 1),
        input_shape_(network.shape(layer_.input)),
        in_blocks_(blocks_of(input_shape_.channels)),
        out_blocks_(blocks_of(layer_.output.channels)),
        rows_(ceil_div(layer_.output.height, axis_.shape.outputs)),
        columns_(ceil_div(layer_.output.width, axis_.shape.outputs)),
        weights_(axis_.shape.weights * axis_.shape.weights, layer_.output.channels, input_shape_.channels,
                 network.weight_storage),
        bias_(packed_bias(layer_.bias, layer_.output.channels)) {
    for (int u = 0; u < axis_.shape.weights * axis_.shape.weights; ++u) {
      const std::int64_t repeats = repeats_of(axis_.shape, u);
      matrices_.push_back({repeats, repeats_});
      repeats_ += repeats;
    }
    pack(network.threads);
  }

  void run(const Call& call) const override {
    const std::int64_t tiles = call.batch * rows_ * columns_, threads = call.threads;
    const std::int64_t group = std::max<std::int64_t>(kLeastTiles, kGroupFloats / floats_of_tile() / 8 * 8);
    if (tiles >= threads * kLeastTiles) {
      // Groups of equal size, as many as there are threads or a multiple of it.
      const std::int64_t groups = ceil_div(ceil_div(tiles, group), threads) * threads;
      const std::int64_t each = ceil_div(ceil_div(tiles, groups), 8) * 8;
      parallel_for(ceil_div(tiles, each), call.threads, [&](std::int64_t i) {
        const std::int64_t first = i * each, last = std::min(tiles, first + each);
        const auto floats = static_cast<std::size_t>(group_floats(last - first));
        const Group part = group_in(thread_scratch(floats), first, last);
        transform(call, part, 0, in_blocks_);
        for (std::int64_t u = 0; u < matrices(); ++u) multiply(call, part, u);
        transform_back(call, part, 0, out_blocks_);
      });
      return;
    }
    for (std::int64_t first = 0; first < tiles; first += kSharedTiles) {
      const Group part = group_in(call.shared, first, std::min(tiles, first + kSharedTiles));
      parallel_for(in_blocks_, call.threads, [&](std::int64_t b) { transform(call, part, b, b + 1); });
      parallel_for(matrices(), call.threads, [&](std::int64_t u) { multiply(call, part, u); });
      parallel_for(out_blocks_, call.threads, [&](std::int64_t b) { transform_back(call, part, b, b + 1); });
    }
  }

  std::size_t shared_floats(std::int64_t batch) const override {
    return static_cast<std::size_t>(group_floats(std::min(batch * rows_ * columns_, kSharedTiles)));
  }
  const char* name() const override {
    switch (transform_) {
      case Transform::f4: return "3x3 F(4,3)";
      case Transform::f2: return "3x3 F(2,3)";
      case Transform::f4s2: return "3x3/2 F(4,3)";
      case Transform::f2s2: return "3x3/2 F(2,3)";
      case Transform::doubled: return "deconvolution";
    }
    return "";
  }
  std::int64_t multiplies() const override {
    return rows_ * columns_ * repeats_ * input_shape_.channels * layer_.output.channels;
  }
  std::size_t weight_bytes() const override { return weights_.size() + bias_.size(); }

 private:
  // So many tiles at least are worth a product of their own.
  static constexpr std::int64_t kLeastTiles = 16;
  // What a thread's group of tiles may take of its second-level cache.
  static constexpr std::int64_t kGroupFloats = (640 << 10) / sizeof(float);
  static constexpr std::int64_t kSharedTiles = 64;

  struct Group {
    std::int64_t first, last;
    float *numbers, *products;
  };

  std::int64_t matrices() const { return static_cast<std::int64_t>(matrices_.size()); }
  std::int64_t floats_of_tile() const { return repeats_ * (in_blocks_ + out_blocks_) * kBlock; }
  std::int64_t group_floats(std::int64_t tiles) const { return floats_of_tile() * tiles; }
  Group group_in(float* memory, std::int64_t first, std::int64_t last) const {
    return {first, last, memory, memory + repeats_ * in_blocks_ * kBlock * (last - first)};
  }

  void pack(int threads) {
    const int weights = axis_.shape.weights, taps = axis_.taps;
    const std::int64_t inputs = input_shape_.channels, outputs = layer_.output.channels;
    const bool transposed = layer_.kind == LayerKind::deconvolution;  // weight (I, O, 4, 4)
    parallel_for(blocks_of(outputs), threads, [&](std::int64_t block) {
      for (std::int64_t o = block * kBlock; o < std::min(outputs, (block + 1) * kBlock); ++o) {
        for (std::int64_t i = 0; i < inputs; ++i) {
          const float* const kernel = layer_.weight + (transposed ? i * outputs + o : o * inputs + i) * taps * taps;
          double half[kMostWeights][kMostTaps];
          for (int a = 0; a < weights; ++a) {
            for (int x = 0; x < taps; ++x) {
              half[a][x] = 0;
              for (int y = 0; y < taps; ++y)
                half[a][x] += axis_.weights[a][y] * static_cast<double>(kernel[y * taps + x]);
            }
          }
          for (int a = 0; a < weights; ++a) {
            for (int b = 0; b < weights; ++b) {
              double sum = 0;
              for (int x = 0; x < taps; ++x) sum += axis_.weights[b][x] * half[a][x];
              weights_.set(a * weights + b, o, i, static_cast<float>(sum));
            }
          }
        }
      }
    });
  }

  TilesTask tiles_task(const Group& part, float* products, TensorShape map, std::int64_t first_block,
                       std::int64_t last_block) const {
    map.channels = blocks_of(map.channels) * kBlock;
    return {transform_, map, rows_, columns_, part.first, part.last, first_block, last_block, products};
  }

  void transform(const Call& call, const Group& part, std::int64_t first_block, std::int64_t last_block) const {
    const TilesTask tiles = tiles_task(part, part.numbers, input_shape_, first_block, last_block);
    call.kernels.to_tiles({tiles, call.map(layer_.input).data});
  }

  void multiply(const Call& call, const Group& part, std::int64_t u) const {
    const Matrix& matrix = matrices_[static_cast<std::size_t>(u)];
    const std::int64_t tiles = part.last - part.first;
    ProductTask task{};
    task.pixels = matrix.repeats * tiles;
    task.input = part.numbers + matrix.before * in_blocks_ * kBlock * tiles;
    task.run = task.block = task.pixels * kBlock;
    task.inputs = input_shape_.channels;
    task.storage = weights_.storage(), task.weight = weights_.matrix(u);
    task.first = 0, task.last = out_blocks_;
    task.activation = Activation::none;
    task.output = part.products + matrix.before * out_blocks_ * kBlock * tiles;
    task.pixel = kBlock;
    call.kernels.product(task);
  }

  void transform_back(const Call& call, const Group& part, std::int64_t first_block, std::int64_t last_block) const {
    const Map& output = call.map(output_);
    FromTilesTask task{};
    task.tiles = tiles_task(part, part.products, layer_.output, first_block, last_block);
    task.bias = bias_.floats();
    task.residual = layer_.residual < 0 ? nullptr : call.map(layer_.residual).data;
    task.activation = layer_.activation;
    task.output = output.data, task.image = output.image, task.block = output.block, task.pixel = output.pixel;
    call.kernels.from_tiles(task);
  }

  Transform transform_;
  const Axis& axis_;
  Layer layer_;
  std::int64_t output_;
  TensorShape input_shape_;
  std::int64_t in_blocks_, out_blocks_, rows_, columns_;
  PackedWeights weights_;
  AlignedBytes bias_;
  std::vector<Matrix> matrices_;
  std::int64_t repeats_ = 0;
};

// What a transform takes for one image, in multiplications of a product at full speed. The constants are those of one
// Zen 4 core that reads the weights from memory. Of the 32 3x3 convolutions of ResNet-18 and 50, timed both ways, this
// is within a quarter of the time, and the choice the faster way but for 512 channels on an 8x8 grid: there F(4,3)
// takes 1.4 to 1.7 ms and F(2,3) 1.7, for less than half the memory.
double cost(const Network& network, const Layer& layer, Transform transform) {
  // A weight is read once; a number is computed from a map, or a map from it, by some additions, loads and stores.
  constexpr double kReadFloat = 5.0, kToTile = 8.5, kFromTile = 5.0;
  // Fewer pixels than this leave the multipliers waiting.
  constexpr double kFullPixels = 6;
  const TransformShape& shape = axis_of(transform).shape;
  const TensorShape in = network.shape(layer.input), out = layer.output;
  const auto floats = [](std::int64_t channels) { return static_cast<double>(blocks_of(channels) * kBlock); };
  const auto tiles = static_cast<double>(ceil_div(out.height, shape.outputs) * ceil_div(out.width, shape.outputs));
  const double channels = static_cast<double>(in.channels) * floats(out.channels);
  const double weights = shape.weights * shape.weights;
  double products = 0, numbers = 0;
  for (int u = 0; u < shape.weights * shape.weights; ++u) {
    const double rows = repeats_of(shape, u) * tiles;
    products += std::max(rows, kFullPixels) * channels;
    numbers += rows;
  }
  const double bytes = network.weight_storage == Storage::float16 ? 0.5 : 1.0;
  return products + weights * channels * bytes * kReadFloat +
         numbers * (floats(in.channels) * kToTile + floats(out.channels) * kFromTile);
}

}  // namespace

StepPointer make_winograd(const Network& network, std::size_t i) {
  const Layer& layer = network.layers[i];
  if (layer.kind == LayerKind::deconvolution) return std::make_unique<Winograd>(network, i, Transform::doubled);
  const Transform large = layer.stride == 2 ? Transform::f4s2 : Transform::f4;
  const Transform small = layer.stride == 2 ? Transform::f2s2 : Transform::f2;
  const bool larger = cost(network, layer, large) < cost(network, layer, small);
  return std::make_unique<Winograd>(network, i, larger ? large : small);
}

}  // namespace pipnet
