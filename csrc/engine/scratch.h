// Memory that a thread keeps from step to step.
#pragma once

#include <cstddef>

#include "packed.h"

namespace pipnet {

// At least `count` floats of the calling thread's own, uninitialized, aligned to a line of the cache; valid until its
// next call.
inline float* thread_scratch(std::size_t count) {
  thread_local AlignedBytes memory;
  if (memory.size() < count * sizeof(float)) memory = AlignedBytes(count * sizeof(float));
  return memory.floats();
}

}  // namespace pipnet
