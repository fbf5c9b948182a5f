// The gate (squeeze and excite) behind a depthwise convolution, whose step takes the means and scales the maps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../aligned.h"
#include "network.h"
#include "packed.h"
#include "step.h"

namespace pipnet {

// The two fully connected layers of a gate.
class Excitation {
 public:
  explicit Excitation(const Layer& layer);

  Activation activation() const { return activation_; }
  std::int64_t multiplies() const { return 2 * squeezed_ * channels_; }
  std::size_t weight_bytes() const {
    return squeeze_.size() + expand_.size() + squeeze_bias_.size() + expand_bias_.size();
  }
  std::int64_t hidden_floats() const { return blocks_of(squeezed_) * kBlock; }

  // means (C) to gates (C), both in whole blocks, by way of `hidden`.
  void run(const Call& call, const float* means, float* hidden, float* gates) const;

 private:
  std::int64_t channels_, squeezed_;
  Activation activation_;
  PackedWeights squeeze_, expand_;
  AlignedBytes squeeze_bias_, expand_bias_;
};

}  // namespace pipnet
