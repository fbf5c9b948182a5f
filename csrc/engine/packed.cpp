#include "packed.h"

#include <algorithm>

#include "../half.h"
#include "network.h"

namespace pipnet {

PackedWeights::PackedWeights(std::int64_t count, std::int64_t outputs, std::int64_t inputs, Storage storage)
    : storage_(storage), inputs_(inputs) {
  matrix_bytes_ = blocks_of(outputs) * inputs * kBlock * bytes_of(storage);
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
