#include "plan_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "../merge.h"
#include "checksum.h"
#include "refuse.h"

namespace pipnet {
namespace {

constexpr std::uint32_t kMaxSide = 4096, kMaxLayers = 1024, kMaxChannels = 16384, kMaxLandmarks = 4096;
// Of all tensors of one image, each in memory of its own.
constexpr std::int64_t kMaxActivationBytes = std::int64_t{1} << 31;
constexpr auto kLastActivation = static_cast<std::int64_t>(Activation::hard_swish);
// The head keeps the number of a cell in a float.
constexpr std::int64_t kMaxCells = std::int64_t{1} << 24;

template <std::size_t Count>
void expect_zeros(const std::uint32_t (&reserved)[Count], const std::string& where) {
  for (std::uint32_t value : reserved) expect_between(value, 0, 0, where, "reserved");
}

// The arrays of a file, taken one after the other.
class Arrays {
 public:
  Arrays(const void* bytes, std::size_t size, std::size_t begin)
      : bytes_(static_cast<const unsigned char*>(bytes)), size_(size), end_(begin) {}

  // Counts are products of limited numbers, below 2^40.
  template <class T>
  const T* take(std::int64_t count, const std::string& where, const char* name) {
    const std::uint64_t begin = aligned(end_), wanted = static_cast<std::uint64_t>(count) * sizeof(T);
    const std::uint64_t left = begin < size_ ? size_ - begin : 0;
    if (wanted > left) refuse(where + name, std::to_string(wanted) + " bytes", std::to_string(left) + " to the end");
    end_ = begin + wanted;
    return reinterpret_cast<const T*>(bytes_ + begin);
  }

  const void* take_weights(Storage storage, std::int64_t count, const char* name) {
    switch (storage) {
      case Storage::float16: return take<Half>(count, "head: ", name);
      case Storage::int8: return take<std::int8_t>(count, "head: ", name);
      default: return take<float>(count, "head: ", name);
    }
  }

  // The last array is not filled up.
  void expect_end() const {
    if (size_ != end_) refuse("size", std::to_string(end_) + " bytes by its layers", size_);
  }

