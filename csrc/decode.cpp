#include "decode.h"

#include "cpu.h"
#include "merge.h"
#include "parallel.h"
#include "workspace.h"

namespace pipnet {
namespace {

DecodePlanes* implementation() {
  switch (current_isa()) {
#if defined(PIPNET_WITH_NEON)
    case Isa::neon: return decode_planes_neon;
#endif
#if defined(PIPNET_WITH_AVX2)
    case Isa::avx2: return decode_planes_avx2;
    case Isa::avx512: return decode_planes_avx512;
#endif
    default: return decode_planes_scalar;
  }
}

// Fewer planes than this a thread take less time than waking one.
constexpr std::int64_t kPlanesPerThread = 256;

}  // namespace

void decode(DecodeArgs args, int threads) {
  const std::int64_t planes = args.batch * args.landmarks, votes = planes * (1 + args.neighbors) * 2;
  args.votes = workspace(static_cast<std::size_t>(votes));
  DecodePlanes* const run = implementation();
  parallel_for(planes, worthwhile_threads(planes, kPlanesPerThread, threads),
               [&](std::int64_t begin, std::int64_t end, int) { run(args, begin, end); });
  merge_votes(args);
}

}  // namespace pipnet
