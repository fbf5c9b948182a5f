// The engine's matrix products, and its steps one by one: every convolution against naive loops in double precision.
// Built under sanitizers like sanitize.cpp; every buffer is as large as its shape says, and what a call should leave
// alone is NaN before and after.
#include <set>
#include <thread>

#include "check.h"
#include "engine/packed.h"
#include "engine/step.h"
#include "half.h"
#include "naive_network.h"

namespace {

using check::Doubles;
using check::Floats;
using check::Index;
using check::NaiveNetwork;
using check::activated;
using check::compare;
using check::eighths;
using check::kActivations;
using check::kUntouched;
using check::size;
using check::text;
using pipnet::Activation;
using pipnet::blocks_of;
using pipnet::kBlock;
using pipnet::Storage;

// A run of pixels, and how they lie.
struct Pixels {
  Index count, apart;   // floats from pixel to pixel
  Index length, pitch;  // floats of a run, and from run to run
  Index inputs;

  // Up to the last float that the last pixel has.
  Index floats() const {
    const Index runs = pipnet::ceil_div(inputs, length);
    return (runs - 1) * pitch + (count - 1) * apart + inputs - (runs - 1) * length;
  }
  Index place(Index pixel, Index input) const { return input / length * pitch + pixel * apart + input % length; }
};

// What a product is tried with beside its shape.
struct Manner {
  Storage storage;
  Index blocks, first, last;
  bool bias, residual, interleaved;  // interleaved: all blocks of a pixel lie together
  Activation activation;
};

template <class Product>
void check_product(const std::string& what, const Product& product, const Pixels& pixels, const Manner& manner) {
  const Index outputs = manner.blocks * kBlock;
  const Floats input = eighths(pixels.floats()), weight = eighths(outputs * pixels.inputs), bias = eighths(outputs),
               residual = eighths(outputs * pixels.count);
  std::vector<pipnet::Half> halves;
  for (float value : weight) halves.push_back(pipnet::to_half(value));

  pipnet::ProductTask task{};
  task.input = input.data(), task.run = pixels.pitch;
  task.inputs = pixels.inputs, task.pixels = pixels.count;
  task.storage = manner.storage;
  task.weight = manner.storage == Storage::float16 ? static_cast<const void*>(halves.data()) : weight.data();
  task.first = manner.first, task.last = manner.last;
  task.bias = manner.bias ? bias.data() : nullptr;
  task.residual = manner.residual ? residual.data() : nullptr, task.residual_block = pixels.count * kBlock;
  task.activation = manner.activation;
  Floats output(size(outputs * pixels.count), NAN);
  task.output = output.data();
  task.block = manner.interleaved ? kBlock : pixels.count * kBlock;
  task.pixel = manner.interleaved ? outputs : kBlock;
  product(task);

  Doubles want(output.size(), kUntouched);
  for (Index o = manner.first * kBlock; o < manner.last * kBlock; ++o) {
    const Index block = o / kBlock, lane = o % kBlock;
    for (Index pixel = 0; pixel < pixels.count; ++pixel) {
      double sum = manner.bias ? double(bias[size(o)]) : 0.0;
      for (Index i = 0; i < pixels.inputs; ++i) {
        const float factor = weight[size((block * pixels.inputs + i) * kBlock + lane)];
        sum += double(input[size(pixels.place(pixel, i))]) * double(factor);
      }
      if (manner.residual) sum += double(residual[size(block * task.residual_block + pixel * kBlock + lane)]);
      want[size(block * task.block + pixel * task.pixel + lane)] = activated(manner.activation, sum);
    }
  }
  const std::string how = std::string(manner.storage == Storage::float16 ? ", float16" : "") +
                          (manner.residual ? ", residual" : "") + (manner.interleaved ? ", interleaved" : "");
  compare(what + " of " + text(pixels.count) + " pixels, " + text(pixels.inputs) + " inputs, blocks " +
              text(manner.first) + " to " + text(manner.last) + how + " activation " +
              text(static_cast<Index>(manner.activation)),
          output, want);
}

// One of each in turn: they are independent, and all pairs with a number of pixels come by.
Manner next_manner() {
  static std::mt19937 engine{11};
  const auto below = [&](Index n) { return static_cast<Index>(engine() % static_cast<std::uint64_t>(n)); };
  const Index blocks = 1 + below(3), first = below(blocks);
  return {below(2) == 0 ? Storage::float32 : Storage::float16, blocks, first, first + 1 + below(blocks - first),
          below(3) > 0, below(2) == 0, below(2) == 0, kActivations[below(4)]};
}

void check_products(const std::string& isa, const pipnet::Kernels& kernels) {
  for (Index count = 1; count <= 40; ++count) {
    for (Index inputs : {1, 2, 15, 16, 17, 32, 33, 47, 70}) {
      for (Index apart_runs : {0, 3})
        check_product(isa + " product", kernels.product, {count, kBlock, kBlock, (count + apart_runs) * kBlock, inputs},
                      next_manner());
    }
    for (Index kernel : {1, 3, 5, 7}) {
      Manner manner = next_manner();
      manner.residual = false;  // a crop has none
      const Index length = 3 * kernel, pitch = 6 * (count - 1) + length + count % 2;
      check_product(isa + " crop_product", [&](const pipnet::ProductTask& task) { kernels.crop_product(task, length); },
                    {count, 6, length, pitch, length * kernel}, manner);
    }
  }
}

// A tensor (B, C, H, W) as the engine stores it: (B, blocks, H, W, kBlock), the last block filled up.
Floats blocked(const Doubles& tensor, const pipnet::TensorShape& shape, Index batch) {
  const Index pixels = shape.height * shape.width, blocks = blocks_of(shape.channels);
  Floats stored(size(batch * blocks * pixels * kBlock));
  for (Index i = 0; i < Index(tensor.size()); ++i) {
    const Index pixel = i % pixels, channel = i / pixels % shape.channels, image = i / pixels / shape.channels;
    stored[size(((image * blocks + channel / kBlock) * pixels + pixel) * kBlock + channel % kBlock)] =
        static_cast<float>(tensor[size(i)]);
  }
  return stored;
}

// (B, blocks, H, W, kBlock) to (B, H, W, blocks, kBlock).
Doubles interleaved(const Floats& stored, const pipnet::TensorShape& shape) {
  const Index pixels = shape.height * shape.width, blocks = blocks_of(shape.channels);
  Doubles moved(stored.size());
  for (Index i = 0; i < Index(stored.size()); ++i) {
    const Index lane = i % kBlock, pixel = i / kBlock % pixels, block = i / kBlock / pixels % blocks;
    const Index image = i / kBlock / pixels / blocks;
    moved[size(((image * pixels + pixel) * blocks + block) * kBlock + lane)] = stored[size(i)];
  }
  return moved;
}

using Make = pipnet::StepPointer (*)(const pipnet::Network&, std::size_t);

// The steps that there were: which transform one takes is its own choice.
std::set<std::string> names;

// Runs the step of the layers behind the two given tensors, which are its input and, perhaps, its residual.
// Before the head stand convolutions only: `may_be_last`.
void check_step(const std::string& what, NaiveNetwork& naive, Make make, bool may_be_last = true) {
  static std::uint32_t turn = 0;
  ++turn;
  const Index batch = 1 + turn % 3;
  const int threads = turn / 3 % 2 == 0 ? 1 : 3;
  const bool last = may_be_last && turn / 6 % 2 == 0;  // what the head reads lies otherwise
  const pipnet::Network& network = naive.network;
  const std::size_t first = 2, end = network.layers.size();
  const pipnet::TensorShape in = naive.shape(1), out = naive.shape(Index(end));
  const auto doubles = [&](Index count) {
    const Floats numbers = naive.random(count);
    return Doubles(numbers.begin(), numbers.end());
  };
  const Doubles inputs = doubles(batch * naive.floats(1)), residuals = doubles(batch * naive.floats(2));

  Doubles plain;
  for (Index image = 0; image < batch; ++image) {
    const auto part = [&](const Doubles& all, Index tensor) {
      const auto begin = all.begin() + image * naive.floats(tensor);
      return Doubles(begin, begin + naive.floats(tensor));
    };
    Doubles tensor = part(inputs, 1);
    const Doubles residual = part(residuals, 2);
    for (std::size_t i = first; i < end; ++i)
      tensor = naive.layer_output(i, tensor, network.layers[i].residual < 0 ? nullptr : &residual);
    plain.insert(plain.end(), tensor.begin(), tensor.end());
  }
  // What fills up the last block is zero, before and after.
  const Floats stored = blocked(plain, out, batch);
  const Doubles want = last ? interleaved(stored, out) : Doubles(stored.begin(), stored.end());

  const pipnet::StepPointer step = make(network, first);
  names.insert(step->name());
  Floats input = blocked(inputs, in, batch), residual = blocked(residuals, naive.shape(2), batch);
  const Index plane = in.height * in.width * kBlock;
  const Index block = out.height * out.width * kBlock, blocks = blocks_of(out.channels);
  const std::string shape = text(in.channels) + " x " + text(in.height) + " x " + text(in.width) + " to " +
                            text(out.channels) + " channels, B=" + text(batch) + " threads=" + text(threads);
  const bool halves = network.weight_storage == Storage::float16;
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    Floats output(want.size(), NAN);
    std::vector<pipnet::Map> maps(end + 1);
    maps[1] = {input.data(), blocks_of(in.channels) * plane, plane, kBlock};
    maps[2] = {residual.data(), blocks * block, block, kBlock};
    maps[end] = last ? pipnet::Map{output.data(), blocks * block, kBlock, blocks * kBlock}
                     : pipnet::Map{output.data(), blocks * block, block, kBlock};
    pipnet::AlignedBytes shared(step->shared_floats(batch) * sizeof(float));
    std::fill_n(shared.floats(), shared.size() / sizeof(float), NAN);
    const pipnet::Call call{isa->loops.engine, threads, batch, {}, maps.data(), shared.floats()};
    // A new thread has no scratch memory yet and gets exactly what it asks for: overruns of it are seen too.
    std::thread([&] { step->run(call); }).join();
    compare(what + " as " + step->name() + " of " + shape + (halves ? ", float16 " : " ") + isa->name,
            output, want, halves ? 3e-3 : 1e-5);
  }
}

