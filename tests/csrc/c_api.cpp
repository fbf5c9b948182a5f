// The C library: crops against a plain definition of them, faces in photos against their crops, and what it refuses.
// Built under sanitizers like sanitize.cpp.
#include "pipnet.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "crop.h"
#include "plan_bytes.h"

namespace {

using check::Index;
using check::report;
using check::size;

using Bytes = std::vector<std::uint8_t>;
using Plan = std::unique_ptr<pipnet_plan, decltype(&pipnet_free)>;

constexpr int kThreads = 2;

// A small network whose weights are of any sign, so that other crops give other landmarks.
Plan make_plan(std::uint32_t landmarks) {
  using Kind = pipnet::LayerKind;
  plan_bytes::File file(32, landmarks, landmarks == 0 ? 0 : 2);
  file.add(Kind::convolution, 0, 16, 7, 2, 3, -1, 1)
      .add(Kind::max_pool, 1, 16, 3, 2, 1)
      .add(Kind::convolution, 2, 16, 3, 2, 1, -1, 1)
      .add(Kind::convolution, 3, 16, 1, 1, 0);
  plan_bytes::Bytes bytes = file.bytes();
  // The last three arrays are the neighbor table.
  const std::size_t weights = file.arrays().size() - (landmarks == 0 ? 0 : 3);
  for (std::size_t i = 0; i < weights; ++i) {
    const check::Floats values = check::eighths(static_cast<Index>(file.arrays()[i] / sizeof(float)));
    std::memcpy(bytes.data() + file.offsets()[i], values.data(), values.size() * sizeof(float));
  }
  plan_bytes::seal(bytes);
  return {pipnet_load_memory(bytes.data(), bytes.size()), pipnet_free};
}

// A photo of `height` rows, each with `spare` bytes behind it that are none of its pixels.
struct Picture {
  Index width, height, row_bytes;
  Bytes rgb;

