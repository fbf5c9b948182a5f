// Dense head maps to landmarks. What it computes: pipnet_fast/ops/decode.py.
#pragma once

#include "shapes.h"

namespace pipnet {

// Fills args.points and args.scores; args.votes is allocated inside. The caller has checked every shape.
void decode(DecodeArgs args, int threads);

// Of an instruction set: votes and scores of the planes [begin, end) of B * N.
using DecodePlanes = void(const DecodeArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace pipnet
