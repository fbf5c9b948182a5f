#include "plan_file.h"

#include <algorithm>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "../merge.h"
#include "checksum.h"

namespace pipnet {
namespace {

constexpr std::uint32_t kMaxSide = 4096, kMaxLayers = 1024, kMaxChannels = 16384, kMaxLandmarks = 4096;
// Of all tensors of one image, each in memory of its own.
constexpr std::int64_t kMaxActivationBytes = std::int64_t{1} << 31;
// The head keeps the number of a cell in a float.
constexpr std::int64_t kMaxCells = std::int64_t{1} << 24;

template <class Expected, class Got>
[[noreturn]] void refuse(const std::string& what, const Expected& expected, const Got& got) {
  std::ostringstream message;
  message << "plan file: " << what << ": expected " << expected << ", got " << got;
  throw std::invalid_argument(message.str());
}

// `where` is followed by `name` in the message.
template <class Value>
void expect_between(Value value, Value low, Value high, const std::string& where, const char* name) {
  if (value >= low && value <= high) return;
  std::ostringstream range;
  range << low;
  if (low != high) range << " to " << high;
  refuse(where + name, range.str(), value);
}

template <std::size_t Count>
void expect_zeros(const std::uint32_t (&reserved)[Count], const std::string& where) {
  for (std::uint32_t value : reserved) expect_between(value, 0u, 0u, where, "reserved");
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

  expect_between(header.input_size, 32u, kMaxSide, "", "input_size");
  if (header.input_size % 32 != 0) refuse("input_size", "a multiple of 32", header.input_size);
  expect_between(header.layers, 1u, kMaxLayers, "", "layers");
  // As CropRule of pipnet_fast/crop.py.
  if (!(header.crop_scale > 0.0f && header.crop_scale <= 10.0f))
    refuse("crop_scale", "0 < scale <= 10", header.crop_scale);
  if (!(header.crop_top_shift >= -1.0f && header.crop_top_shift < header.crop_scale))
    refuse("crop_top_shift", "-1 <= top_shift < scale", header.crop_top_shift);
  expect_between(header.weight_storage, 0u, 1u, "", "weight_storage");
  expect_between(header.landmarks, 0u, kMaxLandmarks, "", "landmarks");
  expect_between(header.neighbors, 0u, header.landmarks == 0 ? 0u : header.landmarks - 1, "", "neighbors");
  expect_between(header.head_storage, 0u, header.landmarks == 0 ? 0u : 2u, "", "head_storage");
  expect_between(header.pixel_base, 0u, 1u, "", "pixel_base");
  expect_zeros(header.reserved, "");
  return header;
}

// Kernel, stride and padding that a kind of layer may have.
void check_window(const FileLayer& file, LayerKind kind, const std::string& where) {
  const auto expect = [&](std::uint32_t kernel, std::uint32_t stride, std::uint32_t padding) {
    expect_between(file.kernel, kernel, kernel, where, "kernel");
    expect_between(file.stride, stride, stride, where, "stride");
    expect_between(file.padding, padding, padding, where, "padding");
  };
  switch (kind) {
    case LayerKind::convolution:
      expect_between(file.kernel, 1u, 7u, where, "kernel");
      if (file.kernel % 2 == 0) refuse(where + "kernel", "an odd number", file.kernel);
      expect_between(file.stride, 1u, 2u, where, "stride");
      expect_between(file.padding, 0u, file.kernel / 2, where, "padding");
      break;
    case LayerKind::depthwise:
      if (file.kernel != 3 && file.kernel != 5) refuse(where + "kernel", "3 or 5", file.kernel);
      expect_between(file.stride, 1u, 2u, where, "stride");
      expect_between(file.padding, file.kernel / 2, file.kernel / 2, where, "padding");
      break;
    case LayerKind::deconvolution: expect(4, 2, 1); break;
    case LayerKind::max_pool: expect(3, 2, 1); break;
    case LayerKind::gate: expect(0, 0, 0); break;
  }
}

TensorShape output_shape(const FileLayer& file, LayerKind kind, const TensorShape& input, const std::string& where) {
  const auto side = [&](std::int64_t in) -> std::int64_t {
    if (kind == LayerKind::gate) return in;
    if (kind == LayerKind::deconvolution) return 2 * in;
    const std::int64_t room = in + 2 * std::int64_t{file.padding} - file.kernel;
    if (room < 0)
      refuse(where + "input", "sides of " + std::to_string(file.kernel - 2 * file.padding) + " or more", in);
    return room / file.stride + 1;
  };
  return {file.channels, side(input.height), side(input.width)};
}

void check_residual(const FileLayer& file, const Layer& layer, const Network& network, const std::string& where) {
  if (file.residual == -1) return;
  if (layer.kind != LayerKind::convolution) refuse(where + "residual", "-1, as it is no convolution", file.residual);
  expect_between(file.residual, 0, static_cast<std::int32_t>(network.layers.size()), where, "residual");
  const TensorShape shape = network.shape(file.residual), &output = layer.output;
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
  expect_between(file.kind, 1u, 5u, where, "kind");
  Layer layer{};
  layer.kind = static_cast<LayerKind>(file.kind);
  expect_between(file.activation, 0u, layer.kind == LayerKind::max_pool ? 0u : 3u, where, "activation");
  layer.activation = static_cast<Activation>(file.activation);
  expect_between(file.input, 0u, static_cast<std::uint32_t>(number), where, "input");
  const TensorShape input = network.shape(file.input);
  expect_between(file.channels, 1u, kMaxChannels, where, "channels");
  if (layer.kind != LayerKind::convolution && layer.kind != LayerKind::deconvolution && file.channels != input.channels)
    refuse(where + "channels", std::to_string(input.channels) + " as its input's", file.channels);
  check_window(file, layer.kind, where);
  const bool gate = layer.kind == LayerKind::gate;
  expect_between(file.squeezed, gate ? 1u : 0u, gate ? file.channels : 0u, where, "squeezed");
  expect_zeros(file.reserved, where);

  layer.input = file.input, layer.residual = file.residual;
  layer.kernel = file.kernel, layer.stride = file.stride, layer.padding = file.padding;
  layer.squeezed = file.squeezed;
  layer.output = output_shape(file, layer.kind, input, where);
  check_residual(file, layer, network, where);
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
  const std::int64_t inputs = network.shape(layer.input).channels, outputs = layer.output.channels;
  const std::int64_t taps = layer.kernel * layer.kernel;
  switch (layer.kind) {
    case LayerKind::convolution:
    case LayerKind::deconvolution:
      layer.weight = arrays.take<float>(outputs * inputs * taps, where, "weight");
      layer.bias = arrays.take<float>(outputs, where, "bias");
      break;
    case LayerKind::depthwise:
      layer.weight = arrays.take<float>(outputs * taps, where, "weight");
      layer.bias = arrays.take<float>(outputs, where, "bias");
      break;
    case LayerKind::max_pool: break;
    case LayerKind::gate:
      layer.weight = arrays.take<float>(layer.squeezed * outputs, where, "weight");
      layer.bias = arrays.take<float>(layer.squeezed, where, "bias");
      layer.weight2 = arrays.take<float>(outputs * layer.squeezed, where, "weight2");
      layer.bias2 = arrays.take<float>(outputs, where, "bias2");
      break;
  }
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

}  // namespace pipnet
