// All inner loops of one instruction set. Included after one of simd/*.h; see there for what may stand here.
#pragma once

#include "depthwise_body.h"
#include "gate_body.h"
#include "max_pool_body.h"
#include "pixels_body.h"
#include "product_body.h"
#include "winograd_body.h"

namespace pipnet {
namespace {

constexpr Kernels kKernels{product, crop_product, to_tiles, from_tiles, depthwise, max_pool, linear, scale, pixel_row};

}  // namespace
}  // namespace pipnet
