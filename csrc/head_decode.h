// Backbone features to landmarks. What it computes: pipnet_fast/ops/head_decode.py.
#pragma once

#include "shapes.h"

namespace pipnet {

// Fills args.points and args.scores; args.cells and args.votes are allocated inside.
// The caller has checked every shape.
void head_decode(HeadDecodeArgs args, int threads);

// One implementation for each instruction set: votes and scores of all images for the landmarks of the panels
// [begin, end). The features' channels are contiguous.
using HeadDecodePanels = void(const HeadDecodeArgs& args, std::int64_t begin, std::int64_t end);
HeadDecodePanels head_decode_panels_scalar, head_decode_panels_neon, head_decode_panels_avx2,
    head_decode_panels_avx512;

}  // namespace pipnet
