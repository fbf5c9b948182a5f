#include "plan.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../head_decode.h"
#include "../isa.h"
#include "../parallel.h"
#include "arena.h"
#include "packed.h"
#include "step.h"

namespace pipnet {
namespace {

// Images that go through the network together: what one layer's weights are read for, and what memory is for.
constexpr std::int64_t kMostImages = 8;

// The head's arrays, copied.
class Head {
 public:
  Head(const HeadWeights& head, std::int64_t channels) {
    const std::int64_t rows = head.score_rows(), votes = head.votes(), each = bytes_of(head.storage);
    args_.channels = channels, args_.landmarks = head.landmarks, args_.neighbors = head.neighbors;
    args_.storage = head.storage;
    args_.score_weight = copied(head.score_weight, rows * channels * each);
    args_.vote_weight = copied(head.vote_weight, 2 * votes * channels * each);
    args_.score_bias = copied(head.score_bias, rows * 4);
    args_.vote_bias = copied(head.vote_bias, 2 * votes * 4);
    args_.score_scale = copied(head.score_scale, rows * 4);
    args_.vote_scale = copied(head.vote_scale, 2 * votes * 4);
    args_.table.starts = copied(head.table.starts, (head.landmarks + 1) * 4);
    args_.table.sources = copied(head.table.sources, votes * 4);
    args_.table.weights = copied(head.table.weights, votes * 4);
  }

  const HeadDecodeArgs& args() const { return args_; }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const AlignedBytes& array : arrays_) sum += array.size();
    return sum;
  }

 private:
  template <class T>
  const T* copied(const T* array, std::int64_t bytes) {
    if (array == nullptr) return nullptr;
    arrays_.emplace_back(static_cast<std::size_t>(bytes));
    std::copy_n(static_cast<const char*>(static_cast<const void*>(array)), bytes,
                static_cast<char*>(arrays_.back().data()));
    return static_cast<const T*>(arrays_.back().data());
  }

  HeadDecodeArgs args_{};
  std::vector<AlignedBytes> arrays_;
};

}  // namespace

struct Plan::Parts {
  Parts(const Network& network, void* spent) : input_size(network.input_size) {
    if (network.layers.empty()) throw std::invalid_argument("plan: expected a network of at least one layer");
    for (std::size_t i = 1; i < network.layers.size(); ++i)
      if (network.layers[i].input == 0 || network.layers[i].residual == 0)
        throw std::invalid_argument("plan: layer " + std::to_string(i) + ": only the first layer may read the crop");
    for (std::size_t i = 0; i < network.layers.size(); i += steps.back()->layers()) {
      const Layer& layer = network.layers[i];
      if (spent != nullptr && layer.weight != nullptr) give_back_pages(spent, layer.weight);
      try {
        steps.push_back(i == 0 ? make_stem(network) : type_of(layer.kind).make(network, i));
      } catch (const std::invalid_argument& error) {
        throw std::invalid_argument("plan: layer " + std::to_string(i) + ": " + error.what());
      }
    }
    const Layer& last = network.layers.back();
    if (!type_of(last.kind).has(kEnds))
      throw std::invalid_argument("plan: the last layer: expected a convolution or deconvolution");
    features = last.output;
    arena = Arena::of(network);
    if (network.head) head.emplace(*network.head, features.channels);
  }