 private:
  static std::uint64_t aligned(std::uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

  const unsigned char* bytes_;
  std::uint64_t size_, end_;
};

FileHeader read_header(const void* bytes, std::size_t size) {
  FileHeader header;
  if (size < sizeof header) refuse("size", "at least " + std::to_string(sizeof header) + " bytes", size);
  if (reinterpret_cast<std::uintptr_t>(bytes) % kAlignment != 0)
    refuse("memory", "an address that is a multiple of " + std::to_string(kAlignment), bytes);
  std::memcpy(&header, bytes, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    refuse("first bytes", "those of a plan file", "others: it is none");
  if (header.version != kPlanVersion) refuse("version", kPlanVersion, header.version);
  if (header.bytes != size) refuse("size", std::to_string(header.bytes) + " bytes, as it says", size);
  constexpr std::size_t kFrom = offsetof(FileHeader, checksum) + sizeof header.checksum;
  const std::uint32_t checksum = crc32(static_cast<const unsigned char*>(bytes) + kFrom, size - kFrom);
  if (header.checksum != checksum) refuse("checksum: the file is damaged", header.checksum, checksum);

  expect_between(header.input_size, 32, kMaxSide, "", "input_size");
  if (header.input_size % 32 != 0) refuse("input_size", "a multiple of 32", header.input_size);
  expect_between(header.layers, 1, kMaxLayers, "", "layers");
  // As CropRule of pipnet_fast/crop.py.
  if (!(header.crop_scale > 0.0f && header.crop_scale <= 10.0f))
    refuse("crop_scale", "0 < scale <= 10", header.crop_scale);
  if (!(header.crop_top_shift >= -1.0f && header.crop_top_shift < header.crop_scale))
    refuse("crop_top_shift", "-1 <= top_shift < scale", header.crop_top_shift);
  expect_between(header.weight_storage, 0, 1, "", "weight_storage");
  expect_between(header.landmarks, 0, kMaxLandmarks, "", "landmarks");
  expect_between(header.neighbors, 0, header.landmarks == 0 ? 0 : header.landmarks - 1, "", "neighbors");
  expect_between(header.head_storage, 0, header.landmarks == 0 ? 0 : 2, "", "head_storage");
  expect_between(header.pixel_base, 0, 1, "", "pixel_base");
  expect_zeros(header.reserved, "");
  return header;
}

// A side of the output from that of the input.
std::int64_t output_side(const LayerType& type, const Layer& layer, std::int64_t input, const std::string& where) {
  const std::int64_t side = type.side(layer, input);
  if (side < 1)
    refuse(where + "input", "sides of " + std::to_string(layer.kernel - 2 * layer.padding) + " or more", input);
  return side;
}

void check_residual(const Layer& layer, const Network& network, const std::string& where) {
  if (layer.residual == -1) return;
  if (!type_of(layer.kind).has(kAddsResidual))
    refuse(where + "residual", "-1, as it is no convolution", layer.residual);
  expect_between(layer.residual, 0, static_cast<std::int64_t>(network.layers.size()), where, "residual");
  const TensorShape shape = network.shape(layer.residual), &output = layer.output;
  const auto text = [](const TensorShape& s) {
    return std::to_string(s.channels) + " x " + std::to_string(s.height) + " x " + std::to_string(s.width);
  };
  if (shape.channels != output.channels || shape.height != output.height || shape.width != output.width)
    refuse(where + "residual", "a tensor of " + text(output), text(shape));
}

// The next layer of the network; without its weights.
Layer read_layer(const FileLayer& file, const Network& network) {
  const std::size_t number = network.layers.size();
  const std::string where = "layer " + std::to_string(number) + ": ";
  expect_between(file.kind, 1, std::int64_t{std::size(kLayerTypes)}, where, "kind");
  Layer layer{};
  layer.kind = static_cast<LayerKind>(file.kind);
  const LayerType& type = type_of(layer.kind);
  expect_between(file.activation, 0, type.has(kActivates) ? kLastActivation : 0, where, "activation");
  layer.activation = static_cast<Activation>(file.activation);
  expect_between(file.input, 0, static_cast<std::int64_t>(number), where, "input");
  layer.input = file.input, layer.residual = file.residual;
  const TensorShape input = network.shape(layer.input);
  expect_between(file.channels, 1, kMaxChannels, where, "channels");
  if (type.has(kKeepsChannels) && file.channels != input.channels)
    refuse(where + "channels", std::to_string(input.channels) + " as its input's", file.channels);
  layer.kernel = file.kernel, layer.stride = file.stride, layer.padding = file.padding;
  type.check_window(layer, where);
  const bool squeezes = type.has(kSqueezes);
  expect_between(file.squeezed, squeezes ? 1 : 0, squeezes ? file.channels : 0, where, "squeezed");
  layer.squeezed = file.squeezed;
  expect_zeros(file.reserved, where);

  layer.output.channels = file.channels;
  layer.output.height = output_side(type, layer, input.height, where);
  layer.output.width = output_side(type, layer, input.width, where);
  check_residual(layer, network, where);
  return layer;
}

std::int64_t activation_bytes(const TensorShape& shape) {
  return floats_of(shape) * static_cast<std::int64_t>(sizeof(float));
}

void read_layers(const void* bytes, std::uint32_t count, Network& network) {
  // No layer more than doubles a side, and no tensor is let grow past the limit: none of these products overflows.
  std::int64_t total = activation_bytes(network.shape(0));
  for (std::uint32_t i = 0; i < count; ++i) {
    FileLayer file;
    std::memcpy(&file, static_cast<const unsigned char*>(bytes) + sizeof(FileHeader) + i * sizeof file, sizeof file);
    network.layers.push_back(read_layer(file, network));
    total += activation_bytes(network.layers.back().output);
    if (total > kMaxActivationBytes) {
      refuse("layer " + std::to_string(i) + ": output",
             "at most " + std::to_string(kMaxActivationBytes) + " bytes of tensors up to it", total);
    }
  }
}

void take_weights(Arrays& arrays, const Network& network, std::size_t number, Layer& layer) {
  const std::string where = "layer " + std::to_string(number) + ": ";
  const ArraySizes sizes = type_of(layer.kind).arrays(layer, network.shape(layer.input).channels);
  const auto take = [&](std::int64_t size, const char* name) {
    return size == 0 ? nullptr : arrays.take<float>(size, where, name);
  };
  layer.weight = take(sizes.weight, "weight");
  layer.bias = take(sizes.bias, "bias");
  layer.weight2 = take(sizes.weight2, "weight2");
  layer.bias2 = take(sizes.bias2, "bias2");
}

HeadWeights take_head(Arrays& arrays, const FileHeader& header, const TensorShape& features) {
  if (features.height * features.width > kMaxCells)
    refuse("head: grid", "at most " + std::to_string(kMaxCells) + " cells", features.height * features.width);
  HeadWeights head{};
  head.landmarks = header.landmarks, head.neighbors = header.neighbors;
  head.storage = static_cast<Storage>(header.head_storage);
  const std::int64_t padded = head.score_rows(), votes = head.votes(), rows = 2 * votes;
  head.score_weight = arrays.take_weights(head.storage, padded * features.channels, "score_weight");
  head.score_bias = arrays.take<float>(padded, "head: ", "score_bias");
  head.vote_weight = arrays.take_weights(head.storage, rows * features.channels, "vote_weight");
  head.vote_bias = arrays.take<float>(rows, "head: ", "vote_bias");
  if (head.storage == Storage::int8) {
    head.score_scale = arrays.take<float>(padded, "head: ", "score_scale");
    head.vote_scale = arrays.take<float>(rows, "head: ", "vote_scale");
  }
  head.table.starts = arrays.take<std::int32_t>(head.landmarks + 1, "table: ", "starts");
  head.table.sources = arrays.take<std::int32_t>(votes, "table: ", "sources");
  head.table.weights = arrays.take<float>(votes, "table: ", "weights");
  return head;
}

AlignedBytes read_file(const char* path) {
  const std::filesystem::path name = std::filesystem::u8path(path);
  std::error_code error;
  // Refuses what is no regular file, too.
  const std::uintmax_t size = std::filesystem::file_size(name, error);
  if (error) throw std::invalid_argument(std::string(path) + ": " + error.message());
  std::ifstream file(name, std::ios::binary);
  // The rest of a large file that is none of ours is not worth its memory.
  char magic[sizeof kMagic] = {};
  file.read(magic, sizeof magic);
  if (!file || std::memcmp(magic, kMagic, sizeof magic) != 0)
    throw std::invalid_argument(std::string(path) + ": expected a plan file, got another or one that cannot be read");
  AlignedBytes bytes(static_cast<std::size_t>(size));
  file.seekg(0);
  file.read(static_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (!file)
    throw std::invalid_argument(std::string(path) + ": expected " + std::to_string(size) + " bytes, got fewer");
  return bytes;
}

}  // namespace

Network parse_network(const void* bytes, std::size_t size) {
  const FileHeader header = read_header(bytes, size);
  const std::size_t arrays_begin = sizeof header + header.layers * sizeof(FileLayer);
  if (arrays_begin > size) refuse("size", std::to_string(arrays_begin) + " bytes or more by its layers", size);

  Network network{};
  network.input_size = header.input_size;
  network.crop_scale = header.crop_scale, network.crop_top_shift = header.crop_top_shift;
  network.pixel_centers = header.pixel_base == 1;
  network.weight_storage = static_cast<Storage>(header.weight_storage);
  read_layers(bytes, header.layers, network);
  Arrays arrays(bytes, size, arrays_begin);
  for (std::size_t i = 0; i < network.layers.size(); ++i) take_weights(arrays, network, i, network.layers[i]);
  if (header.landmarks != 0) network.head = take_head(arrays, header, network.layers.back().output);
  arrays.expect_end();
  if (network.head) {
    try {
      check_table(network.head->table, network.head->landmarks, network.head->neighbors);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("plan file: ") + error.what());
    }
  }
  return network;
}

LoadedNetwork load_network(const void* bytes, std::size_t size) {
  if (reinterpret_cast<std::uintptr_t>(bytes) % kAlignment == 0) return {AlignedBytes(), parse_network(bytes, size)};
  AlignedBytes copy(size);
  std::copy_n(static_cast<const unsigned char*>(bytes), size, static_cast<unsigned char*>(copy.data()));
  Network network = parse_network(copy.data(), size);
  return {std::move(copy), std::move(network)};
}

LoadedNetwork load_network(const char* path) {
  AlignedBytes bytes = read_file(path);
  Network network = parse_network(bytes.data(), bytes.size());
  return {std::move(bytes), std::move(network)};
}

}  // namespace pipnet
