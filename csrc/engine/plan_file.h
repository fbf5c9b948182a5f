// The file that holds a network: written by pipnet_fast/engines/plan_file.py, read here. Little-endian; every array
// begins at a multiple of kAlignment bytes from the start of the file.
//
//     FileHeader
//     FileLayer   one for each layer, in the order of execution
//     arrays      of layer after layer: weight, bias and, of a gate, weight2, bias2, float32
//                 then, if there is a head, of the head: score_weight, score_bias, vote_weight, vote_bias and, in int8,
//                 score_scale, vote_scale; then of its table: starts, sources, weights
//
// Their sizes follow from what stands before, so that the file has no offsets that could point anywhere.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../aligned.h"
#include "network.h"

namespace pipnet {

constexpr char kMagic[8] = {'p', 'i', 'p', 'n', 'e', 't', '\n', '\0'};
constexpr std::uint32_t kPlanVersion = 1;
constexpr std::size_t kAlignment = kLine;

struct FileHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t checksum;  // CRC-32 (as zlib's) of all that follows this number
  std::uint64_t bytes;     // of the whole file
  std::uint32_t input_size;
  std::uint32_t layers;
  float crop_scale, crop_top_shift;
  std::uint32_t weight_storage;  // of the plan: 0 float32, 1 float16; in the file they are float32 always
  std::uint32_t landmarks;       // 0: no head, and the two that follow are 0 too
  std::uint32_t neighbors;
  std::uint32_t head_storage;  // 0 float32, 1 float16, 2 int8
  std::uint32_t pixel_base;    // of crops, as CropRule's: 0 continuous, 1 center
  std::uint32_t reserved[1];   // 0
};
static_assert(sizeof(FileHeader) == 64);

struct FileLayer {
  std::uint32_t kind;        // LayerKind
  std::uint32_t activation;  // Activation
  std::uint32_t input;       // tensor
  std::int32_t residual;     // tensor or -1
  std::uint32_t channels;    // of the output
  std::uint32_t kernel, stride, padding;  // of a gate 0
  std::uint32_t squeezed;    // of a gate, else 0
  std::uint32_t reserved[7];  // 0
};
static_assert(sizeof(FileLayer) == 64);

// Reads a file from memory, which must stay and be aligned to kAlignment: the network points into it. Whatever the
// bytes are, nothing outside of them is read. Throws std::invalid_argument, which says what is wrong.
Network parse_network(const void* bytes, std::size_t size);

struct LoadedNetwork {
  AlignedBytes memory;  // what the network points into, unless that is the caller's
  Network network;
};

// The same from any address; there too the memory must stay.
LoadedNetwork load_network(const void* bytes, std::size_t size);

// The same from a regular file; `path` is UTF-8.
LoadedNetwork load_network(const char* path);

}  // namespace pipnet
