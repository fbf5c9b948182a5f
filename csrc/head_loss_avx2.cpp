#include "simd/avx2.h"

// The body uses the instruction set included above.
#include "head_loss_body.h"

namespace pipnet {

const HeadLossKernels head_loss_avx2{dot, sum};

}  // namespace pipnet
