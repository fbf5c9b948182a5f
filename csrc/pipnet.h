/* Facial landmarks on the CPU, from C: a network that `pipnet_fast.save_plan` wrote to a file, run without Python.
 *
 *     pipnet_plan* plan = pipnet_load_file("model.plan");
 *     if (plan == NULL) puts(pipnet_last_error());
 *     pipnet_run_photo(plan, rgb, width, height, 3 * width, boxes, faces, points, scores, 1);
 *     pipnet_free(plan);
 *
 * A plan never changes: any number of threads may run one at once. What fails says why by pipnet_last_error; on success
 * that text is left as it is.
 */
#ifndef PIPNET_H
#define PIPNET_H

#include <stddef.h>
#include <stdint.h>

#if !defined(_WIN32)
#define PIPNET_API __attribute__((visibility("default")))
#elif defined(PIPNET_BUILDING)
#define PIPNET_API __declspec(dllexport)
#else
#define PIPNET_API __declspec(dllimport)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A network ready to run. */
typedef struct pipnet_plan pipnet_plan;

typedef enum pipnet_status {
  PIPNET_OK = 0,
  PIPNET_INVALID_ARGUMENT = 1,
  PIPNET_OUT_OF_MEMORY = 2,
  PIPNET_FAILED = 3
} pipnet_status;

/* The library's version, "0.1.0". */
PIPNET_API const char* pipnet_version(void);

/* What the calling thread's last failed call said, in English and UTF-8; "" before any has failed. The text is valid
 * until the thread's next failure. */
PIPNET_API const char* pipnet_last_error(void);

/* Reads a plan file; `path` is UTF-8. NULL on failure: no such file, a damaged one, one of another version, or no
 * memory. The caller frees the plan. Files from anywhere are safe to read: whatever their bytes are. Weights are packed
 * by a thread a core, 8 at most, which then wait for later calls' work. */
PIPNET_API pipnet_plan* pipnet_load_file(const char* path);

/* The same from memory, at any address; the bytes may go afterwards. */
PIPNET_API pipnet_plan* pipnet_load_memory(const void* bytes, size_t size);

/* Frees a plan that no thread runs any more; NULL is fine. */
PIPNET_API void pipnet_free(pipnet_plan* plan);

/* S, the side of the network's square crops in px. 0 for NULL. */
PIPNET_API int pipnet_input_size(const pipnet_plan* plan);

/* N, the number of landmarks. 0 for NULL, and for the plan of a network without a head, which this API does not run. */
PIPNET_API int pipnet_landmarks(const pipnet_plan* plan);

/* How the crop follows from a tight face box (x0, y0, x1, y1) of width w and height h, in px. It grows about its center
 * to `scale` times its size, then its top edge moves down by top_shift * h:
 *     x0 - g * w,  y0 - g * h + top_shift * h,  x1 + g * w,  y1 + g * h,  with g = (scale - 1) / 2
 * Fractions of the crop are fractions of this box. What is scaled to S x S, black where it leaves the image, is the box
 * moved left and up by `shift` pixels of the crop, 0 or 0.5; pixel i covers [i, i + 1).
 * Any address may be NULL; a NULL plan writes nothing. */
PIPNET_API void pipnet_crop_rule(const pipnet_plan* plan, float* scale, float* top_shift, float* shift);

/* Landmarks of crops.
 *   crops    RGB bytes (batch, S, S, 3), rows from the top
 *   batch    0 or more
 *   points   out, (batch, N, 2): x before y in fractions of the crop, 0 is its left or top edge; may leave 0 .. 1
 *   scores   out, (batch, N): as the network gives them, trained towards 0 .. 1
 *   threads  1 to 256, the calling one included
 * Returns PIPNET_OK or what kind of failure it was; then the outputs hold nothing of use. */
PIPNET_API pipnet_status pipnet_run(const pipnet_plan* plan, const uint8_t* crops, int64_t batch, float* points,
                                    float* scores, int threads);

/* Landmarks of faces in a photo: crops them as `pipnet_crop_rule` says and runs the network.
 *   rgb        RGB bytes, `height` rows of `width` pixels from the top, each row `row_bytes` after the one before
 *   boxes      (faces, 4): tight face boxes x0, y0, x1, y1 in px, pixel i covers [i, i + 1); may leave the photo
 *   faces      0 or more
 *   points     out, (faces, N, 2): x before y in px of the photo; may leave it
 *   scores     out, (faces, N), as of pipnet_run
 *   threads    1 to 256, the calling one included
 * Returns as pipnet_run does. */
PIPNET_API pipnet_status pipnet_run_photo(const pipnet_plan* plan, const uint8_t* rgb, int64_t width, int64_t height,
                                          int64_t row_bytes, const float* boxes, int64_t faces, float* points,
                                          float* scores, int threads);

/* Keeps the library's threads, now and later, each to one of `count` cores: the second, the third and so on round the
 * list, for the first is that of the calling threads, which pin themselves. 0 sets them free. Linux only; elsewhere it
 * returns PIPNET_INVALID_ARGUMENT, as for numbers that are none of cores that the process may use. */
PIPNET_API pipnet_status pipnet_pin_threads(const int* cores, size_t count);

#ifdef __cplusplus
}
#endif

#endif