  // One call's memory, that of an earlier one where it is large enough. A mutex that another thread holds is not waited
  // for: in a forked child it may be held for ever.
  AlignedBytes take_memory(std::size_t bytes) const {
    AlignedBytes taken;
    if (const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock); lock.owns_lock() && !free.empty()) {
      taken = std::move(free.back());
      free.pop_back();
    }
    if (taken.size() < bytes) taken = AlignedBytes(bytes);
    return taken;
  }
  void give_back(AlignedBytes memory) const {
    if (const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock); lock.owns_lock())
      free.push_back(std::move(memory));
  }

  std::size_t shared_floats(std::int64_t batch) const {
    std::size_t most = 0;
    for (const StepPointer& step : steps) most = std::max(most, step->shared_floats(batch));
    return most;
  }

  // Runs up to kMostImages images, each step by `run_step(step, call)`; `use(features)` gets what the last layer wrote,
  // (B, H, W, whole blocks).
  template <class RunStep, class Use>
  void run(const Crops& crops, std::int64_t batch, int threads, const RunStep& run_step, const Use& use) const {
    const std::int64_t feature_floats = floats_of(features);
    const std::size_t shared = ceil_div(static_cast<std::int64_t>(shared_floats(batch)), 16) * 16;
    const auto floats = static_cast<std::size_t>(batch * (arena.floats + feature_floats)) + shared;
    AlignedBytes memory = take_memory(floats * sizeof(float));
    float* const maps_begin = memory.floats() + shared;
    std::vector<Map> maps(arena.offsets.size() + 2);  // of the crop too
    for (std::size_t i = 0; i < arena.offsets.size(); ++i) {
      const TensorShape& shape = arena.shapes[i];
      const std::ptrdiff_t block = shape.height * shape.width * kBlock;
      maps[i + 1] = {maps_begin + batch * arena.offsets[i], floats_of(shape), block, kBlock};
    }
    float* const output = maps_begin + batch * arena.floats;
    maps.back() = {output, feature_floats, kBlock, blocks_of(features.channels) * kBlock};
    const Call call{current_isa().loops.engine, std::max(1, threads), batch, crops, maps.data(), memory.floats()};
    const Awake workers(call.threads);
    for (const StepPointer& step : steps) run_step(*step, call);
    use(output);
    give_back(std::move(memory));
  }

  // `use(features, first, images)` gets them in turn.
  template <class Use>
  void run_all(const Crops& crops, std::int64_t batch, int threads, const Use& use) const {
    for (std::int64_t first = 0; first < batch; first += kMostImages) {
      const std::int64_t pixels = 3 * input_size * input_size;
      const Crops part{crops.bytes == nullptr ? nullptr : crops.bytes + first * pixels,
                       crops.planes == nullptr ? nullptr : crops.planes + first * pixels};
      const std::int64_t images = std::min(kMostImages, batch - first);
      run(part, images, threads, [](const Step& step, const Call& call) { step.run(call); },
          [&](const float* output) { use(output, first, images); });
    }
  }

  std::int64_t input_size;
  TensorShape features{};
  Arena arena;
  std::vector<StepPointer> steps;
  std::optional<Head> head;
  mutable std::mutex mutex;
  mutable std::vector<AlignedBytes> free;
};

Plan::Plan(const Network& network, void* spent) : parts_(std::make_unique<const Parts>(network, spent)) {}
Plan::~Plan() = default;

std::int64_t Plan::input_size() const { return parts_->input_size; }
std::int64_t Plan::landmarks() const { return parts_->head ? parts_->head->args().landmarks : 0; }
TensorShape Plan::features() const { return parts_->features; }

void Plan::run(const Crops& crops, std::int64_t batch, float* points, float* scores, int threads) const {
  const TensorShape shape = parts_->features;
  HeadDecodeArgs args = parts_->head.value().args();
  args.grid = {shape.height, shape.width};
  const std::ptrdiff_t pixel = blocks_of(shape.channels) * kBlock;
  args.strides = {floats_of(shape), 1, shape.width * pixel, pixel};
  parts_->run_all(crops, batch, threads, [&](const float* output, std::int64_t first, std::int64_t images) {
    HeadDecodeArgs part = args;
    part.batch = images;
    part.features = output;
    part.points = points + first * args.landmarks * 2;
    part.scores = scores + first * args.landmarks;
    head_decode(part, threads);
  });
}

void Plan::run_trunk(const Crops& crops, std::int64_t batch, float* features, int threads) const {
  const TensorShape shape = parts_->features;
  const std::int64_t pixels = shape.height * shape.width, padded = blocks_of(shape.channels) * kBlock;
  parts_->run_all(crops, batch, threads, [&](const float* output, std::int64_t first, std::int64_t images) {
    for (std::int64_t pixel = 0; pixel < images * pixels; ++pixel)
      std::copy_n(output + pixel * padded, shape.channels, features + (first * pixels + pixel) * shape.channels);
  });
}

std::vector<StepWork> Plan::steps() const {
  std::vector<StepWork> work;
  for (const StepPointer& step : parts_->steps)
    work.push_back({step->name(), step->layers(), step->multiplies(), step->weight_bytes()});
  return work;
}

std::vector<double> Plan::step_times(const Crops& crops, int threads) const {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  const auto timed = [&](const Step& step, const Call& call) {
    const Clock::time_point start = Clock::now();
    step.run(call);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  };
  parts_->run(crops, 1, threads, timed, [](const float*) {});
  return times;
}

std::size_t Plan::weight_bytes() const {
  std::size_t sum = parts_->head ? parts_->head->bytes() : 0;
  for (const StepPointer& step : parts_->steps) sum += step->weight_bytes();
  return sum;
}

std::size_t Plan::scratch_bytes() const {
  return (parts_->shared_floats(1) + static_cast<std::size_t>(parts_->arena.floats + floats_of(parts_->features))) *
         sizeof(float);
}

}  // namespace pipnet
