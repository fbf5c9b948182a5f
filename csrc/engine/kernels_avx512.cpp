#include "../simd/avx512.h"

// The bodies use the instruction set included above.
#include "kernels_body.h"

namespace pipnet {

const Kernels kKernelsAvx512 = kKernels;

}  // namespace pipnet
