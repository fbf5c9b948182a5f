// The loops of all operations, for the instruction set whose Vec stands above this line. They and all that they include
// are in an anonymous namespace and free of the standard library's templates: the linker may not merge code of
// different instruction sets.
#pragma once

#include "../decode_body.h"
#include "../engine/depthwise_body.h"
#include "../engine/gate_body.h"
#include "../engine/max_pool_body.h"
#include "../engine/pixels_body.h"
#include "../engine/product_body.h"
#include "../engine/winograd_body.h"
#include "../head_decode_body.h"
#include "../head_loss_body.h"
#include "../isa.h"

namespace pipnet {
namespace {

constexpr Loops kLoops{
    decode_planes,
    head_decode_panels,
    {dot, sum},
    {product, crop_product, to_tiles, from_tiles, depthwise, max_pool, linear, scale, pixel_row},
};

}  // namespace
}  // namespace pipnet
