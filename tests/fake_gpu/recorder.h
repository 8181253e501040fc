// What the device and the kernels tell the profiler of the fake GPU.

#ifndef GRAPHLENS_FAKE_GPU_RECORDER_H_
#define GRAPHLENS_FAKE_GPU_RECORDER_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The streams of a GPU as its traces show them: one for the kernels, one for each direction of copies.
typedef enum {
  STREAM_COMPUTE,
  STREAM_HOST_TO_DEVICE,
  STREAM_DEVICE_TO_HOST,
  STREAM_DEVICE_TO_DEVICE,
  STREAM_COUNT,
} Stream;

// Nanoseconds since the epoch: the clock of TensorFlow's own events, so that both planes share one timeline.
uint64_t recorder_now_ns(void);

void recorder_add_copy(Stream stream, uint64_t bytes, uint64_t start_ns);

void recorder_add_kernel(const char* op_type, uint64_t start_ns);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // GRAPHLENS_FAKE_GPU_RECORDER_H_
