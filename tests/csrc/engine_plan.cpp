// Whole small networks through the engine's plan against the same in double precision: every kind of layer, crop and
// instruction set, numbers of threads, many callers at once, a fork in between, and where the plan puts its maps.
// Built under sanitizers like sanitize.cpp.
#include "engine/plan.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "engine/arena.h"
#include "engine/step.h"
#include "half.h"
#include "head_decode.h"
#include "naive_network.h"

namespace {

using check::Doubles;
using check::Floats;
using check::Index;
using check::NaiveNetwork;
using check::compare;
using check::report;
using check::size;
using check::text;
using pipnet::Activation;
using pipnet::Storage;

// Basic blocks as of ResNet-18: a pooled stem, residuals, and a step down with a 1x1 convolution beside.
NaiveNetwork basic_blocks(Storage storage) {
  NaiveNetwork n(64, storage, 1);
  const Index stem = n.max_pool(n.convolution(0, 20, 7, 2, Activation::relu));
  const Index inner = n.convolution(stem, 20, 3, 1, Activation::relu);
  const Index block = n.convolution(inner, 20, 3, 1, Activation::relu, stem);
  const Index beside = n.convolution(block, 33, 1, 2);
  const Index down = n.convolution(block, 33, 3, 2, Activation::relu);
  n.convolution(down, 33, 3, 1, Activation::relu, beside);
  return n;
}

// Bottlenecks, and the tail that doubles the grid again.
NaiveNetwork bottlenecks(Storage storage) {
  NaiveNetwork n(64, storage, 2);
  const Index stem = n.max_pool(n.convolution(0, 16, 7, 2, Activation::relu));
  const Index narrow = n.convolution(n.convolution(stem, 9, 1, 1, Activation::relu), 9, 3, 1, Activation::relu);
  const Index wide = n.convolution(narrow, 40, 1, 1, Activation::relu, n.convolution(stem, 40, 1));
  const Index low = n.convolution(n.convolution(wide, 17, 3, 2, Activation::relu), 40, 1, 1, Activation::relu);
  n.deconvolution(n.deconvolution(low, 24, Activation::relu), 18, Activation::relu);
  return n;
}

// Inverted residuals with gates, both sizes of depthwise kernels, every activation.
NaiveNetwork inverted(Storage storage) {
  NaiveNetwork n(64, storage, 3);
  const Index stem = n.convolution(0, 10, 3, 2, Activation::hard_swish);
  const Index gated = n.gate(n.depthwise(n.convolution(stem, 36, 1, 1, Activation::relu6), 3, 2, Activation::relu), 9);
  const Index first = n.convolution(gated, 16, 1);
  const Index wide = n.depthwise(n.convolution(first, 50, 1, 1, Activation::hard_swish), 5, 1);
  const Index second = n.convolution(n.gate(wide, 20, Activation::hard_swish), 16, 1, 1, Activation::none, first);
  const Index down = n.depthwise(n.max_pool(second), 5, 2, Activation::relu6);
  n.convolution(down, 70, 1, 1, Activation::hard_swish);
  return n;
}

// The stem alone, of which the output is the last map.
NaiveNetwork stem_alone(Storage storage) {
  NaiveNetwork n(32, storage, 4);
  n.convolution(0, 21, 5, 2, Activation::relu6);
  return n;
}

// A pool that is none of the stem's: its input is read once more.
NaiveNetwork pool_beside(Storage storage) {
  NaiveNetwork n(32, storage, 5);
  const Index stem = n.convolution(0, 3, 1, 2);
  const Index pooled = n.max_pool(stem);
  n.convolution(stem, 3, 3, 2, Activation::relu, pooled);
  return n;
}

using MakeNetwork = NaiveNetwork (*)(Storage);
struct Named {
  const char* name;
  MakeNetwork make;
};
constexpr Named kNetworks[] = {{"basic blocks", basic_blocks},
                               {"bottlenecks", bottlenecks},
                               {"inverted residuals", inverted},
                               {"stem alone", stem_alone},
                               {"pool beside", pool_beside}};

// Crops of both kinds, of the same numbers.
struct TwoCrops {
  std::vector<std::uint8_t> bytes;  // (B, S, S, 3)
  Floats planes;                    // (B, 3, S, S)

