// Square crops of photos, for the C library; the Python package cuts its own (pipnet_fast/crop.py).
#pragma once

#include <cstdint>

namespace pipnet {

// RGB bytes, rows from the top; row y begins at rgb + y * row_bytes.
struct Photo {
  const std::uint8_t* rgb;
  std::int64_t width, height, row_bytes;
};

// In px, pixel i covers [i, i + 1).
struct Box {
  double x0, y0, x1, y1;
};

// Scales what the box covers, moved left and up by `shift` pixels of the crop, to RGB bytes (size, size, 3); black
// outside of the photo. Bilinear; where the crop shrinks the photo, the mean of several places, against aliasing.
// Throws std::bad_alloc.
void cut_crop(const Photo& photo, const Box& box, double shift, std::int64_t size, std::uint8_t* crop);

}  // namespace pipnet
