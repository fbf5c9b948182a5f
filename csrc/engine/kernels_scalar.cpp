#include "../simd/scalar.h"

// The bodies use the instruction set included above.
#include "kernels_body.h"

namespace pipnet {

const Kernels kKernelsScalar = kKernels;

}  // namespace pipnet
