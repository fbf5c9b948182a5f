#include "simd/neon.h"

// The body uses the instruction set included above.
#include "head_loss_body.h"

namespace pipnet {

const HeadLossKernels head_loss_neon{dot, sum};

}  // namespace pipnet
