// Scratch memory that a thread keeps from call to call.
#pragma once

#include <cstddef>
#include <vector>

namespace pipnet {

// At least `count` floats, uninitialized, of the calling thread's own; valid until its next call.
inline float* workspace(std::size_t count) {
  thread_local std::vector<float> memory;
  if (memory.size() < count) memory.resize(count);
  return memory.data();
}

}  // namespace pipnet