  Picture(Index w, Index h, Index spare) : width(w), height(h), row_bytes(3 * w + spare), rgb(size(row_bytes * h)) {
    std::mt19937 engine{11};
    for (std::uint8_t& byte : rgb) byte = static_cast<std::uint8_t>(engine() & 0xFF);
  }
  pipnet::Photo photo() const { return {rgb.data(), width, height, row_bytes}; }
  double pixel(double column, double row, Index color) const {
    if (column < 0 || row < 0 || column >= double(width) || row >= double(height)) return 0.0;
    return rgb[size(static_cast<Index>(row) * row_bytes + static_cast<Index>(column) * 3 + color)];
  }
  double bilinear(double x, double y, Index color) const {
    const double column = std::floor(x - 0.5), row = std::floor(y - 0.5);
    const double right = x - 0.5 - column, below = y - 0.5 - row;
    return (1 - below) * ((1 - right) * pixel(column, row, color) + right * pixel(column + 1, row, color)) +
           below * ((1 - right) * pixel(column, row + 1, color) + right * pixel(column + 1, row + 1, color));
  }
};

// The mean of a grid of places for each pixel, as csrc/crop.h says in words.
double largest_difference(const Picture& picture, const pipnet::Box& box, double shift, Index side, const Bytes& crop) {
  const double step_x = (box.x1 - box.x0) / double(side), step_y = (box.y1 - box.y0) / double(side);
  const int places_x = static_cast<int>(std::min(std::max(step_x, 1.0), 64.0));
  const int places_y = static_cast<int>(std::min(std::max(step_y, 1.0), 64.0));
  double worst = 0.0;
  for (Index i = 0; i < side * side * 3; ++i) {
    double sum = 0.0;
    for (int place = 0; place < places_x * places_y; ++place) {
      const double x = double(i / 3 % side) - shift + (place % places_x + 0.5) / places_x;
      const double y = double(i / 3 / side) - shift + (place / places_x + 0.5) / places_y;
      sum += picture.bilinear(box.x0 + x * step_x, box.y0 + y * step_y, i % 3);
    }
    worst = std::max(worst, std::abs(sum / (places_x * places_y) - crop[size(i)]));
  }
  return worst;
}

void check_crops() {
  const pipnet::Box boxes[] = {
      {3.0, 2.0, 11.0, 10.0},      // pixel for pixel
      {1.3, 0.7, 6.1, 9.9},        // enlarged
      {-20.0, -7.5, 61.0, 44.25},  // shrunk, beyond all edges
      {-3000.0, 4.0, 3000.0, 9.0},  // more pixels than places
      {40.0, 40.0, 90.0, 90.0},    // outside
  };
  const Picture picture(23, 17, 5);
  for (const pipnet::Box& box : boxes) {
    for (const double shift : {0.0, 0.5}) {
      Bytes crop(8 * 8 * 3);
      pipnet::cut_crop(picture.photo(), box, shift, 8, crop.data());
      const double worst = largest_difference(picture, box, shift, 8, crop);
      report("crop from " + std::to_string(box.x0), worst < 0.51, "off by " + std::to_string(worst));
    }
  }
  Bytes white(12 * 12 * 3, 255), crop(5 * 5 * 3);
  pipnet::cut_crop({white.data(), 12, 12, 36}, {1.1, 1.7, 10.3, 9.2}, 0.0, 5, crop.data());
  report("white stays white", crop == Bytes(5 * 5 * 3, 255));
}

// More faces than are cropped at once, against crops of their own.
void check_faces() {
  const Plan plan = make_plan(5);
  const Index side = pipnet_input_size(plan.get()), landmarks = pipnet_landmarks(plan.get()), faces = 19;
  const Picture picture(70, 50, 1);
  float scale = 0, top_shift = 0, shift = 0;
  pipnet_crop_rule(plan.get(), &scale, &top_shift, &shift);
  report("the plan has a rule of its own", side == 32 && landmarks == 5 && scale == 1.25f && top_shift == -0.25f);

  std::vector<float> boxes, points(size(faces * landmarks * 2), NAN), scores(size(faces * landmarks), NAN);
  for (Index face = 0; face < faces; ++face) {
    const float x = static_cast<float>(2 * face), y = static_cast<float>(face) - 4.0f;
    boxes.insert(boxes.end(), {x, y, x + 20.0f, y + 24.0f});
  }
  report("faces", pipnet_run_photo(plan.get(), picture.rgb.data(), picture.width, picture.height, picture.row_bytes,
                                   boxes.data(), faces, points.data(), scores.data(), kThreads) == PIPNET_OK);
  std::vector<double> want_points, want_scores;
  for (Index face = 0; face < faces; ++face) {
    // The formula of csrc/pipnet.h.
    const double x = 2.0 * double(face), y = double(face) - 4.0, g = (1.25 - 1.0) / 2;
    const pipnet::Box box{x - g * 20, y - g * 24 - 0.25 * 24, x + 20 + g * 20, y + 24 + g * 24};
    Bytes crop(size(side * side * 3));
    pipnet::cut_crop(picture.photo(), box, shift, side, crop.data());
    std::vector<float> part(size(landmarks * 2)), sure(size(landmarks));
    pipnet_run(plan.get(), crop.data(), 1, part.data(), sure.data(), 1);
    for (Index n = 0; n < landmarks; ++n) {
      want_points.push_back(box.x0 + part[size(2 * n)] * (box.x1 - box.x0));
      want_points.push_back(box.y0 + part[size(2 * n + 1)] * (box.y1 - box.y0));
      want_scores.push_back(sure[size(n)]);
    }
  }
  check::compare("points of faces", points, want_points, 1e-6);
  report("faces differ", want_scores[0] != want_scores[size(landmarks)]);
  check::compare("scores of faces", scores, want_scores, 0.0);
}

void check_refused(const std::string& part, pipnet_status status) {
  const std::string got = pipnet_last_error();
  report("refused: " + part, status == PIPNET_INVALID_ARGUMENT && got.find(part) != std::string::npos, got);
}

void check_refusals() {
  const Plan plan = make_plan(5), headless = make_plan(0);
  const Picture picture(9, 9, 0);
  const std::uint8_t* rgb = picture.rgb.data();
  float points[10], scores[5];
  const auto run = [&](const pipnet_plan* with, const std::uint8_t* pixels, Index w, Index row, std::vector<float> box,
                       Index faces, int threads) {
    const float* boxes = box.empty() ? nullptr : box.data();
    return pipnet_run_photo(with, pixels, w, 9, row, boxes, faces, points, scores, threads);
  };
  const std::vector<float> box{1, 1, 8, 8};
  report("no faces", run(plan.get(), nullptr, 9, 27, {}, 0, 1) == PIPNET_OK);
  check_refused("pipnet_run_photo: plan: expected one, got NULL", run(nullptr, rgb, 9, 27, box, 1, 1));
  check_refused("plan: expected one with a head", run(headless.get(), rgb, 9, 27, box, 1, 1));
  check_refused("faces: expected 0 or more, got -1", run(plan.get(), rgb, 9, 27, box, -1, 1));
  check_refused("threads: expected 1 to 256, got 0", run(plan.get(), rgb, 9, 27, box, 1, 0));
  check_refused("got 0, 9 and 27", run(plan.get(), rgb, 0, 27, box, 1, 1));
  check_refused("got 9, 9 and 26", run(plan.get(), rgb, 9, 26, box, 1, 1));
  check_refused("got 16777216, 9 and", run(plan.get(), rgb, 1 << 24, Index{1} << 40, box, 1, 1));
  check_refused("rgb, boxes, points, scores", run(plan.get(), nullptr, 9, 27, box, 1, 1));
  check_refused("rgb, boxes, points, scores", run(plan.get(), rgb, 9, 27, {}, 1, 1));
  const float infinite = std::numeric_limits<float>::infinity();
  const std::vector<float> bad_boxes[] = {
      {8, 1, 8, 8}, {1, 8, 8, 1}, {NAN, 1, 8, 8}, {1, 1, 8, infinite}, {-2e7f, 1, 8, 8}};
  for (const std::vector<float>& bad : bad_boxes)
    check_refused("boxes: expected x0 < x1", run(plan.get(), rgb, 9, 27, bad, 1, 1));
  check_refused("got other ones for face 1", run(plan.get(), rgb, 9, 27, {1, 1, 8, 8, 5, 5, 5, 5}, 2, 1));
  report("a damaged plan", pipnet_load_memory("PIPNET", 6) == nullptr && std::strlen(pipnet_last_error()) > 0);
  report("no such file", pipnet_load_file("/nowhere/model.plan") == nullptr &&
                             std::strstr(pipnet_last_error(), "/nowhere/model.plan") != nullptr);
}

}  // namespace

int main() {
  check_crops();
  check_faces();
  check_refusals();
  return check::summary();
}
