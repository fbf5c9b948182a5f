// Landmarks of the face in a photo, with nothing but the C library:
//     landmarks PLAN PHOTO.ppm [x0 y0 x1 y1]
// The tight face box is in px, the whole photo by default. Prints a line "x y score" for each landmark, in px.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "pipnet.h"

namespace {

struct Box {
  double x0, y0, x1, y1;
};

struct Photo {
  int width = 0, height = 0;
  std::vector<unsigned char> rgb;

  // A binary PPM with a byte a color; black outside. Pixel i covers [i, i + 1).
  explicit Photo(const char* path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int most = 0;
    file >> magic;
    while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    file >> width >> height >> most;
    if (magic != "P6" || most != 255 || width < 1 || height < 1 || width > 32768 || height > 32768) return;
    rgb.resize(std::size_t{3} * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
    file.ignore(1).read(reinterpret_cast<char*>(rgb.data()), static_cast<std::streamsize>(rgb.size()));
    if (!file) rgb.clear();
  }

  double pixel(double column, double row, std::size_t color) const {
    if (!(column >= 0 && row >= 0 && column < width && row < height)) return 0;
    return rgb[static_cast<std::size_t>(row * width + column) * 3 + color];
  }

  double bilinear(double x, double y, std::size_t color) const {
    const double column = std::floor(x - 0.5), row = std::floor(y - 0.5);
    const double right = x - 0.5 - column, below = y - 0.5 - row;
    return (1 - below) * ((1 - right) * pixel(column, row, color) + right * pixel(column + 1, row, color)) +
           below * ((1 - right) * pixel(column, row + 1, color) + right * pixel(column + 1, row + 1, color));
  }
};

Box crop_box(const Box& face, const pipnet_plan* plan) {
  float scale = 0, top_shift = 0;
  pipnet_crop_rule(plan, &scale, &top_shift, nullptr);
  const double width = face.x1 - face.x0, height = face.y1 - face.y0, grow = (scale - 1.0) / 2;
  return {face.x0 - grow * width, face.y0 + (top_shift - grow) * height, face.x1 + grow * width,
          face.y1 + grow * height};
}

std::vector<unsigned char> cut(const Photo& photo, const Box& box, const pipnet_plan* plan) {
  const int size = pipnet_input_size(plan);
  float shift = 0;
  pipnet_crop_rule(plan, nullptr, nullptr, &shift);
  const double step_x = (box.x1 - box.x0) / size, step_y = (box.y1 - box.y0) / size;
  // Where the photo shrinks to less than half, the mean of several places stands for a pixel, against aliasing.
  const int places_x = static_cast<int>(std::clamp(step_x, 1.0, 64.0));
  const int places_y = static_cast<int>(std::clamp(step_y, 1.0, 64.0));
  std::vector<unsigned char> crop;
  for (int row = 0; row < size; ++row) {
    for (int column = 0; column < size; ++column) {
      for (std::size_t color = 0; color < 3; ++color) {
        double sum = 0;
        for (int i = 0; i < places_x * places_y; ++i) {
          const double x = column - shift + (i % places_x + 0.5) / places_x;
          const double y = row - shift + (i / places_x + 0.5) / places_y;
          sum += photo.bilinear(box.x0 + x * step_x, box.y0 + y * step_y, color);
        }
        crop.push_back(static_cast<unsigned char>(std::lround(sum / (places_x * places_y))));
      }
    }
  }
  return crop;
}

int fail(const std::string& message) {
  std::fprintf(stderr, "landmarks: %s\n", message.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 7) return fail("expected PLAN PHOTO.ppm [x0 y0 x1 y1]");
  const Photo photo(argv[2]);
  if (photo.rgb.empty()) return fail(std::string(argv[2]) + ": expected a binary PPM with 255 levels");
  Box face{0, 0, static_cast<double>(photo.width), static_cast<double>(photo.height)};
  if (argc == 7) face = {std::atof(argv[3]), std::atof(argv[4]), std::atof(argv[5]), std::atof(argv[6])};
  if (!(face.x1 > face.x0 && face.y1 > face.y0)) return fail("expected a box with x0 < x1 and y0 < y1");
  pipnet_plan* const plan = pipnet_load_file(argv[1]);
  if (plan == nullptr) return fail(pipnet_last_error());

  const Box box = crop_box(face, plan);
  const std::vector<unsigned char> crop = cut(photo, box, plan);
  std::vector<float> scores(static_cast<std::size_t>(pipnet_landmarks(plan))), points(2 * scores.size());
  if (pipnet_run(plan, crop.data(), 1, points.data(), scores.data(), 1) != PIPNET_OK) return fail(pipnet_last_error());
  pipnet_free(plan);
  for (std::size_t n = 0; n < scores.size(); ++n) {
    std::printf("%.3f %.3f %.4f\n", box.x0 + points[2 * n] * (box.x1 - box.x0),
                box.y0 + points[2 * n + 1] * (box.y1 - box.y0), scores[n]);
  }
}
