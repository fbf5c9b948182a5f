#include "pipnet.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "crop.h"
#include "engine/plan.h"
#include "engine/plan_file.h"
#include "parallel.h"

#if !defined(PIPNET_VERSION)
#define PIPNET_VERSION "unknown"
#endif

struct pipnet_plan {
  explicit pipnet_plan(const pipnet::LoadedNetwork& loaded)
      : plan(loaded.network, loaded.memory.data()),
        crop_scale(loaded.network.crop_scale),
        crop_top_shift(loaded.network.crop_top_shift),
        crop_shift(loaded.network.pixel_centers ? 0.5f : 0.0f) {}

  pipnet::Plan plan;
  float crop_scale, crop_top_shift, crop_shift;
};

namespace {

constexpr int kMostThreads = 256;
constexpr int kMostLoadingThreads = 8;
// Up to here float32 tells neighboring pixels apart.
constexpr std::int64_t kMostPixels = 1 << 24;
// Crops in memory at once.
constexpr std::int64_t kMostCrops = 16;

// An array, for that a text is kept when there is no memory.
thread_local char last_error[512] = "";

void keep_error(const char* operation, const char* message) {
  const std::size_t used = std::strlen(operation), room = sizeof last_error - used - 3;
  std::memcpy(last_error, operation, used);
  std::memcpy(last_error + used, ": ", 2);
  // Not cut within a character of several bytes.
  std::size_t size = std::strlen(message);
  if (size > room) {
    size = room;
    while (size > 0 && (message[size] & 0xC0) == 0x80) --size;
  }
  std::memcpy(last_error + used + 2, message, size);
  last_error[used + 2 + size] = '\0';
}

// Calls body(), keeping what it throws.
template <class Body>
pipnet_status guarded(const char* operation, const Body& body) noexcept {
  try {
    body();
    return PIPNET_OK;
  } catch (const std::invalid_argument& error) {
    keep_error(operation, error.what());
    return PIPNET_INVALID_ARGUMENT;
  } catch (const std::bad_alloc&) {
    keep_error(operation, "out of memory");
    return PIPNET_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    keep_error(operation, error.what());
    return PIPNET_FAILED;
  } catch (...) {
    keep_error(operation, "unknown failure");
    return PIPNET_FAILED;
  }
}

pipnet_plan* make_plan(pipnet::LoadedNetwork loaded) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());  // 0 where that is not known
  loaded.network.threads = std::clamp(cores, 1, kMostLoadingThreads);
  return new pipnet_plan(loaded);
}

pipnet_plan* load_file(const char* path) {
  if (path == nullptr) throw std::invalid_argument("path: expected the name of a plan file, got NULL");
  return make_plan(pipnet::load_network(path));
}

pipnet_plan* load_memory(const void* bytes, std::size_t size) {
  if (bytes == nullptr) throw std::invalid_argument("bytes: expected an address, got NULL");
  return make_plan(pipnet::load_network(bytes, size));
}

void check_run(const pipnet_plan* plan, const char* count_name, std::int64_t count, int threads) {
  if (plan == nullptr) throw std::invalid_argument("plan: expected one, got NULL");
  if (plan->plan.landmarks() == 0) throw std::invalid_argument("plan: expected one with a head, got one without");
  if (count < 0)
    throw std::invalid_argument(std::string(count_name) + ": expected 0 or more, got " + std::to_string(count));
  if (threads < 1 || threads > kMostThreads) {
    throw std::invalid_argument("threads: expected 1 to " + std::to_string(kMostThreads) + ", got " +
                                std::to_string(threads));
  }
}

void run(const pipnet_plan* plan, const std::uint8_t* crops, std::int64_t batch, float* points, float* scores,
         int threads) {
  check_run(plan, "batch", batch, threads);
  if (batch == 0) return;
  if (crops == nullptr || points == nullptr || scores == nullptr)
    throw std::invalid_argument("crops, points, scores: expected addresses, got NULL");
  plan->plan.run({crops, nullptr}, batch, points, scores, threads);
}

// The crop of the face in a tight box.
pipnet::Box crop_box(const pipnet_plan* plan, const float* box, std::int64_t face) {
  const bool good = std::all_of(box, box + 4, [](float edge) { return std::abs(edge) < float{kMostPixels}; });
  if (!good || !(box[0] < box[2] && box[1] < box[3])) {
    throw std::invalid_argument("boxes: expected x0 < x1 and y0 < y1 within 2^24 px, got other ones for face " +
                                std::to_string(face));
  }
  const double x0 = box[0], y0 = box[1], x1 = box[2], y1 = box[3], grow = (plan->crop_scale - 1.0) / 2.0;
  return {x0 - grow * (x1 - x0), y0 - (grow - plan->crop_top_shift) * (y1 - y0), x1 + grow * (x1 - x0),
          y1 + grow * (y1 - y0)};
}

