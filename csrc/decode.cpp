#include "decode.h"

#include <algorithm>

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

// Planes that are taken together; fewer than two such parts take less time than waking a thread.
constexpr std::int64_t kPlanes = 128;

}  // namespace

void decode(DecodeArgs args, int threads) {
  const std::int64_t planes = args.batch * args.landmarks, votes = planes * (1 + args.neighbors) * 2;
  args.votes = workspace(static_cast<std::size_t>(votes));
  DecodePlanes* const run = implementation();
  parallel_for((planes + kPlanes - 1) / kPlanes, worthwhile_threads(planes, 2 * kPlanes, threads),
               [&](std::int64_t part) { run(args, part * kPlanes, std::min(planes, (part + 1) * kPlanes)); });
  merge_votes(args);
}

}  // namespace pipnet
