// A layer made ready to run, or two in one. Each in a file of its own, with what it prepares and how its work is split
// over threads; the inner loops are in the *_body.h files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "plan.h"

namespace pipnet {

// Where a map lies, in blocks of channels: floats from image to image, block to block, pixel to pixel.
struct Map {
  float* data;
  std::ptrdiff_t image, block, pixel;
};

// What a step needs to run.
struct Call {
  const Kernels& kernels;
  int threads;
  std::int64_t batch;
  Crops crops;
  const Map* maps;  // of each tensor; there is none of tensor 0
  float* shared;    // scratch of `shared_floats(batch)`, aligned to a line of the cache

  const Map& map(std::int64_t tensor) const { return maps[tensor]; }
};

class Step {
 public:
  virtual ~Step() = default;
  virtual void run(const Call& call) const = 0;
  virtual std::size_t shared_floats(std::int64_t /*batch*/) const { return 0; }
  virtual const char* name() const = 0;
  virtual std::size_t layers() const { return 1; }  // of the network that it takes together
  virtual std::int64_t multiplies() const = 0;      // with weights, of one image; without those that fill up blocks
  virtual std::size_t weight_bytes() const = 0;
};

using StepPointer = std::unique_ptr<const Step>;

// Each makes a step of layer i; those of one kind of layer only are that LayerType's.
StepPointer make_pointwise(const Network& network, std::size_t i);
StepPointer make_winograd(const Network& network, std::size_t i);  // 3x3 convolutions and deconvolutions
// The convolution of the crop, and a max-pooling behind it. Throws std::invalid_argument if that is not what comes
// first.
StepPointer make_stem(const Network& network);

}  // namespace pipnet
