// Memory that begins at a line of the cache.
#pragma once

#include <cstddef>

namespace pipnet {

constexpr std::size_t kLine = 64;

// Filled with zeros; throws std::bad_alloc.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size = 0);
  AlignedBytes(AlignedBytes&& other) noexcept;
  AlignedBytes& operator=(AlignedBytes&& other) noexcept;
  ~AlignedBytes();

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  std::size_t size() const { return size_; }

 private:
  void* data_;
  std::size_t size_;
};

// Gives whole pages from `begin` to `end` back to the system where that is possible; they hold other bytes then.
void give_back_pages(void* begin, const void* end);

}  // namespace pipnet