  TwoCrops(Index batch, Index side) {
    constexpr double kMean[3] = {0.485, 0.456, 0.406}, kDeviation[3] = {0.229, 0.224, 0.225};
    std::mt19937 engine{3};
    const Index pixels = side * side;
    planes.resize(size(batch * 3 * pixels));
    for (Index i = 0; i < batch * pixels; ++i) {
      for (Index color = 0; color < 3; ++color) {
        bytes.push_back(static_cast<std::uint8_t>(engine() % 256));
        planes[size((i / pixels * 3 + color) * pixels + i % pixels)] =
            static_cast<float>((bytes.back() / 255.0 - kMean[color]) / kDeviation[color]);
      }
    }
  }

  // (3, S, S)
  Doubles crop(Index image, Index side) const {
    const auto begin = planes.begin() + image * 3 * side * side;
    return Doubles(begin, begin + 3 * side * side);
  }
};

void check_network(const Named& named, Storage storage, Index most) {
  auto naive = std::make_unique<NaiveNetwork>(named.make(storage));
  const Index side = naive->network.input_size;
  const TwoCrops crops(most, side);
  Doubles want;
  for (Index image = 0; image < most; ++image) {
    const Doubles features = naive->run(crops.crop(image, side));
    want.insert(want.end(), features.begin(), features.end());
  }
  const Index each = Index(want.size()) / most;
  const pipnet::Plan plan(naive->network);
  naive.reset();  // a plan keeps nothing of it
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    pipnet::use_isa(isa->name);
    for (Index batch : {Index{1}, Index{3}, most}) {
      for (int threads : {1, 2, 3}) {
        Floats got(size(batch * each), NAN);
        const bool bytes = (batch + threads) % 2 == 0;
        const pipnet::Crops part{bytes ? crops.bytes.data() : nullptr, bytes ? nullptr : crops.planes.data()};
        plan.run_trunk(part, batch, got.data(), threads);
        compare(std::string(named.name) + (bytes ? " of bytes" : " of planes") + " B=" + text(batch) + " threads=" +
                    text(threads) + (storage == Storage::float16 ? " float16 " : " ") + isa->name,
                got, Doubles(want.begin(), want.begin() + batch * each), storage == Storage::float16 ? 5e-3 : 1e-5);
      }
    }
  }
}

// A head of a network's last layer, in any storage.
struct Head {
  std::vector<std::int32_t> starts{0}, sources;
  std::vector<std::uint16_t> halves[2];
  std::vector<std::int8_t> integers[2];
  Floats weight[2], bias[2], scale[2], merge;
  pipnet::HeadWeights packed{};

  Head(NaiveNetwork& n, Index landmarks, Index neighbors, Storage storage) {
    const Index channels = n.network.layers.back().output.channels, votes = landmarks * (1 + neighbors);
    const Index rows[2] = {pipnet::ceil_div(landmarks, pipnet::kPanel) * pipnet::kPanel, 2 * votes};
    const void* weights[2];
    for (std::size_t i = 0; i < 2; ++i) {
      weight[i] = n.random(rows[i] * channels, channels);
      bias[i] = n.random(rows[i]);
      for (float value : weight[i]) {
        halves[i].push_back(pipnet::to_half(value).bits);
        integers[i].push_back(static_cast<std::int8_t>(value * 63.0f));
      }
      if (storage == Storage::int8) scale[i] = Floats(size(rows[i]), 1.0f / 63.0f);
      weights[i] = storage == Storage::int8      ? static_cast<const void*>(integers[i].data())
                   : storage == Storage::float16 ? static_cast<const void*>(halves[i].data())
                                                 : weight[i].data();
    }
    for (Index v = 0; v < votes; ++v) {
      sources.push_back(static_cast<std::int32_t>((v * 7 + 3) % votes));
      merge.push_back(1.0f / static_cast<float>(1 + neighbors));
      if ((v + 1) % (1 + neighbors) == 0) starts.push_back(static_cast<std::int32_t>(v + 1));
    }
    packed = {landmarks, neighbors, storage, weights[0], weights[1], bias[0].data(), bias[1].data(), nullptr, nullptr,
              {starts.data(), sources.data(), merge.data()}};
    if (storage == Storage::int8) packed.score_scale = scale[0].data(), packed.vote_scale = scale[1].data();
    n.network.head = packed;
  }
};

