#include "decode.h"

#include <algorithm>

#include "isa.h"
#include "merge.h"
#include "parallel.h"
#include "scratch.h"

namespace pipnet {
namespace {

// Planes that are taken together; fewer than two such parts take less time than waking a thread.
constexpr std::int64_t kPlanes = 128;
// Images whose votes are in memory at once.
constexpr std::int64_t kImages = 64;

}  // namespace

void decode(DecodeArgs args, int threads) {
  const std::int64_t batch = args.batch, votes = args.landmarks * (1 + args.neighbors) * 2;
  args.votes = thread_scratch(static_cast<std::size_t>(std::min(batch, kImages) * votes));
  DecodePlanes* const run = current_isa().loops.decode_planes;
  for (std::int64_t first = 0; first < batch; first += kImages) {
    DecodeArgs images = args;
    images.batch = std::min(batch - first, kImages);
    for (std::size_t i = 0; i < 5; ++i) images.maps[i] += first * args.strides[i].batch;
    images.points += first * args.landmarks * 2;
    images.scores += first * args.landmarks;
    const std::int64_t planes = images.batch * args.landmarks;
    parallel_for((planes + kPlanes - 1) / kPlanes, worthwhile_threads(planes, 2 * kPlanes, threads),
                 [&](std::int64_t part) { run(images, part * kPlanes, std::min(planes, (part + 1) * kPlanes)); });
    merge_votes(images);
  }
}

}  // namespace pipnet
