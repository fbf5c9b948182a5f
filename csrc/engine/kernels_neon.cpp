#include "../simd/neon.h"

// The bodies use the instruction set included above.
#include "kernels_body.h"

namespace pipnet {

const Kernels kKernelsNeon = kKernels;

}  // namespace pipnet