struct Landmarks {
  Floats points, scores;
  bool operator==(const Landmarks& other) const { return points == other.points && scores == other.scores; }
};

Landmarks run(const pipnet::Plan& plan, const pipnet::Crops& crops, Index batch, int threads) {
  Landmarks got{Floats(size(batch * plan.landmarks() * 2), NAN), Floats(size(batch * plan.landmarks()), NAN)};
  plan.run(crops, batch, got.points.data(), got.scores.data(), threads);
  return got;
}

// head_decode has a test of its own: here, that a plan gives it what belongs to it.
void check_head(Storage storage) {
  auto naive = std::make_unique<NaiveNetwork>(basic_blocks(Storage::float32));
  auto head = std::make_unique<Head>(*naive, 19, 3, storage);
  const pipnet::Plan plan(naive->network);
  const pipnet::TensorShape shape = plan.features();
  constexpr Index kBatch = 9;
  const TwoCrops crops(kBatch, 64);
  report("landmarks", plan.landmarks() == 19 && plan.input_size() == 64);

  Floats features(size(kBatch * shape.channels * shape.height * shape.width));
  plan.run_trunk({crops.bytes.data(), nullptr}, kBatch, features.data(), 2);
  Landmarks want{Floats(kBatch * 19 * 2, NAN), Floats(kBatch * 19, NAN)};
  pipnet::HeadDecodeArgs args{};
  args.batch = kBatch, args.channels = shape.channels, args.landmarks = 19, args.neighbors = 3;
  args.grid = {shape.height, shape.width};
  args.features = features.data();
  args.strides = {shape.height * shape.width * shape.channels, 1, shape.width * shape.channels, shape.channels};
  args.storage = storage;
  args.score_weight = head->packed.score_weight, args.vote_weight = head->packed.vote_weight;
  args.score_bias = head->packed.score_bias, args.vote_bias = head->packed.vote_bias;
  args.score_scale = head->packed.score_scale, args.vote_scale = head->packed.vote_scale;
  args.table = head->packed.table;
  args.points = want.points.data(), args.scores = want.scores.data();
  pipnet::head_decode(args, 1);

  naive.reset(), head.reset();
  for (int threads : {1, 2, 3}) {
    const Landmarks got = run(plan, {crops.bytes.data(), nullptr}, kBatch, threads);
    const std::string what = "head, storage " + text(static_cast<Index>(storage)) + " threads=" + text(threads);
    compare(what + ", points", got.points, Doubles(want.points.begin(), want.points.end()));
    compare(what + ", scores", got.scores, Doubles(want.scores.begin(), want.scores.end()));
  }
}

// A plan with a head, and what it gives for each number of images and threads.
struct Known {
  TwoCrops crops;
  std::unique_ptr<pipnet::Plan> plan;
  std::vector<Landmarks> want;  // for 1 to 3 images, each with 1 to 3 threads

  explicit Known(NaiveNetwork naive) : crops(3, naive.network.input_size) {
    const Head head(naive, 17, 4, Storage::float32);
    plan = std::make_unique<pipnet::Plan>(naive.network);
    for (int i = 0; i < 9; ++i) want.push_back(result(i));
  }

  Landmarks result(int i) const { return run(*plan, {crops.bytes.data(), nullptr}, 1 + i / 3, 1 + i % 3); }
  bool right(int i) const { return result(i) == want[size(i)]; }
};

// Who finds the threads taken works alone, and computes in the same parts: results are the same to the last bit.
void check_concurrent(const Known& one, const Known& other) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&, caller] {
      for (int turn = 0; turn < 9; ++turn) wrong += !(turn % 2 == 0 ? one : other).right((caller + turn) % 9);
    });
  }
  for (std::thread& caller : callers) caller.join();
  report("8 callers at once, two plans", wrong == 0, text(wrong) + " results differ from those of one caller");
}

