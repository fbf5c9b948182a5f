// Pixels to what a network takes.
#pragma once

#include <cstdint>

namespace pipnet {

// crops (B, pixels, 3) of bytes to out (B, 3, pixels): out[b][c][i] = table[c][crops[b][i][c]].
void normalize(const std::uint8_t* crops, std::int64_t batch, std::int64_t pixels, const float* table, float* out);

}  // namespace pipnet
