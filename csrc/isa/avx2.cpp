// AVX2 with FMA and F16C.
//
// x86_64: -mavx2 -mfma -mf16c
// x86_64 with MSVC: /arch:AVX2

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

#include "loops.h"

namespace pipnet {

// The bits of AVX2, FMA and F16C; ymm registers are kept.
extern constexpr Isa isa_avx2{
    "avx2", 2, 0x6, {{7, CpuidBit::ebx, 5}, {1, CpuidBit::ecx, 12}, {1, CpuidBit::ecx, 29}}, kLoops};

}  // namespace pipnet
