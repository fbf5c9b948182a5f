// Plan files built in memory, for the loader's test and fuzzer: csrc/engine/plan_file.h read from the writer's side.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "engine/checksum.h"
#include "engine/plan_file.h"

namespace plan_bytes {

using Bytes = std::vector<unsigned char>;

// A copy at an aligned address, of exactly as many bytes, so that AddressSanitizer sees what is read beyond them.
class Aligned {
 public:
  explicit Aligned(const Bytes& bytes)
      : memory_(::operator new(bytes.size(), std::align_val_t{pipnet::kAlignment})), size_(bytes.size()) {
    if (!bytes.empty()) std::memcpy(memory_.get(), bytes.data(), bytes.size());
  }
  const void* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Delete {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{pipnet::kAlignment}); }
  };
  std::unique_ptr<void, Delete> memory_;
  std::size_t size_;
};

// Makes the header's size and checksum fit the bytes.
inline void seal(Bytes& bytes) {
  if (bytes.size() < sizeof(pipnet::FileHeader)) return;
  pipnet::FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.bytes = bytes.size();
  std::memcpy(bytes.data(), &header, sizeof header);
  constexpr std::size_t kFrom = offsetof(pipnet::FileHeader, checksum) + sizeof header.checksum;
  header.checksum = pipnet::crc32(bytes.data() + kFrom, bytes.size() - kFrom);
  std::memcpy(bytes.data(), &header, sizeof header);
}

struct File {
  pipnet::FileHeader header{};
  std::vector<pipnet::FileLayer> layers;

  File(std::uint32_t input_size, std::uint32_t landmarks, std::uint32_t neighbors, std::uint32_t storage = 0) {
    std::memcpy(header.magic, pipnet::kMagic, sizeof header.magic);
    header.version = pipnet::kPlanVersion;
    header.input_size = input_size;
    header.crop_scale = 1.25f, header.crop_top_shift = -0.25f;
    header.landmarks = landmarks, header.neighbors = neighbors, header.head_storage = storage;
  }

  File& add(pipnet::LayerKind kind, std::uint32_t input, std::uint32_t channels, std::uint32_t kernel = 0,
            std::uint32_t stride = 0, std::uint32_t padding = 0, std::int32_t residual = -1,
            std::uint32_t activation = 0, std::uint32_t squeezed = 0) {
    pipnet::FileLayer layer{};
    layer.kind = static_cast<std::uint32_t>(kind), layer.activation = activation;
    layer.input = input, layer.residual = residual, layer.channels = channels;
    layer.kernel = kernel, layer.stride = stride, layer.padding = padding, layer.squeezed = squeezed;
    layers.push_back(layer);
    return *this;
  }

  std::uint64_t channels(std::uint64_t tensor) const {
    if (tensor == 0) return 3;
    return tensor <= layers.size() ? layers[tensor - 1].channels : 0;
  }

  // Bytes of each array, in the order of the file. Of damaged layers too, though of no use then.
  std::vector<std::uint64_t> arrays() const {
    std::vector<std::uint64_t> sizes;
    for (const pipnet::FileLayer& layer : layers) {
      const std::uint64_t out = layer.channels, taps = std::uint64_t{layer.kernel} * layer.kernel;
      switch (static_cast<pipnet::LayerKind>(layer.kind)) {
        case pipnet::LayerKind::convolution:
        case pipnet::LayerKind::deconvolution:
          sizes.insert(sizes.end(), {out * channels(layer.input) * taps * 4, out * 4});
          break;
        case pipnet::LayerKind::depthwise: sizes.insert(sizes.end(), {out * taps * 4, out * 4}); break;
        case pipnet::LayerKind::gate:
          sizes.insert(sizes.end(), {out * layer.squeezed * 4, std::uint64_t{layer.squeezed} * 4,
                                     out * layer.squeezed * 4, out * 4});
          break;
        default: break;
      }
    }
    if (header.landmarks == 0) return sizes;
    const std::uint64_t padded = (std::uint64_t{header.landmarks} + 15) / 16 * 16, c = channels(layers.size());
    const std::uint64_t votes = std::uint64_t{header.landmarks} * (1 + std::uint64_t{header.neighbors});
    const std::uint64_t element = header.head_storage == 0 ? 4 : header.head_storage == 1 ? 2 : 1;
    sizes.insert(sizes.end(), {padded * c * element, padded * 4, votes * 2 * c * element, votes * 2 * 4});
    if (header.head_storage == 2) sizes.insert(sizes.end(), {padded * 4, votes * 2 * 4});
    sizes.insert(sizes.end(), {(std::uint64_t{header.landmarks} + 1) * 4, votes * 4, votes * 4});
    return sizes;
  }

  // Where each array begins, then where the last one ends.
  std::vector<std::uint64_t> offsets() const {
    std::uint64_t end = sizeof header + layers.size() * sizeof(pipnet::FileLayer);
    std::vector<std::uint64_t> begins;
    for (std::uint64_t size : arrays()) {
      begins.push_back((end + pipnet::kAlignment - 1) / pipnet::kAlignment * pipnet::kAlignment);
      end = begins.back() + size;
    }
    begins.push_back(end);
    return begins;
  }

