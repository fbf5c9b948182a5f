// Patches to numbers and products to pixels, both axes (Lavin and Gray 2016); the products between are
// product_body.h's. ../isa/loops.h says what may stand here.
//
// Products of one weight lie together, tile by tile: a matrix. Where a weight takes part in several (a convolution of
// stride 2 multiplies four pixels of a row by its middle tap), they are further rows of its matrix.
#pragma once

#include "product_body.h"
#include "transforms.h"

namespace pipnet {
namespace {

// Where the products of a transform lie, of `tiles` tiles.
template <class F>
struct ProductPlaces {
  std::ptrdiff_t at[F::kProducts][F::kProducts];     // floats to product (i, j) of the first tile in block 0
  std::ptrdiff_t block[F::kProducts][F::kProducts];  // floats from block to block

  ProductPlaces(std::int64_t blocks, std::int64_t tiles) {
    std::ptrdiff_t begin = 0;
    const std::ptrdiff_t group = tiles * kBlock;
    for (int i = 0; i < F::kWeights; ++i) {
      for (int j = 0; j < F::kWeights; ++j) {
        const int rows = repeats(i), columns = repeats(j);
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

  static int repeats(int weight) { return weight == F::kWeights - 1 ? F::kRepeats : 1; }
};

// A tile of one block: its place in the map, and where its products lie.
template <class F>
struct Tile {
  const ProductPlaces<F>& places;
  std::int64_t block, image, row, column;
  float* products;

  float* product(int i, int j) const { return products + places.at[i][j] + block * places.block[i][j]; }
};

// Calls body(tile) for every tile of every block.
template <class F, class Body>
inline void for_tiles(const TilesTask& task, const Body& body) {
  const ProductPlaces<F> places(task.map.channels / kBlock, task.last - task.first);
  const std::int64_t each = task.rows * task.columns;
  for (std::int64_t block = task.first_block; block < task.last_block; ++block) {
    for (std::int64_t i = task.first; i < task.last; ++i) {
      body(Tile<F>{places, block, i / each, i % each / task.columns, i % task.columns,
                   task.products + (i - task.first) * kBlock});
    }
  }
}

template <class F>
void to_tiles_of(const ToTilesTask& task) {
  const std::int64_t height = task.tiles.map.height, width = task.tiles.map.width;
  const std::int64_t blocks = task.tiles.map.channels / kBlock;
  for_tiles<F>(task.tiles, [&](const Tile<F>& tile) {
    const std::int64_t y0 = tile.row * F::kStep - 1, x0 = tile.column * F::kStep - 1;
    const bool inside = y0 >= 0 && x0 >= 0 && y0 + F::kInputs <= height && x0 + F::kInputs <= width;
    const float* const plane = task.input + (tile.image * blocks + tile.block) * height * width * kBlock;
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
        for (int j = 0; j < F::kProducts; ++j) result[j].store(tile.product(i, j) + v * Vec::kLanes);
      }
    }
  });
}

template <class F, Activation A>
void from_tiles_of(const FromTilesTask& task) {
  const std::int64_t height = task.tiles.map.height, width = task.tiles.map.width;
  const std::int64_t blocks = task.tiles.map.channels / kBlock;
  for_tiles<F>(task.tiles, [&](const Tile<F>& tile) {
    const std::int64_t y0 = tile.row * F::kOutputs, x0 = tile.column * F::kOutputs;
    const int rows = height - y0 < F::kOutputs ? static_cast<int>(height - y0) : F::kOutputs;
    const int columns = width - x0 < F::kOutputs ? static_cast<int>(width - x0) : F::kOutputs;
    const std::int64_t corner = y0 * width + x0;
    float* const output = task.output + tile.image * task.image + tile.block * task.block + corner * task.pixel;
    const float* const residual =
        task.residual == nullptr
            ? nullptr
            : task.residual + ((tile.image * blocks + tile.block) * height * width + corner) * kBlock;
    for (int v = 0; v < kBlockVecs; ++v) {
      const Vec bias = Vec::load(task.bias + tile.block * kBlock + v * Vec::kLanes);
      Vec half[F::kOutputs][F::kProducts];
      for (int j = 0; j < F::kProducts; ++j) {
        Vec product[F::kProducts], result[F::kOutputs];
        for (int i = 0; i < F::kProducts; ++i) product[i] = Vec::load(tile.product(i, j) + v * Vec::kLanes);
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
  });
}

// Calls body(F()), F being the transform's.
template <class Body>
inline void with_transform(Transform transform, const Body& body) {
  switch (transform) {
    case Transform::f4: return body(F4());
    case Transform::f2: return body(F2());
    case Transform::f4s2: return body(F4S2());
    case Transform::f2s2: return body(F2S2());
    case Transform::doubled: return body(Doubled());
  }
}

void to_tiles(const ToTilesTask& task) {
  with_transform(task.tiles.transform, [&](auto transform) { to_tiles_of<decltype(transform)>(task); });
}

void from_tiles(const FromTilesTask& task) {
  with_transform(task.tiles.transform, [&](auto transform) {
    with_activation(task.activation, [&](auto activation) {
      from_tiles_of<decltype(transform), decltype(activation)::value>(task);
    });
  });
}

}  // namespace
}  // namespace pipnet
