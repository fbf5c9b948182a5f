#include "aligned.h"

#include <cstdint>
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

AlignedBytes::~AlignedBytes() { ::operator delete(data_, alignment(size_)); }

void give_back_pages([[maybe_unused]] void* begin, [[maybe_unused]] const void* end) {
#if defined(__linux__)
  constexpr std::uintptr_t kPage = 64 << 10;  // or smaller, by the processor
  const auto first = (reinterpret_cast<std::uintptr_t>(begin) + kPage - 1) / kPage * kPage;
  const auto last = reinterpret_cast<std::uintptr_t>(end) / kHugePage * kHugePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#endif
}

}  // namespace pipnet