// The child has none of the threads, and must neither wait for them nor crash; nor may the parent miss any.
void check_fork(const Known& known) {
  report("before the fork", known.right(2));
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(known.right(2) && known.right(8) ? 0 : 1);
  }
  int status = -1;
  const bool waited = child > 0 && waitpid(child, &status, 0) == child;
  report("in a forked child", waited && status == 0, "wait status " + text(status));
  report("after the fork", known.right(2) && known.right(8));
}

// Many more threads than cores.
void check_many_threads(const Known& known) {
  const pipnet::Crops crops{known.crops.bytes.data(), nullptr};
  const Landmarks got = run(*known.plan, crops, 3, 33), &want = known.want[6];
  compare("33 threads, points", got.points, Doubles(want.points.begin(), want.points.end()), 1e-5);
  compare("33 threads, scores", got.scores, Doubles(want.scores.begin(), want.scores.end()), 1e-5);
  // Fewer again.
  report("2 threads after 33", known.right(7));
}

// A random network: layers read any tensor before them that they may, most the last.
NaiveNetwork random_network(std::uint32_t seed) {
  std::mt19937 engine{seed};
  const auto below = [&](Index n) { return static_cast<Index>(engine() % static_cast<std::uint64_t>(n)); };
  const auto activation = [&] { return check::kActivations[below(4)]; };
  NaiveNetwork n(32, Storage::float32, seed);
  std::vector<Index> tensors{n.convolution(0, 1 + below(40), 3, 2, activation())};
  const auto any = [&] { return tensors[size(below(Index(tensors.size())))]; };
  for (Index count = 2 + below(12); count > 0; --count) {
    const Index input = below(3) == 0 ? any() : tensors.back(), stride = 1 + below(2);
    const pipnet::TensorShape in = n.shape(input);
    const Index channels = below(2) == 0 ? in.channels : 1 + below(40);
    switch (below(6)) {
      case 0: tensors.push_back(n.depthwise(input, 3 + 2 * below(2), stride, activation())); break;
      // None but the gate may read what is before it.
      case 1: tensors.push_back(n.gate(n.depthwise(input, 3, stride, activation()), 1 + below(9), activation())); break;
      case 2: tensors.push_back(n.max_pool(input)); break;
      case 3:
        if (in.height < 16) tensors.push_back(n.deconvolution(input, channels, activation()));
        break;
      default: {
        const Index residual = any();
        const pipnet::TensorShape shape = n.shape(residual);
        const bool fits = shape.channels == channels && shape.height == (in.height - 1) / stride + 1;
        tensors.push_back(
            n.convolution(input, channels, 1 + 2 * below(2), stride, activation(), fits ? residual : -1));
      }
    }
  }
  n.convolution(tensors.back(), 1 + below(40), 1, 1, activation());
  return n;
}

// Of any two maps, at every layer, that are written there or still to be read.
void check_arena(const std::string& what, const pipnet::Network& network) {
  const pipnet::Arena arena = pipnet::Arena::of(network);
  const Index count = Index(network.layers.size()) - 1;
  struct Place {
    Index begin, end, first, last;  // floats; layers
  };
  std::vector<Place> places;
  Index largest = 0;
  bool inside = Index(arena.offsets.size()) == count && Index(arena.shapes.size()) == count, apart = true;
  for (Index i = 0; inside && i < count; ++i) {
    const pipnet::Layer& layer = network.layers[size(i)];
    const pipnet::TensorShape& shape = layer.output;
    const Index floats = pipnet::blocks_of(shape.channels) * pipnet::kBlock * shape.height * shape.width;
    // What is made in one step with the layer before it is written while that one's input is read.
    const bool joined = layer.kind == pipnet::LayerKind::gate || (i == 1 && layer.kind == pipnet::LayerKind::max_pool);
    Place place{arena.offsets[size(i)], arena.offsets[size(i)] + floats, joined ? i - 1 : i, i};
    for (Index reader = i + 1; reader <= count; ++reader) {
      const pipnet::Layer& other = network.layers[size(reader)];
      if (other.input == i + 1 || other.residual == i + 1) place.last = reader;
    }
    inside = place.begin >= 0 && place.begin % 16 == 0 && place.end <= arena.floats;
    for (const Place& before : places)
      if (before.first <= place.last && place.first <= before.last)
        apart &= before.end <= place.begin || place.end <= before.begin;
    largest += floats;
    places.push_back(place);
  }
  report(what + ": arena", inside && apart && arena.floats <= largest,
         !inside ? "a map outside of it" : !apart ? "two maps overlap" : "more than all maps");
}

