#include "head_decode.h"

#include "cpu.h"
#include "merge.h"
#include "parallel.h"
#include "workspace.h"

namespace pipnet {
namespace {

HeadDecodePanels* implementation() {
  switch (current_isa()) {
#if defined(PIPNET_WITH_NEON)
    case Isa::neon: return head_decode_panels_neon;
#endif
#if defined(PIPNET_WITH_AVX2)
    case Isa::avx2: return head_decode_panels_avx2;
    case Isa::avx512: return head_decode_panels_avx512;
#endif
    default: return head_decode_panels_scalar;
  }
}

// A thread with fewer multiplications than this to do is not worth waking: behind a torch backbone, torch's own
// threads still spin on the other cores for a while (measured by `python -m bench head`).
constexpr std::int64_t kMultipliesPerThread = std::int64_t{1} << 24;

std::int64_t multiplies(const HeadDecodeArgs& a) {
  const std::int64_t rows = a.grid.height * a.grid.width + 2 * (1 + a.neighbors);
  return a.batch * a.landmarks * rows * a.channels;
}

}  // namespace

void head_decode(HeadDecodeArgs args, int threads) {
  threads = worthwhile_threads(multiplies(args), kMultipliesPerThread, threads);
  const std::int64_t votes_per_image = args.landmarks * (1 + args.neighbors) * 2;
  args.votes = workspace(static_cast<std::size_t>(args.batch * votes_per_image + threads * args.channels));
  args.columns = args.votes + args.batch * votes_per_image;
  HeadDecodePanels* const run = implementation();
  const std::int64_t panels = (args.landmarks + kPanel - 1) / kPanel;
  parallel_for(panels, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
    run(args, begin, end, thread);
  });
  merge_votes(args);
}

}  // namespace pipnet
