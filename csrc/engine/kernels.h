// The engine's inner loops as plain functions on raw pointers, one table of them for each instruction set. Without a
// function in it, as shapes.h: sources of every instruction set include this.
//
// Maps are stored in blocks of kBlock channels, image by image: (B, ceil(C / kBlock), H, W, kBlock) floats, the last
// block filled up with channels that hold zeros. So are biases. A plane is one block of one image, (H, W, kBlock).
#pragma once

#include "../shapes.h"

namespace pipnet {

constexpr std::int64_t kBlock = 16;

enum class Activation : std::uint32_t { none = 0, relu = 1, relu6 = 2, hard_swish = 3 };

struct TensorShape {
  std::int64_t channels, height, width;
};

// output = activation(weight x input + bias + residual) for pixels and output blocks, the sums taken over runs:
// `length` floats that lie together, the next run `run` floats further, `inputs` floats in all. Of a map the runs are
// blocks of channels, of the rows of a crop what lies under a row of a kernel.
struct ProductTask {
  const float* input;  // of the first pixel
  std::ptrdiff_t run;
  std::int64_t inputs;
  std::int64_t pixels;
  Storage storage;     // float32 or float16
  const void* weight;  // (blocks, inputs, kBlock)
  std::int64_t first, last;  // blocks of the output
  const float* bias;      // (blocks, kBlock), or null
  const float* residual;         // of the first pixel in block 0, pixels kBlock floats apart, or null
  std::ptrdiff_t residual_block;  // floats to its next block
  Activation activation;
  float* output;                // of the first pixel in block 0
  std::ptrdiff_t block, pixel;  // of the output: floats to the next block, to the next pixel
};

// Winograd's way for convolutions and what can be put into its form: patches of a map are transformed to a few numbers
// each, the numbers of all tiles multiplied by weights that were transformed beforehand, and the products transformed
// back to pixels (winograd_body.h).
enum class Transform {
  f4,       // 3x3, stride 1: F(4, 3), 36 products for 4x4 pixels
  f2,       // F(2, 3), 16 products for 2x2 pixels
  f4s2,     // 3x3, stride 2: 81 products for 4x4 pixels
  f2s2,     // 25 products for 2x2 pixels
  doubled,  // the 4x4 deconvolution of stride 2: 16 products for 2x2 pixels
};

// Along one axis. The first tile begins one pixel before the map.
struct TransformShape {
  int inputs;   // pixels that a tile is computed from
  int step;     // pixels of the input from tile to tile
  int outputs;  // pixels that a tile gives
  int weights;  // different weights of a channel pair
  int repeats;  // products that the last weight takes part in; the others take part in one
};
constexpr TransformShape kShapeF4{6, 4, 4, 6, 1};
constexpr TransformShape kShapeF2{4, 2, 2, 4, 1};
constexpr TransformShape kShapeF4S2{9, 8, 4, 6, 4};
constexpr TransformShape kShapeF2S2{5, 4, 2, 4, 2};
constexpr TransformShape kShapeDoubled{3, 1, 2, 4, 1};

// Tiles [first, last) of a batch of maps, counted image by image and row by row.
struct TilesTask {
  Transform transform;
  TensorShape map;  // that is read or written, with its channels in whole blocks
  std::int64_t rows, columns;  // of tiles in an image
  std::int64_t first, last;
  std::int64_t first_block, last_block;
  float* products;  // for weight u of both axes: (blocks, repeats of u, last - first, kBlock)
};

struct ToTilesTask {
  TilesTask tiles;
  const float* input;  // (B, blocks, H, W, kBlock)
};

struct FromTilesTask {
  TilesTask tiles;
  const float* bias;      // (blocks, kBlock)
  const float* residual;  // (B, blocks, H, W, kBlock), or null
  Activation activation;
  float* output;  // of block 0 of image 0
  std::ptrdiff_t image, block, pixel;  // of the output: floats to the next
};

// Rows [first, last) of a plane's depthwise convolution.
struct DepthwiseTask {
  const float* input;  // plane (height, width, kBlock)
  std::int64_t height, width;
  float* output;  // plane (out_height, out_width, kBlock)
  std::int64_t out_height, out_width;
  std::int64_t kernel, stride;  // 3 or 5, padded by half of it; 1 or 2
  const float* weight;          // (kernel, kernel, kBlock)
  const float* bias;            // (kBlock)
  Activation activation;
  std::int64_t first, last;  // rows of the output
  float* sums;               // (kBlock), or null: of each channel's outputs in these rows, after the activation
};

// Rows [first, last) of a plane's 3x3 maximum of stride 2, padding 1.
struct MaxPoolTask {
  const float* input;
  std::int64_t height, width;
  float* output;
  std::int64_t out_height, out_width;
  std::int64_t first, last;
};

// Output rows [first, last) of a fully connected layer of one input vector, with ReLU or hard sigmoid.
enum class GateStep { relu, hard_sigmoid };
struct LinearTask {
  const float* input;   // (in)
  std::int64_t inputs;  // in
  const float* weight;  // (ceil(out / kBlock), in, kBlock): a block's outputs interleaved
  const float* bias;    // (out), filled up to whole blocks
  GateStep step;
  float* output;              // (out), whole blocks are written
  std::int64_t first, last;  // blocks of the output
};

// plane = activation(plane * gate), `pixels` times kBlock floats.
struct ScaleTask {
  const float* input;
  float* output;  // may be the input
  std::int64_t pixels;
  const float* gate;  // (kBlock)
  Activation activation;
};

// One row of a crop to floats with interleaved colors, between `padding` zero pixels on either side:
// output (width + 2 * padding, 3).
struct PixelRowTask {
  const std::uint8_t* bytes;  // (width, 3), or null
  const float* planes;        // or, if null, the first plane's row of normalized floats, `plane` floats apart
  std::ptrdiff_t plane;
  std::int64_t width, padding;
  const float *scale, *shift;  // (3): float = byte * scale + shift
  float* output;
};

// Of an instruction set.
struct Kernels {
  void (*product)(const ProductTask&);        // of maps: pixels kBlock floats apart, runs of kBlock
  void (*crop_product)(const ProductTask&, std::int64_t length);  // of crops: pixels 6 floats apart, runs of `length`
  void (*to_tiles)(const ToTilesTask&);
  void (*from_tiles)(const FromTilesTask&);
  void (*depthwise)(const DepthwiseTask&);
  void (*max_pool)(const MaxPoolTask&);
  void (*linear)(const LinearTask&);
  void (*scale)(const ScaleTask&);
  void (*pixel_row)(const PixelRowTask&);
};

}  // namespace pipnet