void check_random() {
  for (std::uint32_t seed = 1; seed <= 400; ++seed) {
    const std::string name = "random network " + text(seed);
    const NaiveNetwork naive = random_network(seed);
    check_arena(name, naive.network);
    if (seed > 60) continue;
    const TwoCrops crops(2, 32);
    const pipnet::Plan plan(naive.network);
    Doubles want;
    for (Index image : {0, 1}) {
      const Doubles features = naive.run(crops.crop(image, 32));
      want.insert(want.end(), features.begin(), features.end());
    }
    Floats got(want.size(), NAN);
    plan.run_trunk({crops.bytes.data(), nullptr}, 2, got.data(), 1 + static_cast<int>(seed % 3));
    compare(name, got, want, 2e-5);
  }
}

// What a plan says of a network that it has no code for.
void check_refused(const std::string& reason, const std::function<void(NaiveNetwork&)>& build) {
  NaiveNetwork naive(32, Storage::float32, 1);
  build(naive);
  std::string got = "nothing";
  try {
    const pipnet::Plan plan(naive.network);
  } catch (const std::invalid_argument& error) {
    got = error.what();
  }
  report("refused: " + reason, got.find("plan: " + reason) == 0, "got \"" + got + "\"");
}

void check_invalid() {
  const auto stem = [](NaiveNetwork& n) { return n.convolution(0, 4, 3, 2); };
  check_refused("expected a network of at least one layer", [](NaiveNetwork&) {});
  check_refused("layer 0: expected a convolution of stride 2",
                [](NaiveNetwork& n) { n.convolution(0, 4, 3, 1); });
  check_refused("layer 0: expected a convolution of stride 2",
                [](NaiveNetwork& n) { n.depthwise(0, 3, 2); });
  check_refused("layer 1: only the first layer may read the crop", [&](NaiveNetwork& n) {
    stem(n);
    n.convolution(0, 4, 3, 2);
  });
  check_refused("layer 1: expected a convolution of 1x1 or, padded by 1, 3x3; got 5x5 padded by 2",
                [&](NaiveNetwork& n) { n.convolution(stem(n), 4, 5); });
  check_refused("layer 1: expected a convolution of 1x1 or, padded by 1, 3x3; got 3x3 padded by 0",
                [&](NaiveNetwork& n) {
                  n.convolution(stem(n), 4, 3);
                  n.network.layers[1].padding = 0;
                });
  check_refused("layer 1: expected a gate right behind a depthwise convolution",
                [&](NaiveNetwork& n) { n.convolution(n.gate(stem(n), 2), 4, 1); });
  check_refused("layer 2: expected a gate right behind a depthwise convolution", [&](NaiveNetwork& n) {
    const Index depthwise = n.depthwise(stem(n), 3, 1);
    n.convolution(n.gate(depthwise, 2), 4, 1, 1, Activation::none, depthwise);
  });
  for (std::uint32_t kind : {0u, 6u, ~0u}) {
    check_refused("layer 1: unknown kind", [&](NaiveNetwork& n) {
      n.convolution(n.max_pool(stem(n)), 4, 1);
      n.network.layers[1].kind = static_cast<pipnet::LayerKind>(kind);
    });
  }
  check_refused("the last layer: expected a convolution or deconvolution",
                [&](NaiveNetwork& n) { n.depthwise(stem(n), 3, 1); });
  check_refused("the last layer: expected a convolution or deconvolution",
                [&](NaiveNetwork& n) { n.max_pool(stem(n)); });
}

}  // namespace

int main() {
  const Known one(inverted(Storage::float32)), other(basic_blocks(Storage::float32));
  check_concurrent(one, other);
  if (check::kCanFork) check_fork(one);
  for (Storage storage : {Storage::float32, Storage::float16, Storage::int8}) check_head(storage);
  check_many_threads(one);
  for (const Named& named : kNetworks) {
    check_network(named, Storage::float32, named.make == inverted ? 17 : 3);
    check_network(named, Storage::float16, 3);
  }
  check_random();
  check_invalid();
  return check::summary();
}
