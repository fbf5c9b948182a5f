// Patches to numbers and products to pixels, both axes (Lavin and Gray 2016); the products between are
// product_body.h's. Included after one of simd/*.h; see there for what may stand here.
//
// Products of one weight lie together, tile by tile: a matrix. Where a weight takes part in several (a convolution of
// stride 2 multiplies four pixels of a row by its middle tap), they are further rows of its matrix.
#pragma once

#include "product_body.h"
#include "transforms.h"

namespace pipnet {
namespace {

// Where the products of a transform lie: products (i, j) of the two axes begin at matrix[i][j] + repeat[i][j] * stride
// in units of (blocks * capacity * kBlock) and (capacity * kBlock).
template <class F>
struct ProductPlaces {
  std::ptrdiff_t at[F::kProducts][F::kProducts];  // floats from the first product of block 0
  std::ptrdiff_t block[F::kProducts][F::kProducts];  // floats from block to block

  ProductPlaces(const TransformShape& shape, std::int64_t blocks, std::int64_t capacity) {
    std::ptrdiff_t begin = 0;
    const std::ptrdiff_t group = capacity * kBlock;
    for (int i = 0; i < shape.weights; ++i) {
      for (int j = 0; j < shape.weights; ++j) {
        const int rows = repeats(shape, i), columns = repeats(shape, j);
        for (int r = 0; r < rows; ++r) {
          for (int c = 0; c < columns; ++c) {
            at[i + r][j + c] = begin + (r * columns + c) * group;
            block[i + r][j + c] = rows * columns * group;
          }
        }
        begin += blocks * rows * columns * group;
      }
    }
  }

  static int repeats(const TransformShape& shape, int weight) { return weight == shape.weights - 1 ? shape.repeats : 1; }
};

// A tile's place in its image.
struct TilePlace {
  std::int64_t image, row, column;

