// The Python module pipnet_fast._C. Tensors come as addresses: pipnet_fast/ops checks shapes, dtypes and devices
// and keeps the memory alive; what only the values can tell, whether indices are in range, is checked here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "decode.h"
#include "engine/plan.h"
#include "engine/plan_file.h"
#include "head_decode.h"
#include "head_loss.h"
#include "isa.h"
#include "merge.h"
#include "normalize.h"
#include "parallel.h"

namespace py = pybind11;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

pipnet::MergeTable checked_table(std::uintptr_t starts, std::uintptr_t sources, std::uintptr_t weights,
                                 std::int64_t landmarks, std::int64_t neighbors) {
  const pipnet::MergeTable table{pointer<const std::int32_t>(starts), pointer<const std::int32_t>(sources),
                                 pointer<const float>(weights)};
  pipnet::check_table(table, landmarks, neighbors);
  return table;
}

using Strides = std::array<std::ptrdiff_t, 4>;

pipnet::Strides to_strides(const Strides& s) { return {s[0], s[1], s[2], s[3]}; }

void decode(const std::array<std::uintptr_t, 5>& maps, const std::array<Strides, 5>& strides,
            const std::array<std::int64_t, 5>& shape, const std::array<std::uintptr_t, 3>& table,
            std::uintptr_t points, std::uintptr_t scores, int threads) {
  pipnet::DecodeArgs args{};
  args.batch = shape[0], args.landmarks = shape[1], args.neighbors = shape[2];
  args.grid = {shape[3], shape[4]};
  for (std::size_t i = 0; i < maps.size(); ++i) {
    args.maps[i] = pointer<const float>(maps[i]);
    args.strides[i] = to_strides(strides[i]);
  }
  args.table = checked_table(table[0], table[1], table[2], args.landmarks, args.neighbors);
  args.points = pointer<float>(points);
  args.scores = pointer<float>(scores);
  py::gil_scoped_release release;
  pipnet::decode(args, threads);
}

pipnet::Storage to_storage(const std::string& name) {
  if (name == "float32") return pipnet::Storage::float32;
  if (name == "float16") return pipnet::Storage::float16;
  if (name == "int8") return pipnet::Storage::int8;
  throw std::invalid_argument("storage: expected float32, float16 or int8, got " + name);
}

// A head's weights and table, checked once; the caller keeps their memory alive and as it is.
class Head {
 public:
  // shape: (C, N, K); packed: the head's six tensors, 0 where it has none, and the table's three.
  Head(const std::array<std::int64_t, 3>& shape, const std::string& storage,
       const std::array<std::uintptr_t, 9>& packed) {
    args_.channels = shape[0], args_.landmarks = shape[1], args_.neighbors = shape[2];
    args_.storage = to_storage(storage);
    args_.score_weight = pointer<const void>(packed[0]);
    args_.score_bias = pointer<const float>(packed[1]);
    args_.vote_weight = pointer<const void>(packed[2]);
    args_.vote_bias = pointer<const float>(packed[3]);
    args_.score_scale = pointer<const float>(packed[4]);
    args_.vote_scale = pointer<const float>(packed[5]);
    args_.table = checked_table(packed[6], packed[7], packed[8], args_.landmarks, args_.neighbors);
  }

  // shape: (B, C, H, W).
  void decode(std::uintptr_t features, const std::array<std::int64_t, 4>& shape, const Strides& strides,
              std::uintptr_t points, std::uintptr_t scores, int threads) const {
    pipnet::HeadDecodeArgs args = args_;
    args.batch = shape[0];
    args.grid = {shape[2], shape[3]};
    args.features = pointer<const float>(features);
    args.strides = to_strides(strides);
    args.points = pointer<float>(points);
    args.scores = pointer<float>(scores);
    py::gil_scoped_release release;
    pipnet::head_decode(args, threads);
  }

 private:
  pipnet::HeadDecodeArgs args_{};
};

void check_indices(const std::int64_t* indices, std::int64_t count, std::int64_t end, const char* name) {
  bool good = true;
  for (std::int64_t i = 0; i < count; ++i) good &= indices[i] >= 0 && indices[i] < end;
  if (!good) throw std::invalid_argument(std::string(name) + ": expected indices from 0 to " + std::to_string(end - 1));
}

template <class T, std::size_t Size>
void set_pointers(T* (&to)[Size], const std::array<std::uintptr_t, Size>& addresses) {
  for (std::size_t i = 0; i < Size; ++i) to[i] = pointer<T>(addresses[i]);
}

// shape: (B, C, N, K, H, W).
pipnet::HeadLossArgs head_loss_args(const std::array<std::int64_t, 6>& shape, std::uintptr_t features,
                                    const std::array<std::uintptr_t, 4>& weights) {
  pipnet::HeadLossArgs args{};
  args.batch = shape[0], args.channels = shape[1], args.landmarks = shape[2], args.neighbors = shape[3];
  args.grid = {shape[4], shape[5]};
  args.features = pointer<const float>(features);
  set_pointers(args.weights, weights);
  return args;
}

