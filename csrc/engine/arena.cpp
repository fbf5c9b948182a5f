#include "arena.h"

#include <algorithm>
#include <numeric>

namespace pipnet {

Arena Arena::of(const Network& network) {
  Arena arena;
  if (network.layers.empty()) return arena;
  const std::size_t count = network.layers.size() - 1;
  std::vector<std::size_t> last(count);  // the layer that reads a tensor last
  std::vector<std::int64_t> size(count);
  for (std::size_t i = 0; i < count; ++i) {
    const TensorShape shape = network.layers[i].output;
    arena.shapes.push_back(shape);
    size[i] = floats_of(shape);
    last[i] = i + 1;
    const auto tensor = static_cast<std::int64_t>(i) + 1;
    for (std::size_t reader = i + 1; reader < network.layers.size(); ++reader)
      if (network.layers[reader].input == tensor || network.layers[reader].residual == tensor) last[i] = reader;
  }
  // A map lives from the layer that writes it; where a step takes that layer together with the one before, from that
  // one.
  const auto begin = [&](std::size_t i) { return i > 0 && type_of(network.layers[i].kind).has(kJoins) ? i - 1 : i; };
  // The largest first, each at the lowest place that is free while it lives.
  std::vector<std::size_t> order(count), placed;
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return size[a] > size[b]; });
  arena.offsets.resize(count);
  for (const std::size_t i : order) {
    std::vector<std::size_t> beside;
    for (const std::size_t j : placed)
      if (begin(j) <= last[i] && begin(i) <= last[j]) beside.push_back(j);
    std::sort(beside.begin(), beside.end(),
              [&](std::size_t a, std::size_t b) { return arena.offsets[a] < arena.offsets[b]; });
    std::int64_t offset = 0;
    for (const std::size_t j : beside) {
      if (offset + size[i] <= arena.offsets[j]) break;
      offset = std::max(offset, arena.offsets[j] + size[j]);
    }
    arena.offsets[i] = offset;
    arena.floats = std::max(arena.floats, offset + size[i]);
    placed.push_back(i);
  }
  return arena;
}

}  // namespace pipnet
