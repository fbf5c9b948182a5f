// AVX2 with FMA and F16C.
#pragma once

#include "ymm.h"

namespace pipnet {
namespace {

using Vec = Ymm;
using DotVec = Ymm;
constexpr int kTileCells = 6;  // 2 vectors x 6 cells = 12 of 16 registers
constexpr int kProductTile = 6;  // as many for matrix products
constexpr bool kVotesBeside = false;

}  // namespace
}  // namespace pipnet
