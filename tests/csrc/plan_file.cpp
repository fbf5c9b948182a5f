// The loader of plan files: what it reads from good ones, and that it refuses bad ones, each for its own reason,
// without a look outside of them. Built under sanitizers like sanitize.cpp.
#include "engine/plan_file.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "plan_bytes.h"

namespace {

using check::report;
using plan_bytes::Aligned;
using plan_bytes::Bytes;
using plan_bytes::File;
using pipnet::LayerKind;

// What the loader says, or nothing.
std::string message(const Bytes& bytes) {
  const Aligned file(bytes);
  try {
    pipnet::parse_network(file.data(), file.size());
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

void check_refused(const Bytes& bytes, const std::string& reason, const std::string& what) {
  const std::string got = message(bytes);
  report(what, got.find("plan file: " + reason) == 0, "expected \"" + reason + "\", got \"" + got + "\"");
}

void check_checksum() {
  const char* digits = "123456789";
  report("CRC-32 of its check value", pipnet::crc32(digits, 9) == 0xCBF43926u);
  report("CRC-32 of nothing", pipnet::crc32(digits, 0) == 0);
}

void check_arrays(const File& file, const std::string& what) {
  const Aligned memory(file.bytes());
  const pipnet::Network network = pipnet::parse_network(memory.data(), memory.size());
  std::vector<const void*> got;
  for (const pipnet::Layer& layer : network.layers)
    for (const void* array : {layer.weight, layer.bias, layer.weight2, layer.bias2})
      if (array != nullptr) got.push_back(array);
  const pipnet::HeadWeights head = network.head.value_or(pipnet::HeadWeights{});
  for (const void* array : {head.score_weight, static_cast<const void*>(head.score_bias), head.vote_weight,
                            static_cast<const void*>(head.vote_bias), static_cast<const void*>(head.score_scale),
                            static_cast<const void*>(head.vote_scale), static_cast<const void*>(head.table.starts),
                            static_cast<const void*>(head.table.sources),
                            static_cast<const void*>(head.table.weights)})
    if (array != nullptr) got.push_back(array);
  std::vector<std::uint64_t> want = file.offsets();
  want.pop_back();
  bool good = got.size() == want.size();
  for (std::size_t i = 0; good && i < got.size(); ++i)
    good = got[i] == static_cast<const unsigned char*>(memory.data()) + want[i];
  report(what + ": arrays", good);
}

void check_fields() {
  File file = plan_bytes::every_layer(19, 4, 2);
  file.header.pixel_base = 1;
  const Aligned memory(file.bytes());
  const pipnet::Network network = pipnet::parse_network(memory.data(), memory.size());
  report("header", network.input_size == 32 && network.crop_scale == 1.25f && network.crop_top_shift == -0.25f);
  report("pixel base", network.pixel_centers);
  const pipnet::HeadWeights& head = network.head.value();
  report("head", head.landmarks == 19 && head.neighbors == 4);
  report("storage", head.storage == pipnet::Storage::int8 && network.weight_storage == pipnet::Storage::float32);
  report("table", head.table.starts[19] == 95 && head.table.weights[94] == 0.2f);
  const std::int64_t sides[] = {16, 8, 8, 8, 8, 8, 4, 1, 8}, channels[] = {5, 5, 18, 18, 18, 5, 5, 6, 17};
  report("layers", network.layers.size() == 9);
  for (std::size_t i = 0; i < network.layers.size(); ++i) {
    const pipnet::Layer& layer = network.layers[i];
    const pipnet::FileLayer& want = file.layers[i];
    const std::string what = "layer " + std::to_string(i);
    report(what + ": shape", layer.output.channels == channels[i] && layer.output.height == sides[i] &&
                                 layer.output.width == sides[i]);
    report(what + ": fields", static_cast<std::uint32_t>(layer.kind) == want.kind && layer.input == want.input &&
                                  static_cast<std::uint32_t>(layer.activation) == want.activation &&
                                  layer.residual == want.residual && layer.kernel == want.kernel &&
                                  layer.stride == want.stride && layer.padding == want.padding &&
                                  layer.squeezed == want.squeezed);
  }
}

void check_good() {
  check_fields();
  for (std::uint32_t storage : {0u, 1u, 2u})
    for (std::uint32_t landmarks : {1u, 16u, 17u, 98u})
      for (std::uint32_t neighbors : {0u, landmarks - 1})
        check_arrays(plan_bytes::every_layer(landmarks, neighbors, storage),
                     "storage " + std::to_string(storage) + " N=" + std::to_string(landmarks));
  check_arrays(plan_bytes::every_layer(0, 0, 0), "no head");
  std::mt19937 engine(7);
  for (int i = 0; i < 500; ++i) check_arrays(plan_bytes::random_file(engine), "random " + std::to_string(i));

  Bytes odd_values = plan_bytes::every_layer(5, 2, 0).bytes();
  const std::vector<std::uint64_t> begins = plan_bytes::every_layer(5, 2, 0).offsets();
  const float values[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  std::memcpy(odd_values.data() + begins[0], values, sizeof values);
  plan_bytes::seal(odd_values);
  report("weights that are NaN and infinite", message(odd_values).empty());
}

void check_cut_and_flipped(const File& file) {
  const Bytes bytes = file.bytes();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    check_refused(cut, "size", "cut to " + std::to_string(size));
    plan_bytes::seal(cut);
    check_refused(cut, "", "cut to " + std::to_string(size) + " and sealed");
  }
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    Bytes flipped = bytes;
    flipped[at] = static_cast<unsigned char>(flipped[at] ^ (1 << at % 8));
    check_refused(flipped, "", "flipped bit in byte " + std::to_string(at));
  }
  for (std::size_t more : {std::size_t{1}, pipnet::kAlignment}) {
    Bytes longer = bytes;
    longer.resize(bytes.size() + more);
    plan_bytes::seal(longer);
    check_refused(longer, "size: expected " + std::to_string(bytes.size()) + " bytes by its layers", "longer");
  }
}

using pipnet::FileHeader;
using pipnet::FileLayer;

void check_header() {
  const auto refused = [](const std::string& reason, const std::function<void(FileHeader&)>& damage) {
    File file = plan_bytes::every_layer(19, 4, 1);
    Bytes bytes = file.bytes();
    FileHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    damage(header);
    std::memcpy(bytes.data(), &header, sizeof header);
    plan_bytes::seal(bytes);
    check_refused(bytes, reason, "header");
  };
  refused("first bytes", [](FileHeader& h) { h.magic[6] = '\r'; });
  refused("version: expected 1, got 2", [](FileHeader& h) { h.version = 2; });
  for (std::uint32_t size : {0u, 31u, 4128u, 0x80000000u, ~0u})
    refused("input_size: expected 32 to 4096, got", [&](FileHeader& h) { h.input_size = size; });
  refused("input_size: expected a multiple of 32, got 48", [](FileHeader& h) { h.input_size = 48; });
  for (std::uint32_t layers : {0u, 1025u, ~0u})
    refused("layers: expected 1 to 1024, got", [&](FileHeader& h) { h.layers = layers; });
  refused("size: expected", [](FileHeader& h) { h.layers = 1024; });
  refused("layer 9: ", [](FileHeader& h) { h.layers = 10; });
  refused("size: expected", [](FileHeader& h) { h.layers = 1; });
  for (float scale : {0.0f, -1.0f, 10.5f, std::nanf(""), std::numeric_limits<float>::infinity()})
    refused("crop_scale", [&](FileHeader& h) { h.crop_scale = scale; });
  for (float shift : {-1.5f, 1.25f, std::nanf(""), -std::numeric_limits<float>::infinity()})
    refused("crop_top_shift", [&](FileHeader& h) { h.crop_top_shift = shift; });
  for (std::uint32_t storage : {2u, ~0u})
    refused("weight_storage: expected 0 to 1", [&](FileHeader& h) { h.weight_storage = storage; });
  for (std::uint32_t landmarks : {4097u, ~0u})
    refused("landmarks: expected 0 to 4096", [&](FileHeader& h) { h.landmarks = landmarks; });
  refused("head: score_weight", [](FileHeader& h) { h.landmarks = 4096; });
  for (std::uint32_t neighbors : {19u, ~0u})
    refused("neighbors: expected 0 to 18", [&](FileHeader& h) { h.neighbors = neighbors; });
  refused("neighbors: expected 0, got 4", [](FileHeader& h) { h.landmarks = 0; });
  refused("head_storage: expected 0, got 1", [](FileHeader& h) { h.landmarks = 0, h.neighbors = 0; });
  for (std::uint32_t storage : {3u, ~0u})
    refused("head_storage: expected 0 to 2", [&](FileHeader& h) { h.head_storage = storage; });
  refused("pixel_base: expected 0 to 1, got 2", [](FileHeader& h) { h.pixel_base = 2; });
  refused("reserved: expected 0, got 7", [](FileHeader& h) { h.reserved[0] = 7; });
}

void check_layers() {
  // Counted from 0, of every_layer.
  const auto refused = [](std::size_t layer, const std::string& reason, const std::function<void(FileLayer&)>& damage) {
    File file = plan_bytes::every_layer(19, 4, 0);
    const Bytes whole = file.bytes();
    damage(file.layers[layer]);
    // With the arrays of the good layers: those of the damaged ones may take all memory.
    Bytes bytes = whole;
    std::memcpy(bytes.data() + sizeof(FileHeader), file.layers.data(), file.layers.size() * sizeof file.layers[0]);
    plan_bytes::seal(bytes);
    check_refused(bytes, "layer " + std::to_string(layer) + ": " + reason, "layer " + std::to_string(layer));
  };
  for (std::size_t i = 0; i < 9; ++i) {
    for (std::uint32_t kind : {0u, 6u, ~0u})
      refused(i, "kind: expected 1 to 5", [&](FileLayer& l) { l.kind = kind; });
    for (std::uint32_t activation : {4u, ~0u})
      refused(i, "activation", [&](FileLayer& l) { l.activation = activation; });
    for (std::uint32_t input : {static_cast<std::uint32_t>(i + 1), 9u, 0x80000000u, ~0u})
      refused(i, "input: expected 0", [&](FileLayer& l) { l.input = input; });
    for (std::uint32_t channels : {0u, 16385u, ~0u})
      refused(i, "channels: expected", [&](FileLayer& l) { l.channels = channels; });
    for (int at = 0; at < 7; ++at)
      refused(i, "reserved: expected 0, got 1", [&](FileLayer& l) { l.reserved[at] = 1; });
    refused(i, "kernel: expected", [](FileLayer& l) { l.kernel = l.kernel == 4 ? 3 : 4; });
    refused(i, "kernel: expected", [](FileLayer& l) { l.kernel = ~0u; });
    refused(i, "stride: expected", [](FileLayer& l) { l.stride = 3; });
    refused(i, "padding: expected", [](FileLayer& l) { l.padding = l.kernel / 2 + 1; });
    refused(i, "padding: expected", [](FileLayer& l) { l.padding = ~0u; });
  }
  for (std::size_t i : {0u, 2u, 5u, 7u}) {  // convolutions
    refused(i, "kernel: expected 1 to 7, got 0", [](FileLayer& l) { l.kernel = 0; });
    refused(i, "stride: expected 1 to 2, got 0", [](FileLayer& l) { l.stride = 0; });
    refused(i, "squeezed: expected 0, got 1", [](FileLayer& l) { l.squeezed = 1; });
    for (std::int32_t residual : {-2, static_cast<std::int32_t>(i + 1), std::numeric_limits<std::int32_t>::min(),
                                  std::numeric_limits<std::int32_t>::max()})
      refused(i, "residual: expected 0", [&](FileLayer& l) { l.residual = residual; });
    refused(i, "residual: expected a tensor of", [](FileLayer& l) { l.residual = 0; });
  }
  for (std::size_t i : {1u, 3u, 4u, 6u}) {  // layers that keep the channels
    refused(i, "channels: expected", [](FileLayer& l) { ++l.channels; });
    refused(i, "residual: expected -1", [](FileLayer& l) { l.residual = 0; });
  }
  refused(1, "activation: expected 0, got 1", [](FileLayer& l) { l.activation = 1; });
  refused(4, "squeezed: expected 1 to 18, got 0", [](FileLayer& l) { l.squeezed = 0; });
  refused(4, "squeezed: expected 1 to 18, got 19", [](FileLayer& l) { l.squeezed = 19; });
  refused(8, "residual: expected -1", [](FileLayer& l) { l.residual = 0; });
  refused(8, "stride: expected 2, got 1", [](FileLayer& l) { l.stride = 1; });
  refused(3, "stride: expected 1 to 2, got 0", [](FileLayer& l) { l.stride = 0; });
  refused(7, "weight: expected 8192000 bytes", [](FileLayer& l) { l.channels = 16384; });
  refused(7, "input: expected sides of 5 or more, got 4", [](FileLayer& l) { l.kernel = 7; });
}

void check_table() {
  const auto refused = [](std::size_t array, std::size_t number, std::int32_t value) {
    const File file = plan_bytes::every_layer(19, 4, 0);
    Bytes bytes = file.bytes();
    const std::vector<std::uint64_t> begins = file.offsets();
    std::memcpy(bytes.data() + begins[begins.size() - 4 + array] + 4 * number, &value, 4);
    plan_bytes::seal(bytes);
    check_refused(bytes, "table: expected increasing starts from 0 to 95", "table");
  };
  for (std::int32_t value : {-1, 1, std::numeric_limits<std::int32_t>::max()}) refused(0, 0, value);
  for (std::int32_t value : {-1, 94, 96, std::numeric_limits<std::int32_t>::min()}) refused(0, 19, value);
  for (std::int32_t value : {-1, 4, 96, std::numeric_limits<std::int32_t>::max()}) refused(0, 2, value);
  for (std::int32_t value : {-1, 95, std::numeric_limits<std::int32_t>::min()}) refused(1, 94, value);
}

// Layers that would take more memory, or numbers beyond the types', than anyone has.
void check_large() {
  File wide(4096, 0, 0);
  wide.add(LayerKind::convolution, 0, 16384, 1, 1, 0);
  // No arrays: the layer must be refused before they are looked for.
  const auto layers_only = [](const File& file) {
    Bytes bytes(sizeof(FileHeader) + file.layers.size() * sizeof(FileLayer));
    FileHeader header = file.header;
    header.layers = static_cast<std::uint32_t>(file.layers.size());
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, file.layers.data(), file.layers.size() * sizeof(FileLayer));
    plan_bytes::seal(bytes);
    return bytes;
  };
  check_refused(layers_only(wide), "layer 0: output: expected at most 2147483648 bytes", "wide");

  File growing(32, 0, 0);
  for (std::uint32_t i = 0; i < 1024; ++i) growing.add(LayerKind::deconvolution, i, 1, 4, 2, 1);
  check_refused(layers_only(growing), "layer 7: output: expected at most 2147483648 bytes", "growing");

  File pools(4096, 0, 0);
  for (std::uint32_t i = 0; i < 1024; ++i) pools.add(LayerKind::max_pool, i, 3, 3, 2, 1);
  report("1024 layers down to one pixel", message(layers_only(pools)).empty());

  File heavy(32, 0, 0);
  heavy.add(LayerKind::convolution, 0, 16384, 7, 2, 3);
  for (std::uint32_t i = 1; i < 8; ++i) heavy.add(LayerKind::convolution, i, 16384, 7, 2, 3);
  check_refused(layers_only(heavy), "layer 0: weight: expected 9633792 bytes, got 0 to the end", "heavy");

  File cells(2560, 1, 0);
  cells.add(LayerKind::deconvolution, 0, 1, 4, 2, 1);
  check_refused(cells.bytes(), "head: grid: expected at most 16777216 cells, got 26214400", "many cells");
}

}  // namespace

int main() {
  check_checksum();
  check_good();
  check_cut_and_flipped(plan_bytes::every_layer(5, 2, 2));
  check_cut_and_flipped(plan_bytes::every_layer(0, 0, 0));
  check_header();
  check_layers();
  check_table();
  check_large();
  return check::summary();
}
