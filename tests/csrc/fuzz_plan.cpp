// Fuzzer of plan files, for libFuzzer: whatever their bytes are, they are refused or run. `make fuzz` at the root.
// Where there is no clang, with a main of its own (-DPIPNET_FUZZ_MAIN): fuzz_plan [iterations] [seed].
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "engine/plan.h"
#include "engine/plan_file.h"
#include "isa.h"
#include "plan_bytes.h"

namespace {

using plan_bytes::Aligned;
using plan_bytes::Bytes;
using plan_bytes::File;

// So that no input takes long; damaged layers may ask for more memory than there is.
constexpr std::uint64_t kMostArrayBytes = std::uint64_t{1} << 20;
constexpr std::int64_t kMostActivations = std::int64_t{1} << 18, kMostMultiplies = std::int64_t{1} << 24;

void require(bool good) {
  if (!good) std::abort();
}

// Of networks that are small enough; two images, on threads that have little to do each.
void run(const pipnet::Network& network) {
  std::int64_t activations = 0, multiplies = 0;
  for (const pipnet::Layer& layer : network.layers) {
    const std::int64_t numbers = layer.output.channels * layer.output.height * layer.output.width;
    const std::int64_t inputs = layer.kind == pipnet::LayerKind::depthwise ? 1 : network.shape(layer.input).channels;
    activations += numbers;
    multiplies += numbers * inputs * std::max<std::int64_t>(layer.kernel * layer.kernel, 1);
  }
  const pipnet::TensorShape features = network.layers.back().output;
  const std::int64_t votes = network.head ? network.head->votes() : 0;
  if (votes > 4096 || network.input_size > 96 || activations > kMostActivations || multiplies > kMostMultiplies) return;
  const std::vector<const pipnet::Isa*>& isas = pipnet::available_isas();
  pipnet::use_isa(isas[static_cast<std::size_t>(activations) % isas.size()]->name);
  const pipnet::Plan plan(network);
  const std::size_t pixels = static_cast<std::size_t>(network.input_size * network.input_size);
  const std::vector<std::uint8_t> crops(2 * 3 * pixels, 200);
  std::vector<float> out(static_cast<std::size_t>(2 * features.channels * features.height * features.width));
  plan.run_trunk({crops.data(), nullptr}, 2, out.data(), 2);
  if (!network.head) return;
  std::vector<float> points(static_cast<std::size_t>(4 * network.head->landmarks)), scores(points.size() / 2);
  plan.run({crops.data(), nullptr}, 2, points.data(), scores.data(), 2);
}

// Returns whether the loader takes the file. Any other exception than the promised ones ends the process.
bool load(const Bytes& bytes) {
  const Aligned memory(bytes);
  try {
    const pipnet::Network network = pipnet::parse_network(memory.data(), memory.size());
    // All that it points to lies inside: each array's first and last byte by the writer's reading of the format.
    File file(0, 0, 0);
    std::memcpy(&file.header, bytes.data(), sizeof file.header);
    file.layers.resize(network.layers.size());
    std::memcpy(file.layers.data(), bytes.data() + sizeof file.header, file.layers.size() * sizeof file.layers[0]);
    const std::vector<std::uint64_t> begins = file.offsets();
    const unsigned char* base = static_cast<const unsigned char*>(memory.data());
    std::size_t array = 0;
    for (const pipnet::Layer& layer : network.layers) {
      for (const float* weights : {layer.weight, layer.bias, layer.weight2, layer.bias2})
        require(weights == nullptr || reinterpret_cast<const unsigned char*>(weights) == base + begins[array++]);
      require(layer.input >= 0 && layer.residual >= -1 && layer.output.height >= 1 && layer.output.width >= 1);
    }
    require(begins.back() <= bytes.size());
    if (network.head) {
      require(network.head->score_weight == base + begins[array]);
      const pipnet::MergeTable& table = network.head->table;
      for (std::int64_t n = 0; n < network.head->landmarks; ++n)
        for (std::int32_t i = table.starts[n]; i < table.starts[n + 1]; ++i)
          require(table.sources[i] >= 0 && table.sources[i] < network.head->votes());
    }
    try {
      run(network);
    } catch (const std::invalid_argument&) {
      // A good file of a network that there is no code for.
    }
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

// Header and layers of the input with arrays of the sizes that they call for, filled with what the input has left.
bool load_completed(const Bytes& bytes) {
  File file(0, 0, 0);
  if (bytes.size() < sizeof file.header) return false;
  std::memcpy(&file.header, bytes.data(), sizeof file.header);
  const std::size_t layers = std::min<std::size_t>(file.header.layers, 1024);
  const std::size_t end = sizeof file.header + layers * sizeof(pipnet::FileLayer);
  if (layers == 0 || bytes.size() < end) return false;
  file.layers.resize(layers);
  std::memcpy(file.layers.data(), bytes.data() + sizeof file.header, end - sizeof file.header);
  std::uint64_t wanted = 0;
  for (std::uint64_t size : file.arrays()) {
    if (size > kMostArrayBytes || (wanted += size) > kMostArrayBytes) return false;
  }
  const std::vector<std::uint64_t> begins = file.offsets(), sizes = file.arrays();
  Bytes completed = file.bytes();
  // All but the table, which chance would hardly get right.
  const std::size_t filled = sizes.size() - (file.header.landmarks == 0 ? 0 : 3);
  for (std::size_t i = 0; i < filled && bytes.size() > end; ++i)
    for (std::uint64_t at = 0; at < sizes[i]; ++at) completed[begins[i] + at] = bytes[end + at % (bytes.size() - end)];
  plan_bytes::seal(completed);
  return load(completed);
}

// Overwrites one of the numbers of header, layers or arrays with one that is on some edge.
void put_number(Bytes& bytes, std::mt19937& engine) {
  constexpr std::uint32_t kNumbers[] = {0, 1, 2, 3, 4, 5, 7, 16, 32, 33, 64, 1024, 4096, 16384, 16385,
                                        0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x3F800000};
  if (bytes.size() < 4) return;
  const std::size_t at = engine() % (bytes.size() / 4) * 4;
  const std::uint32_t number = kNumbers[engine() % (sizeof kNumbers / sizeof kNumbers[0])];
  std::memcpy(bytes.data() + at, &number, sizeof number);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, data + size);
  load(bytes);
  if (size >= sizeof(pipnet::FileHeader)) {
    std::memcpy(bytes.data(), pipnet::kMagic, sizeof pipnet::kMagic);
    std::memcpy(bytes.data() + offsetof(pipnet::FileHeader, version), &pipnet::kPlanVersion, 4);
    plan_bytes::seal(bytes);
    load(bytes);
    load_completed(bytes);
  }
  return 0;
}

#if defined(PIPNET_FUZZ_MAIN)

int main(int argc, char** argv) {
  const long iterations = argc > 1 ? std::atol(argv[1]) : 100000;
  std::mt19937 engine(static_cast<unsigned>(argc > 2 ? std::atol(argv[2]) : 0));
  for (long i = 0; i < iterations; ++i) {
    Bytes bytes = plan_bytes::random_file(engine).bytes();
    require(load(bytes));
    for (unsigned change = engine() % 4; change > 0; --change) put_number(bytes, engine);
    if (engine() % 4 == 0) bytes.resize(engine() % (bytes.size() + 1));
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
}

#else

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

// Good files in place of a corpus on disk: now and then one of them is what the mutations go on from.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  std::mt19937 engine(seed);
  Bytes bytes(data, data + size);
  if (size < sizeof(pipnet::FileHeader) || engine() % 64 == 0) bytes = plan_bytes::random_file(engine).bytes();
  if (engine() % 2 == 0) put_number(bytes, engine);
  bytes.resize(std::min(bytes.size(), max_size));
  std::copy(bytes.begin(), bytes.end(), data);
  return engine() % 4 == 0 ? bytes.size() : LLVMFuzzerMutate(data, bytes.size(), max_size);
}

#endif