void run_photo(const pipnet_plan* plan, const pipnet::Photo& photo, const float* boxes, std::int64_t faces,
               float* points, float* scores, int threads) {
  check_run(plan, "faces", faces, threads);
  const std::int64_t width = photo.width, height = photo.height;
  if (width < 1 || height < 1 || width >= kMostPixels || height >= kMostPixels || photo.row_bytes < 3 * width) {
    throw std::invalid_argument("width, height, row_bytes: expected 1 to 2^24 - 1 and at least 3 * width, got " +
                                std::to_string(width) + ", " + std::to_string(height) + " and " +
                                std::to_string(photo.row_bytes));
  }
  if (faces == 0) return;
  if (photo.rgb == nullptr || boxes == nullptr || points == nullptr || scores == nullptr)
    throw std::invalid_argument("rgb, boxes, points, scores: expected addresses, got NULL");

  const std::int64_t size = plan->plan.input_size(), landmarks = plan->plan.landmarks(), crop_bytes = size * size * 3;
  std::vector<pipnet::Box> cropped;
  for (std::int64_t face = 0; face < faces; ++face) cropped.push_back(crop_box(plan, boxes + 4 * face, face));
  std::vector<std::uint8_t> crops(static_cast<std::size_t>(std::min(faces, kMostCrops) * crop_bytes));
  for (std::int64_t first = 0; first < faces; first += kMostCrops) {
    const std::int64_t count = std::min(kMostCrops, faces - first);
    for (std::int64_t i = 0; i < count; ++i) {
      const pipnet::Box& box = cropped[static_cast<std::size_t>(first + i)];
      pipnet::cut_crop(photo, box, plan->crop_shift, size, crops.data() + i * crop_bytes);
    }
    plan->plan.run({crops.data(), nullptr}, count, points + first * landmarks * 2, scores + first * landmarks, threads);
  }
  for (std::int64_t i = 0; i < faces * landmarks; ++i) {
    const pipnet::Box& box = cropped[static_cast<std::size_t>(i / landmarks)];
    points[2 * i] = static_cast<float>(box.x0 + points[2 * i] * (box.x1 - box.x0));
    points[2 * i + 1] = static_cast<float>(box.y0 + points[2 * i + 1] * (box.y1 - box.y0));
  }
}

}  // namespace

const char* pipnet_version(void) { return PIPNET_VERSION; }

const char* pipnet_last_error(void) { return last_error; }

pipnet_plan* pipnet_load_file(const char* path) {
  pipnet_plan* plan = nullptr;
  guarded("pipnet_load_file", [&] { plan = load_file(path); });
  return plan;
}

pipnet_plan* pipnet_load_memory(const void* bytes, size_t size) {
  pipnet_plan* plan = nullptr;
  guarded("pipnet_load_memory", [&] { plan = load_memory(bytes, size); });
  return plan;
}

void pipnet_free(pipnet_plan* plan) { delete plan; }

int pipnet_input_size(const pipnet_plan* plan) {
  return plan == nullptr ? 0 : static_cast<int>(plan->plan.input_size());
}

int pipnet_landmarks(const pipnet_plan* plan) {
  return plan == nullptr ? 0 : static_cast<int>(plan->plan.landmarks());
}

void pipnet_crop_rule(const pipnet_plan* plan, float* scale, float* top_shift, float* shift) {
  if (plan == nullptr) return;
  if (scale != nullptr) *scale = plan->crop_scale;
  if (top_shift != nullptr) *top_shift = plan->crop_top_shift;
  if (shift != nullptr) *shift = plan->crop_shift;
}

pipnet_status pipnet_run(const pipnet_plan* plan, const uint8_t* crops, int64_t batch, float* points, float* scores,
                         int threads) {
  return guarded("pipnet_run", [&] { run(plan, crops, batch, points, scores, threads); });
}

pipnet_status pipnet_run_photo(const pipnet_plan* plan, const uint8_t* rgb, int64_t width, int64_t height,
                               int64_t row_bytes, const float* boxes, int64_t faces, float* points, float* scores,
                               int threads) {
  return guarded("pipnet_run_photo",
                 [&] { run_photo(plan, {rgb, width, height, row_bytes}, boxes, faces, points, scores, threads); });
}

pipnet_status pipnet_pin_threads(const int* cores, size_t count) {
  return guarded("pipnet_pin_threads", [&] {
    if (cores == nullptr && count > 0) throw std::invalid_argument("cores: expected an address, got NULL");
    pipnet::pin_workers(std::vector<int>(cores, cores + count));
  });
}
