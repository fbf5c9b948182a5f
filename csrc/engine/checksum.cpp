#include "checksum.h"

#include <array>

namespace pipnet {
namespace {

constexpr std::size_t kSlices = 8;
using Table = std::array<std::array<std::uint32_t, 256>, kSlices>;

// table[s][b]: what a byte b that has s more bytes behind it in its slice adds to the sum.
constexpr Table make_table() {
  Table table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t sum = byte;
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1) != 0 ? 0xEDB88320u : 0u);
    table[0][byte] = sum;
  }
  for (std::size_t slice = 1; slice < kSlices; ++slice)
    for (std::size_t byte = 0; byte < 256; ++byte)
      table[slice][byte] = (table[slice - 1][byte] >> 8) ^ table[0][table[slice - 1][byte] & 0xFF];
  return table;
}
constexpr Table kTable = make_table();

}  // namespace

std::uint32_t crc32(const void* bytes, std::size_t size) {
  const std::uint8_t* next = static_cast<const std::uint8_t*>(bytes);
  std::uint32_t sum = ~0u;
  // Byte by byte each look-up waits for the one before; those of a slice do not wait for each other.
  for (; size >= kSlices; size -= kSlices, next += kSlices) {
    const std::uint32_t first = sum ^ (next[0] | std::uint32_t{next[1]} << 8 | std::uint32_t{next[2]} << 16 |
                                       std::uint32_t{next[3]} << 24);
    sum = kTable[7][first & 0xFF] ^ kTable[6][first >> 8 & 0xFF] ^ kTable[5][first >> 16 & 0xFF] ^
          kTable[4][first >> 24] ^ kTable[3][next[4]] ^ kTable[2][next[5]] ^ kTable[1][next[6]] ^ kTable[0][next[7]];
  }
  for (; size > 0; --size, ++next) sum = (sum >> 8) ^ kTable[0][(sum ^ *next) & 0xFF];
  return ~sum;
}

}  // namespace pipnet
