#include "packed.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../half.h"
#include "step.h"

namespace pipnet {
namespace {

constexpr std::size_t kLine = 64, kHugePage = 2 << 20;

// Weights are read from end to end, and from small pages no faster than at half the speed.
std::align_val_t alignment(std::size_t size) { return std::align_val_t{size < kHugePage ? kLine : kHugePage}; }

}  // namespace

AlignedBytes::AlignedBytes(std::size_t size) : data_(nullptr), size_(size) {
  if (size == 0) return;
  data_ = ::operator new(size, alignment(size));
#if defined(__linux__)
  if (size >= kHugePage) madvise(data_, size / kHugePage * kHugePage, MADV_HUGEPAGE);  // where there are none, small ones
#endif
  std::memset(data_, 0, size);
}

AlignedBytes::AlignedBytes(AlignedBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBytes& AlignedBytes::operator=(AlignedBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBytes::~AlignedBytes() { ::operator delete(data_, alignment(size_)); }

PackedWeights::PackedWeights(std::int64_t count, std::int64_t outputs, std::int64_t inputs, Storage storage)
    : storage_(storage), inputs_(inputs) {
  const std::int64_t each = storage == Storage::float16 ? 2 : 4;
  matrix_bytes_ = blocks_of(outputs) * inputs * kBlock * each;
  bytes_ = AlignedBytes(static_cast<std::size_t>(count * matrix_bytes_));
}

void PackedWeights::set(std::int64_t matrix, std::int64_t output, std::int64_t input, float value) {
  const std::int64_t at = (output / kBlock * inputs_ + input) * kBlock + output % kBlock;
  char* const begin = static_cast<char*>(bytes_.data()) + matrix * matrix_bytes_;
  if (storage_ == Storage::float16) {
    reinterpret_cast<Half*>(begin)[at] = to_half(value);
  } else {
    reinterpret_cast<float*>(begin)[at] = value;
  }
}

AlignedBytes packed_bias(const float* bias, std::int64_t outputs) {
  AlignedBytes packed(static_cast<std::size_t>(blocks_of(outputs) * kBlock) * sizeof(float));
  std::copy_n(bias, outputs, packed.floats());
  return packed;
}

}  // namespace pipnet