pipnet::StepPointer make_depthwise(const pipnet::Network& network, std::size_t i) {
  pipnet::StepPointer step = pipnet::kDepthwise.make(network, i);
  check::report("depthwise: layers", step->layers() == network.layers.size() - i);
  return step;
}

// The step of the first layers, on normalized crops; whole plans try bytes too.
void check_stem(Index side, Index channels, Index kernel, bool pooled) {
  NaiveNetwork naive(side, Storage::float32, 9);
  Index output = naive.convolution(0, channels, kernel, 2, Activation::hard_swish);
  if (pooled) output = naive.max_pool(output);
  naive.convolution(output, 1, 1);
  const Index batch = 2, pixels = 3 * side * side;
  const Floats crops = naive.random(batch * pixels);
  Doubles plain;
  for (Index image = 0; image < batch; ++image) {
    Doubles tensor(crops.begin() + image * pixels, crops.begin() + (image + 1) * pixels);
    for (std::size_t i = 0; i < size(output); ++i) tensor = naive.layer_output(i, tensor, nullptr);
    plain.insert(plain.end(), tensor.begin(), tensor.end());
  }
  const pipnet::TensorShape out = naive.shape(output);
  const Floats want = blocked(plain, out, batch);

  const pipnet::StepPointer step = pipnet::make_stem(naive.network);
  const std::string what = std::string(step->name()) + " " + text(kernel) + "x" + text(kernel) + " of " + text(side) +
                           " to " + text(channels) + " channels ";
  check::report(what + "layers", step->layers() == size(output));
  const Index block = out.height * out.width * kBlock;
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    Floats got(want.size(), NAN);
    std::vector<pipnet::Map> maps(size(output) + 1);
    maps.back() = {got.data(), blocks_of(channels) * block, block, kBlock};
    pipnet::AlignedBytes shared(step->shared_floats(batch) * sizeof(float));
    std::fill_n(shared.floats(), shared.size() / sizeof(float), NAN);
    const pipnet::Call call{isa->loops.engine, 3, batch, {nullptr, crops.data()}, maps.data(), shared.floats()};
    std::thread([&] { step->run(call); }).join();
    compare(what + isa->name, got, Doubles(want.begin(), want.end()), 1e-5);
  }
}

