// Weights and biases in the order that kernels read them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../aligned.h"
#include "../shapes.h"

namespace pipnet {

// Matrices (blocks of outputs, inputs, kBlock), filled up with zeros, as float32 or float16.
class PackedWeights {
 public:
  // `count` such matrices of `outputs` x `inputs`.
  PackedWeights(std::int64_t count, std::int64_t outputs, std::int64_t inputs, Storage storage);

  void set(std::int64_t matrix, std::int64_t output, std::int64_t input, float value);
  const void* matrix(std::int64_t i) const { return static_cast<const char*>(bytes_.data()) + i * matrix_bytes_; }
  Storage storage() const { return storage_; }
  std::size_t size() const { return bytes_.size(); }

 private:
  Storage storage_;
  std::int64_t inputs_, matrix_bytes_;
  AlignedBytes bytes_;
};

// Filled up to whole blocks with zeros.
AlignedBytes packed_bias(const float* bias, std::int64_t outputs);

}  // namespace pipnet