  TilePlace(const TilesTask& task, std::int64_t tile) {
    const std::int64_t each = task.rows * task.columns;
    image = tile / each, row = tile % each / task.columns, column = tile % task.columns;
  }
};

template <class F>
void to_tiles_of(const ToTilesTask& task, const TransformShape& shape) {
  const TilesTask& t = task.tiles;
  const std::int64_t height = t.map.height, width = t.map.width, blocks = t.map.channels / kBlock;
  const ProductPlaces<F> places(shape, blocks, t.capacity);
  for (std::int64_t block = t.first_block; block < t.last_block; ++block) {
    for (std::int64_t tile = t.first; tile < t.last; ++tile) {
      const TilePlace place(t, tile);
      const std::int64_t y0 = place.row * shape.step + shape.offset, x0 = place.column * shape.step + shape.offset;
      const bool inside = y0 >= 0 && x0 >= 0 && y0 + F::kInputs <= height && x0 + F::kInputs <= width;
      const float* const plane = task.input + (place.image * blocks + block) * height * width * kBlock;
      float* const products = t.products + (tile - t.origin) * kBlock;
      for (int v = 0; v < kBlockVecs; ++v) {
        Vec columns[F::kInputs][F::kProducts];
        for (int x = 0; x < F::kInputs; ++x) {
          Vec pixel[F::kInputs];
          if (inside) {
            for (int y = 0; y < F::kInputs; ++y)
              pixel[y] = Vec::load(plane + ((y0 + y) * width + x0 + x) * kBlock + v * Vec::kLanes);
          } else {
            for (int y = 0; y < F::kInputs; ++y) {
              const bool exists = y0 + y >= 0 && y0 + y < height && x0 + x >= 0 && x0 + x < width;
              pixel[y] = exists ? Vec::load(plane + ((y0 + y) * width + x0 + x) * kBlock + v * Vec::kLanes)
                                : Vec::broadcast(0.0f);
            }
          }
          F::to(pixel, columns[x]);
        }
        for (int i = 0; i < F::kProducts; ++i) {
          Vec row[F::kInputs], result[F::kProducts];
          for (int x = 0; x < F::kInputs; ++x) row[x] = columns[x][i];
          F::to(row, result);
          for (int j = 0; j < F::kProducts; ++j)
            result[j].store(products + places.at[i][j] + block * places.block[i][j] + v * Vec::kLanes);
        }
      }
    }
  }
}

template <class F, Activation A>
void from_tiles_of(const FromTilesTask& task, const TransformShape& shape) {
  const TilesTask& t = task.tiles;
  const std::int64_t height = t.map.height, width = t.map.width, blocks = t.map.channels / kBlock;
  const ProductPlaces<F> places(shape, blocks, t.capacity);
  for (std::int64_t block = t.first_block; block < t.last_block; ++block) {
    for (std::int64_t tile = t.first; tile < t.last; ++tile) {
      const TilePlace place(t, tile);
      const std::int64_t y0 = place.row * F::kOutputs, x0 = place.column * F::kOutputs;
      const int rows = height - y0 < F::kOutputs ? static_cast<int>(height - y0) : F::kOutputs;
      const int columns = width - x0 < F::kOutputs ? static_cast<int>(width - x0) : F::kOutputs;
      const float* const products = t.products + (tile - t.origin) * kBlock;
      const std::int64_t corner = y0 * width + x0;
      float* const output = task.output + place.image * task.image + block * task.block + corner * task.pixel;
      const float* const residual =
          task.residual == nullptr
              ? nullptr
              : task.residual + ((place.image * blocks + block) * height * width + corner) * kBlock;
      for (int v = 0; v < kBlockVecs; ++v) {
        const Vec bias = Vec::load(task.bias + block * kBlock + v * Vec::kLanes);
        Vec half[F::kOutputs][F::kProducts];
        for (int j = 0; j < F::kProducts; ++j) {
          Vec product[F::kProducts], result[F::kOutputs];
          for (int i = 0; i < F::kProducts; ++i)
            product[i] = Vec::load(products + places.at[i][j] + block * places.block[i][j] + v * Vec::kLanes);
          F::from(product, result);
          for (int y = 0; y < F::kOutputs; ++y) half[y][j] = result[y];
        }
        for (int y = 0; y < rows; ++y) {
          Vec result[F::kOutputs];
          F::from(half[y], result);
          for (int x = 0; x < columns; ++x) {
            const std::int64_t pixel = y * width + x;
            Vec sum = result[x] + bias;
            if (residual != nullptr) sum = sum + Vec::load(residual + pixel * kBlock + v * Vec::kLanes);
            activated<A>(sum).store(output + pixel * task.pixel + v * Vec::kLanes);
          }
        }
      }
    }
  }
}

void to_tiles(const ToTilesTask& task) {
  const TransformShape& shape = task.tiles.shape;
  switch (task.tiles.transform) {
    case Transform::f4: return to_tiles_of<F4>(task, shape);
    case Transform::f2: return to_tiles_of<F2>(task, shape);
    case Transform::f4s2: return to_tiles_of<F4S2>(task, shape);
    case Transform::f2s2: return to_tiles_of<F2S2>(task, shape);
    case Transform::doubled: return to_tiles_of<Doubled>(task, shape);
  }
}

void from_tiles(const FromTilesTask& task) {
  const TransformShape& shape = task.tiles.shape;
  with_activation(task.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    switch (task.tiles.transform) {
      case Transform::f4: return from_tiles_of<F4, kActivation>(task, shape);
      case Transform::f2: return from_tiles_of<F2, kActivation>(task, shape);
      case Transform::f4s2: return from_tiles_of<F4S2, kActivation>(task, shape);
      case Transform::f2s2: return from_tiles_of<F2S2, kActivation>(task, shape);
      case Transform::doubled: return from_tiles_of<Doubled, kActivation>(task, shape);
    }
  });
}

}  // namespace
}  // namespace pipnet