  // Weights are small numbers by their position; the table is that of landmarks which all take their own votes.
  Bytes bytes() const {
    const std::vector<std::uint64_t> sizes = arrays(), begins = offsets();
    Bytes file(begins.back());
    pipnet::FileHeader head = header;
    head.layers = static_cast<std::uint32_t>(layers.size());
    std::memcpy(file.data(), &head, sizeof head);
    if (!layers.empty()) std::memcpy(file.data() + sizeof head, layers.data(), layers.size() * sizeof layers[0]);
    const std::size_t table = sizes.size() - (header.landmarks == 0 ? 0 : 3);
    for (std::size_t i = 0; i < table; ++i)
      for (std::uint64_t at = 0; at + 1 < sizes[i]; at += 2) file[begins[i] + at] = static_cast<unsigned char>(at / 2);
    for (std::size_t i = table; i < sizes.size(); ++i) {
      for (std::uint64_t n = 0; n < sizes[i] / 4; ++n) {
        const std::int32_t integer = static_cast<std::int32_t>(i == table ? n * (1 + header.neighbors) : n);
        const float weight = 1.0f / static_cast<float>(1 + header.neighbors);
        const void* number = i + 1 == sizes.size() ? static_cast<const void*>(&weight) : &integer;
        std::memcpy(file.data() + begins[i] + 4 * n, number, 4);
      }
    }
    seal(file);
    return file;
  }
};

// Every kind of layer, activation and window.
inline File every_layer(std::uint32_t landmarks, std::uint32_t neighbors, std::uint32_t storage) {
  using Kind = pipnet::LayerKind;
  File file(32, landmarks, neighbors, storage);
  file.add(Kind::convolution, 0, 5, 7, 2, 3, -1, 1)
      .add(Kind::max_pool, 1, 5, 3, 2, 1)
      .add(Kind::convolution, 2, 18, 1, 1, 0, -1, 2)
      .add(Kind::depthwise, 3, 18, 3, 1, 1, -1, 3)
      .add(Kind::gate, 4, 18, 0, 0, 0, -1, 0, 6)
      .add(Kind::convolution, 5, 5, 3, 1, 1, 2)
      .add(Kind::depthwise, 6, 5, 5, 2, 2)
      .add(Kind::convolution, 7, 6, 5, 2, 1)
      .add(Kind::deconvolution, 7, 17, 4, 2, 1, -1, 1);
  return file;
}

// A small valid file by chance, half of them of networks that csrc/engine/plan.h has code for.
inline File random_file(std::mt19937& engine) {
  using Kind = pipnet::LayerKind;
  const auto below = [&](std::uint32_t end) { return static_cast<std::uint32_t>(engine() % end); };
  const std::uint32_t landmarks = below(4) == 0 ? 0 : 1 + below(20);
  const bool runs = below(2) == 0;
  File file(32 * (1 + below(3)), landmarks, landmarks == 0 ? 0 : below(landmarks), landmarks == 0 ? 0 : below(3));
  file.header.weight_storage = below(2);
  std::vector<std::uint32_t> sides{file.header.input_size};
  for (std::uint32_t i = 0, count = 1 + below(6); i < count; ++i) {
    std::uint32_t input = below(3) == 0 ? below(i + 1) : i, kind = 1 + below(5), stride = 1 + below(2);
    std::uint32_t kernel = 1 + 2 * below(runs && i > 0 ? 2 : 4);
    if (runs && i == 0) kind = 1, stride = 2;
    if (runs && i > 0) input = std::max(input, 1u);
    if (runs && kind == 5 && file.layers[i - 1].kind != 2) kind = 2;
    if (runs && kind == 5) input = i;
    if (runs && i + 1 == count && kind != 1 && kind != 3) kind = 1;
    const std::uint32_t same = static_cast<std::uint32_t>(file.channels(input)), side = sides[input];
    const std::uint32_t channels = 1 + below(below(4) == 0 ? 40 : 8), activation = below(4);
    switch (kind) {
      case 1:
        file.add(Kind::convolution, input, channels, kernel, stride, kernel / 2, -1, activation);
        sides.push_back((side - 1) / stride + 1);
        break;
      case 2:
        kernel = 3 + 2 * below(2);
        file.add(Kind::depthwise, input, same, kernel, stride, kernel / 2, -1, activation);
        sides.push_back((side - 1) / stride + 1);
        break;
      case 3:
        file.add(Kind::deconvolution, input, channels, 4, 2, 1, -1, activation);
        sides.push_back(side * 2);
        break;
      case 4:
        file.add(Kind::max_pool, input, same, 3, 2, 1);
        sides.push_back((side - 1) / 2 + 1);
        break;
      default:
        file.add(Kind::gate, input, same, 0, 0, 0, -1, activation, 1 + below(same));
        sides.push_back(side);
    }
    // A tensor of the same shape, if chance finds one.
    pipnet::FileLayer& last = file.layers.back();
    const std::uint32_t residual = below(i + 1);
    if (last.kind == 1 && file.channels(residual) == last.channels && sides[residual] == sides.back() &&
        !(runs && residual == 0))
      last.residual = static_cast<std::int32_t>(residual);
  }
  return file;
}

}  // namespace plan_bytes
