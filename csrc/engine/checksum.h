// CRC-32 as zlib's: polynomial 0xEDB88320, bits reflected, all ones before and after.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pipnet {

std::uint32_t crc32(const void* bytes, std::size_t size);

}  // namespace pipnet
