#include "crop.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace pipnet {
namespace {

constexpr std::int64_t kColors = 3;
// Of the places whose mean stands for a pixel, along one axis.
constexpr double kMostPlaces = 64.0;

// A share of a pixel of the photo in a pixel of the crop, along one axis.
struct Tap {
  std::int64_t from;
  float weight;
};

// Bilinear resampling is one axis after the other: for each pixel of the crop, its taps. What is not in the photo is
// left out, which makes it black.
std::vector<std::vector<Tap>> taps(double begin, double end, double shift, std::int64_t size, std::int64_t limit) {
  const double step = (end - begin) / static_cast<double>(size);
  const int places = static_cast<int>(std::clamp(step, 1.0, kMostPlaces));
  std::vector<std::vector<Tap>> all(static_cast<std::size_t>(size));
  for (std::int64_t pixel = 0; pixel < size; ++pixel) {
    for (int place = 0; place < places; ++place) {
      const double at = begin + (static_cast<double>(pixel) - shift + (place + 0.5) / places) * step - 0.5;
      const double before = std::floor(at), beyond = at - before;
      for (const double side : {0.0, 1.0}) {
        const double from = before + side, weight = (side == 0.0 ? 1.0 - beyond : beyond) / places;
        if (from >= 0.0 && from < static_cast<double>(limit))
          all[static_cast<std::size_t>(pixel)].push_back({static_cast<std::int64_t>(from), static_cast<float>(weight)});
      }
    }
  }
  return all;
}

// A row of the photo, resampled.
void resample(const std::uint8_t* row, const std::vector<std::vector<Tap>>& columns, std::vector<float>& out) {
  float* to = out.data();
  for (const std::vector<Tap>& column : columns) {
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    for (const Tap& tap : column) {
      const std::uint8_t* pixel = row + tap.from * kColors;
      red += tap.weight * pixel[0], green += tap.weight * pixel[1], blue += tap.weight * pixel[2];
    }
    *to++ = red, *to++ = green, *to++ = blue;
  }
}

}  // namespace

void cut_crop(const Photo& photo, const Box& box, double shift, std::int64_t size, std::uint8_t* crop) {
  const auto columns = taps(box.x0, box.x1, shift, size, photo.width);
  const auto rows = taps(box.y0, box.y1, shift, size, photo.height);
  const std::size_t length = static_cast<std::size_t>(size * kColors);
  // Neighboring pixels of the crop share rows of the photo, two at a time.
  std::vector<float> kept[2] = {std::vector<float>(length), std::vector<float>(length)}, sum(length);
  std::int64_t kept_row[2] = {-1, -1};
  for (const std::vector<Tap>& row : rows) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (const Tap& tap : row) {
      const std::size_t slot = static_cast<std::size_t>(tap.from % 2);
      if (kept_row[slot] != tap.from) {
        resample(photo.rgb + tap.from * photo.row_bytes, columns, kept[slot]);
        kept_row[slot] = tap.from;
      }
      for (std::size_t i = 0; i < length; ++i) sum[i] += tap.weight * kept[slot][i];
    }
    // The weights of a pixel may sum to a little more than 1.
    for (float value : sum) *crop++ = static_cast<std::uint8_t>(std::min(value + 0.5f, 255.0f));
  }
}

}  // namespace pipnet
