// A network made ready to run: algorithms chosen, weights packed, memory laid out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "network.h"

namespace pipnet {

// Crops of one of two kinds, the other being null.
struct Crops {
  const std::uint8_t* bytes;  // RGB (B, S, S, 3)
  const float* planes;        // normalized (B, 3, S, S)
};

// What a step is, and what it has to do.
struct StepWork {
  const char* name;
  std::size_t layers;        // of the network that it takes together
  std::int64_t multiplies;   // with weights, for one crop; without those that fill up blocks
  std::size_t weight_bytes;  // packed, biases with them
};

class Plan {
 public:
  // Packs what the network points to; it may go afterwards. Throws std::invalid_argument for a network that no code is
  // there for, std::bad_alloc where memory is short.
  //
  // `spent`: where memory begins in which all that lies, in the order of layers, and that nobody needs any more. It is
  // given back page by page, so that weights are in memory once, and holds other bytes then.
  explicit Plan(const Network& network, void* spent = nullptr);
  ~Plan();

  std::int64_t input_size() const;
  std::int64_t landmarks() const;  // 0 without a head
  TensorShape features() const;    // of the last layer's output

  // Landmarks of crops: points (B, N, 2) in fractions of the crop and scores (B, N). Of a plan with a head. From any
  // number of threads at once; each call uses up to `threads`.
  void run(const Crops& crops, std::int64_t batch, float* points, float* scores, int threads) const;
  // The last layer's output (B, H, W, C).
  void run_trunk(const Crops& crops, std::int64_t batch, float* features, int threads) const;

  // Of the steps before the head, in their order.
  std::vector<StepWork> steps() const;
  // How long each takes for one crop, in ms.
  std::vector<double> step_times(const Crops& crops, int threads) const;

  std::size_t weight_bytes() const;   // packed weights
  std::size_t scratch_bytes() const;  // working memory of one call at a time for one image

 private:
  struct Parts;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace pipnet