void head_loss_forward(const std::array<std::int64_t, 6>& shape, std::uintptr_t features,
                       const std::array<std::uintptr_t, 4>& weights, const std::array<std::uintptr_t, 4>& biases,
                       const std::array<std::uintptr_t, 3>& labels, std::uintptr_t score, std::uintptr_t index,
                       std::uintptr_t vote_grad, const std::array<std::uintptr_t, 3>& terms, int threads) {
  const pipnet::HeadLossArgs args = head_loss_args(shape, features, weights);
  pipnet::HeadLossForward pass{};
  pass.points = pointer<const float>(labels[0]);
  pass.neighbors = pointer<const std::int64_t>(labels[1]);
  pass.sample_weights = pointer<const float>(labels[2]);
  check_indices(pass.neighbors, args.landmarks * args.neighbors, args.landmarks, "table");
  set_pointers(pass.biases, biases);
  pass.score = pointer<float>(score);
  pass.index = pointer<std::int64_t>(index);
  pass.vote_grad = pointer<float>(vote_grad);
  set_pointers(pass.terms, terms);
  py::gil_scoped_release release;
  pipnet::head_loss_forward(args, pass, threads);
}

void head_loss_backward(const std::array<std::int64_t, 6>& shape, std::uintptr_t features,
                        const std::array<std::uintptr_t, 4>& weights, const std::array<std::uintptr_t, 3>& kept,
                        const std::array<float, 3>& of_terms, const std::array<std::uintptr_t, 4>& weight_grads,
                        const std::array<std::uintptr_t, 5>& bias_grads, std::uintptr_t feature_grads, int threads) {
  const pipnet::HeadLossArgs args = head_loss_args(shape, features, weights);
  pipnet::HeadLossBackward pass{};
  pass.index = pointer<const std::int64_t>(kept[0]);
  pass.score_grad = pointer<const float>(kept[1]);
  pass.vote_grad = pointer<const float>(kept[2]);
  check_indices(pass.index, args.landmarks * args.batch, args.batch * args.grid.height * args.grid.width, "index");
  for (std::size_t i = 0; i < of_terms.size(); ++i) pass.of_terms[i] = of_terms[i];
  set_pointers(pass.weights, weight_grads);
  set_pointers(pass.biases, bias_grads);
  pass.features = pointer<float>(feature_grads);
  py::gil_scoped_release release;
  pipnet::head_loss_backward(args, pass, threads);
}

void transpose(std::uintptr_t in, const std::array<std::int64_t, 3>& shape, std::uintptr_t out, int threads) {
  py::gil_scoped_release release;
  pipnet::transpose(pointer<const float>(in), shape[0], shape[1], shape[2], pointer<float>(out), threads);
}

void normalize(std::uintptr_t crops, std::int64_t batch, std::int64_t pixels, std::uintptr_t table,
               std::uintptr_t out) {
  py::gil_scoped_release release;
  pipnet::normalize(pointer<const std::uint8_t>(crops), batch, pixels, pointer<const float>(table),
                    pointer<float>(out));
}

// The bytes are read here only; with `spend` they are lost.
std::unique_ptr<pipnet::Plan> make_plan(std::uintptr_t address, std::size_t size, bool spend, int threads) {
  py::gil_scoped_release release;
  pipnet::LoadedNetwork loaded = pipnet::load_network(pointer<const void>(address), size);
  loaded.network.threads = threads;
  void* const copy = loaded.memory.data();
  return std::make_unique<pipnet::Plan>(loaded.network, copy == nullptr && spend ? pointer<void>(address) : copy);
}

std::unique_ptr<pipnet::Plan> load_plan(const std::string& path) {
  py::gil_scoped_release release;
  const pipnet::LoadedNetwork loaded = pipnet::load_network(path.c_str());
  return std::make_unique<pipnet::Plan>(loaded.network, loaded.memory.data());
}

pipnet::Crops to_crops(std::uintptr_t bytes, std::uintptr_t planes) {
  return {pointer<const std::uint8_t>(bytes), pointer<const float>(planes)};
}

void run_plan(const pipnet::Plan& plan, std::uintptr_t bytes, std::uintptr_t planes, std::int64_t batch,
              std::uintptr_t points, std::uintptr_t scores, int threads) {
  py::gil_scoped_release release;
  plan.run(to_crops(bytes, planes), batch, pointer<float>(points), pointer<float>(scores), threads);
}

void run_plan_trunk(const pipnet::Plan& plan, std::uintptr_t bytes, std::uintptr_t planes, std::int64_t batch,
                    std::uintptr_t features, int threads) {
  py::gil_scoped_release release;
  plan.run_trunk(to_crops(bytes, planes), batch, pointer<float>(features), threads);
}

std::vector<double> plan_step_times(const pipnet::Plan& plan, std::uintptr_t bytes, std::uintptr_t planes,
                                    int threads) {
  py::gil_scoped_release release;
  return plan.step_times(to_crops(bytes, planes), threads);
}

std::vector<std::tuple<std::string, std::size_t, std::int64_t, std::size_t>> plan_steps(const pipnet::Plan& plan) {
  std::vector<std::tuple<std::string, std::size_t, std::int64_t, std::size_t>> steps;
  for (const pipnet::StepWork& step : plan.steps())
    steps.emplace_back(step.name, step.layers, step.multiplies, step.weight_bytes);
  return steps;
}

