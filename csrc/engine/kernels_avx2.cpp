#include "../simd/avx2.h"

// The bodies use the instruction set included above.
#include "kernels_body.h"

namespace pipnet {

const Kernels kKernelsAvx2 = kKernels;

}  // namespace pipnet
