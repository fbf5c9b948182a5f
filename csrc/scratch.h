// Memory that a thread keeps from call to call.
#pragma once

#include <cstddef>

#include "aligned.h"

namespace pipnet {

// At least `count` floats of the calling thread's own, whatever they hold, aligned to a line of the cache; valid until
// its next call.
inline float* thread_scratch(std::size_t count) {
  thread_local AlignedBytes memory;
  if (memory.size() < count * sizeof(float)) memory = AlignedBytes(count * sizeof(float));
  return memory.floats();
}

}  // namespace pipnet
