// Where the maps of a network lie in memory that they share: two that are needed at the same time do not overlap.
#pragma once

#include <cstdint>
#include <vector>

#include "network.h"

namespace pipnet {

struct Arena {
  std::vector<TensorShape> shapes;    // of tensors 1 to the last but one; the last has memory of its own
  std::vector<std::int64_t> offsets;  // of each, floats for one image
  std::int64_t floats = 0;            // in all

  static Arena of(const Network& network);
};

}  // namespace pipnet
