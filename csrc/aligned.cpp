#include "aligned.h"

#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pipnet {
namespace {

constexpr std::size_t kHugePage = 2 << 20;

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

void AlignedBytes::drop_before([[maybe_unused]] const void* address) {
#if defined(__linux__)
  // Whole huge pages, which nothing needs to split.
  const std::ptrdiff_t size = static_cast<const char*>(address) - static_cast<const char*>(data_);
  const std::size_t pages = static_cast<std::size_t>(size) / kHugePage * kHugePage;
  if (size_ >= kHugePage && pages > 0) madvise(data_, pages, MADV_DONTNEED);
#endif
}

AlignedBytes::~AlignedBytes() { ::operator delete(data_, alignment(size_)); }

}  // namespace pipnet