std::array<std::int64_t, 3> plan_features(const pipnet::Plan& plan) {
  const pipnet::TensorShape shape = plan.features();
  return {shape.channels, shape.height, shape.width};
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "C++ backend of pipnet_fast; call it through pipnet_fast.ops, which checks what is only stated here.";
  m.def("decode", &decode, py::arg("maps"), py::arg("strides"), py::arg("shape"), py::arg("table"), py::arg("points"),
        py::arg("scores"), py::arg("threads"),
        "Decode float32 maps at these addresses; shape is (B, N, K, H, W), strides count elements.");
  py::class_<Head>(m, "Head", "Weights and table at these addresses; shape is (C, N, K), packed the head's six tensors "
                             "(0 where it has none) and the table's three.")
      .def(py::init<const std::array<std::int64_t, 3>&, const std::string&, const std::array<std::uintptr_t, 9>&>(),
           py::arg("shape"), py::arg("storage"), py::arg("packed"))
      .def("decode", &Head::decode, py::arg("features"), py::arg("shape"), py::arg("strides"), py::arg("points"),
           py::arg("scores"), py::arg("threads"), "Fused head and decoding; shape is (B, C, H, W).");
  py::class_<pipnet::Plan>(m, "Plan", "A network made ready to run, from a plan file's bytes at this address.")
      .def(py::init(&make_plan), py::arg("address"), py::arg("size"), py::arg("spend") = false,
           py::arg("threads") = 1)
      .def_static("load", &load_plan, py::arg("path"), "From a plan file, as the C API reads it.")
      .def("run", &run_plan, py::arg("bytes"), py::arg("planes"), py::arg("batch"), py::arg("points"),
           py::arg("scores"), py::arg("threads"),
           "Landmarks of uint8 RGB crops (B, S, S, 3) at bytes or normalized ones (B, 3, S, S) at planes, the other "
           "being 0; of a plan with a head.")
      .def("run_trunk", &run_plan_trunk, py::arg("bytes"), py::arg("planes"), py::arg("batch"), py::arg("features"),
           py::arg("threads"), "The last layer's output (B, H, W, C) of such crops.")
      .def("step_times", &plan_step_times, py::arg("bytes"), py::arg("planes"), py::arg("threads"),
           "The milliseconds that each step took, for one crop.")
      .def_property_readonly("steps", &plan_steps,
                             "Those before the head, in their order: name, layers of the network that it takes "
                             "together, multiplications with weights for one crop, bytes of packed weights.")
      .def_property_readonly("input_size", &pipnet::Plan::input_size, "Side of the crops in px.")
      .def_property_readonly("landmarks", &pipnet::Plan::landmarks, "N, or 0 without a head.")
      .def_property_readonly("features", &plan_features, "C, H and W of the last layer's output.")
      .def_property_readonly("weight_bytes", &pipnet::Plan::weight_bytes, "Of the packed weights.")
      .def_property_readonly("scratch_bytes", &pipnet::Plan::scratch_bytes,
                             "Working memory of one call for one image.");
  m.def("head_loss_forward", &head_loss_forward, py::arg("shape"), py::arg("features"), py::arg("weights"),
        py::arg("biases"), py::arg("labels"), py::arg("score"), py::arg("index"), py::arg("vote_grad"),
        py::arg("terms"), py::arg("threads"),
        "The loss's terms on a score map; shape is (B, C, N, K, H, W), labels are points, neighbors and sample weights "
        "or 0.");
  m.def("head_loss_backward", &head_loss_backward, py::arg("shape"), py::arg("features"), py::arg("weights"),
        py::arg("kept"), py::arg("of_terms"), py::arg("weight_grads"), py::arg("bias_grads"), py::arg("feature_grads"),
        py::arg("threads"),
        "Gradients of the votes' layers and all biases, all 0 or none, and of the features, added to what is there or "
        "0; kept are index, score_grad and vote_grad.");
  m.def("transpose", &transpose, py::arg("matrices"), py::arg("shape"), py::arg("out"), py::arg("threads"),
        "float32 matrices (count, rows, columns) to (count, columns, rows).");
  m.def("normalize", &normalize, py::arg("crops"), py::arg("batch"), py::arg("pixels"), py::arg("table"),
        py::arg("out"), "Bytes (B, pixels, 3) to floats (B, 3, pixels) by a table (3, 256).");
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const pipnet::Isa* isa : pipnet::available_isas()) names.emplace_back(isa->name);
    return names;
  }, "Instruction sets that this CPU can run, the best last.");
  m.def("isa", [] { return std::string(pipnet::current_isa().name); }, "The instruction set in use.");
  m.def("pin_workers", &pipnet::pin_workers, py::arg("cores"),
        "Keep the extension's own threads each to one of these cores, the caller's being the first; [] sets them "
        "free.");
  m.def("use_isa", &pipnet::use_isa, py::arg("name"),
        "Switch the whole process to an instruction set, for tests and benchmarks.");
}
