// Backbone features to landmarks. What it computes: pipnet_fast/ops/head_decode.py.
#pragma once

#include "shapes.h"

namespace pipnet {

// Fills args.points and args.scores; args.cells and args.votes are allocated inside.
// The caller has checked every shape.
void head_decode(HeadDecodeArgs args, int threads);

// Panels that wait to be taken, by any thread.
class Panels;
std::int64_t take_panel(Panels& panels);

// Of an instruction set: votes and scores of all images for the landmarks of the panels that it takes, until none is
// left. The features' channels are contiguous and their cells evenly spaced.
using HeadDecodePanels = void(const HeadDecodeArgs& args, Panels& panels);

}  // namespace pipnet
