#include "decode.h"

#include <algorithm>

#include "isa.h"
#include "merge.h"
#include "parallel.h"
#include "workspace.h"

namespace pipnet {
namespace {

// Planes that are taken together; fewer than two such parts take less time than waking a thread.
constexpr std::int64_t kPlanes = 128;

}  // namespace

void decode(DecodeArgs args, int threads) {
  const std::int64_t planes = args.batch * args.landmarks, votes = planes * (1 + args.neighbors) * 2;
  args.votes = workspace(static_cast<std::size_t>(votes));
  DecodePlanes* const run = current_isa().loops.decode_planes;
  parallel_for((planes + kPlanes - 1) / kPlanes, worthwhile_threads(planes, 2 * kPlanes, threads),
               [&](std::int64_t part) { run(args, part * kPlanes, std::min(planes, (part + 1) * kPlanes)); });
  merge_votes(args);
}

}  // namespace pipnet