struct Channels {
  Index in, out;
};

struct Convolution {
  const char* name;
  Index kernel, stride;
  Make make;
};
constexpr Convolution kConvolutions[] = {{"3x3", 3, 1, pipnet::make_winograd},
                                         {"3x3/2", 3, 2, pipnet::make_winograd},
                                         {"1x1", 1, 1, pipnet::make_pointwise},
                                         {"1x1/2", 1, 2, pipnet::make_pointwise}};

void check_steps() {
  std::uint32_t seed = 0;
  const auto given = [&](const pipnet::TensorShape& in, const pipnet::TensorShape& out) {
    ++seed;
    NaiveNetwork naive(32, seed % 3 == 0 ? Storage::float16 : Storage::float32, seed);
    naive.given(in);
    naive.given(out);
    return naive;
  };
  for (Index height : {1, 2, 3, 4, 5, 8, 9, 13, 17}) {
    for (Index width : {height, height % 4 + 1, 18 - height}) {
      for (Channels channels : {Channels{1, 1}, Channels{16, 16}, Channels{5, 17}, Channels{33, 20}}) {
        if (channels.in > 16 && height * width > 64 && height != 17) continue;  // they take long
        const Activation activation = kActivations[seed % 4];
        const pipnet::TensorShape in{channels.in, height, width};
        for (Index residual : {-1, 2}) {
          for (const Convolution& c : kConvolutions) {
            const Index out_height = (height - 1) / c.stride + 1, out_width = (width - 1) / c.stride + 1;
            NaiveNetwork naive = given(in, {channels.out, out_height, out_width});
            naive.convolution(1, channels.out, c.kernel, c.stride, activation, residual);
            check_step(c.name, naive, c.make);
          }
        }
        NaiveNetwork doubled = given(in, {});
        doubled.deconvolution(1, channels.out, activation);
        check_step("deconvolution", doubled, pipnet::make_winograd);
        for (Index kernel : {3, 5}) {
          for (Index squeezed : {0, 1, 19}) {
            NaiveNetwork depthwise = given(in, {});
            const Index planes = depthwise.depthwise(1, kernel, 1 + seed % 2, activation);
            if (squeezed > 0) depthwise.gate(planes, squeezed, kActivations[seed / 4 % 4]);
            check_step("depthwise " + text(kernel), depthwise, make_depthwise, false);
          }
        }
        NaiveNetwork pooled = given(in, {});
        pooled.max_pool(1);
        check_step("max-pool", pooled, pipnet::kMaxPool.make, false);
      }
    }
  }
}

}  // namespace

int main() {
  for (const pipnet::Isa* isa : pipnet::available_isas()) check_products(isa->name, isa->loops.engine);
  check_steps();
  for (Index side : {32, 96})
    for (Index kernel : {1, 3, 5, 7})
      for (Index channels : {3, 16, 20})
        for (bool pooled : {false, true}) check_stem(side, channels, kernel, pooled);
  const std::set<std::string> every{"1x1",          "1x1/2",         "3x3 F(2,3)", "3x3 F(4,3)",      "3x3/2 F(2,3)",
                                    "3x3/2 F(4,3)", "deconvolution", "depthwise",  "depthwise, gate", "max-pool"};
  check::report("every step", names == every);
  return check::summary();
}
