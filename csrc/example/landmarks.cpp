// Landmarks of the face in a photo, with nothing but the C library:
//     landmarks PLAN PHOTO.ppm [x0 y0 x1 y1]
// The tight face box is in px, the whole photo by default. Prints a line "x y score" for each landmark, in px.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "pipnet.h"

namespace {

struct Photo {
  int width = 0, height = 0;
  std::vector<unsigned char> rgb;

  // A binary PPM with a byte a color; empty where it is none.
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
};

int fail(const std::string& message) {
  std::fprintf(stderr, "landmarks: %s\n", message.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 7) return fail("expected PLAN PHOTO.ppm [x0 y0 x1 y1]");
  const Photo photo(argv[2]);
  if (photo.rgb.empty()) return fail(std::string(argv[2]) + ": expected a binary PPM with 255 levels");
  float box[4] = {0, 0, static_cast<float>(photo.width), static_cast<float>(photo.height)};
  for (int i = 3; i < argc; ++i) box[i - 3] = std::strtof(argv[i], nullptr);
  pipnet_plan* const plan = pipnet_load_file(argv[1]);
  if (plan == nullptr) return fail(pipnet_last_error());

  std::vector<float> scores(static_cast<std::size_t>(pipnet_landmarks(plan))), points(2 * scores.size());
  if (pipnet_run_photo(plan, photo.rgb.data(), photo.width, photo.height, 3 * photo.width, box, 1, points.data(),
                       scores.data(), 1) != PIPNET_OK)
    return fail(pipnet_last_error());
  pipnet_free(plan);
  for (std::size_t n = 0; n < scores.size(); ++n)
    std::printf("%.3f %.3f %.4f\n", points[2 * n], points[2 * n + 1], scores[n]);
}
