// A GPU without hardware: TensorFlow's interface for pluggable devices, served by the host's memory.
//
// TensorFlow lists it as GPU:0 and treats it as one: the placer looks for GPU kernels, the partitioner sends tensors to
// it and back, and each of these copies comes through here.  "Device" memory is host memory, so kernels of the CPU may
// work on it, and every stream is always idle: what is enqueued is done before the call returns.

#include <stdlib.h>
#include <string.h>

#include "recorder.h"
#include "tensorflow/c/experimental/stream_executor/stream_executor.h"

// The type is what placement looks at; the name must only differ from those of TensorFlow's own platforms.
static const char kDeviceType[] = "GPU";
static const char kPlatformName[] = "GRAPHLENS";

enum { kDeviceAlignment = 256, kHostAlignment = 64 };

static const int64_t kReportedMemory = (int64_t)64 << 30;

struct SP_Stream_st {
  char unused;
};

struct SP_Event_st {
  char unused;
};

struct SP_Timer_st {
  uint64_t start_ns;
  uint64_t stop_ns;
};

// -- memory --------------------------------------------------------------------------------------------------------

static void* allocate_aligned(size_t alignment, uint64_t size) {
  void* memory = NULL;
  return posix_memalign(&memory, alignment, size ? size : 1) == 0 ? memory : NULL;
}

static void allocate(const SP_Device* device, uint64_t size, int64_t memory_space, SP_DeviceMemoryBase* memory) {
  memory->struct_size = SP_DEVICE_MEMORY_BASE_STRUCT_SIZE;
  memory->opaque = allocate_aligned(kDeviceAlignment, size);
  memory->size = size;
}

static void deallocate(const SP_Device* device, SP_DeviceMemoryBase* memory) {
  free(memory->opaque);
  memory->opaque = NULL;
  memory->size = 0;
}

static void* allocate_host(const SP_Device* device, uint64_t size) { return allocate_aligned(kHostAlignment, size); }

static void deallocate_host(const SP_Device* device, void* memory) { free(memory); }

static TF_Bool allocator_stats(const SP_Device* device, SP_AllocatorStats* stats) { return 0; }

static TF_Bool memory_usage(const SP_Device* device, int64_t* free_bytes, int64_t* total_bytes) {
  *free_bytes = *total_bytes = kReportedMemory;
  return 1;
}

// -- streams, events, timers ---------------------------------------------------------------------------------------

static void create_stream(const SP_Device* device, SP_Stream* stream, TF_Status* status) {
  *stream = calloc(1, sizeof(**stream));
}

static void destroy_stream(const SP_Device* device, SP_Stream stream) { free(stream); }

static void depend_on_stream(const SP_Device* device, SP_Stream dependent, SP_Stream other, TF_Status* status) {}

static void stream_status(const SP_Device* device, SP_Stream stream, TF_Status* status) {}

static void create_event(const SP_Device* device, SP_Event* event, TF_Status* status) {
  *event = calloc(1, sizeof(**event));
}

static void destroy_event(const SP_Device* device, SP_Event event) { free(event); }

static SE_EventStatus event_status(const SP_Device* device, SP_Event event) { return SE_EVENT_COMPLETE; }

static void record_event(const SP_Device* device, SP_Stream stream, SP_Event event, TF_Status* status) {}

static void wait_for_event(const SP_Device* device, SP_Stream stream, SP_Event event, TF_Status* status) {}

static void create_timer(const SP_Device* device, SP_Timer* timer, TF_Status* status) {
  *timer = calloc(1, sizeof(**timer));
}

static void destroy_timer(const SP_Device* device, SP_Timer timer) { free(timer); }

static void start_timer(const SP_Device* device, SP_Stream stream, SP_Timer timer, TF_Status* status) {
  timer->start_ns = recorder_now_ns();
}

static void stop_timer(const SP_Device* device, SP_Stream stream, SP_Timer timer, TF_Status* status) {
  timer->stop_ns = recorder_now_ns();
}

static uint64_t timer_ns(SP_Timer timer) { return timer->stop_ns - timer->start_ns; }

static void block_host_for_event(const SP_Device* device, SP_Event event, TF_Status* status) {}

static void block_host_until_done(const SP_Device* device, SP_Stream stream, TF_Status* status) {}

static void synchronize_all_activity(const SP_Device* device, TF_Status* status) {}

static TF_Bool call_on_host(const SP_Device* device, SP_Stream stream, SE_StatusCallbackFn callback, void* argument) {
  TF_Status* status = TF_NewStatus();
  callback(argument, status);
  TF_DeleteStatus(status);
  return 1;
}

// -- copies --------------------------------------------------------------------------------------------------------

static void copy(Stream stream, void* destination, const void* source, uint64_t size) {
  uint64_t start_ns = recorder_now_ns();
  memmove(destination, source, size);
  recorder_add_copy(stream, size, start_ns);
}

static void copy_to_host(const SP_Device* device, SP_Stream stream, void* destination,
                         const SP_DeviceMemoryBase* source, uint64_t size, TF_Status* status) {
  copy(STREAM_DEVICE_TO_HOST, destination, source->opaque, size);
}

static void copy_to_device(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* destination,
                           const void* source, uint64_t size, TF_Status* status) {
  copy(STREAM_HOST_TO_DEVICE, destination->opaque, source, size);
}

static void copy_within_device(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* destination,
                               const SP_DeviceMemoryBase* source, uint64_t size, TF_Status* status) {
  copy(STREAM_DEVICE_TO_DEVICE, destination->opaque, source->opaque, size);
}

static void copy_to_host_now(const SP_Device* device, void* destination, const SP_DeviceMemoryBase* source,
                             uint64_t size, TF_Status* status) {
  copy(STREAM_DEVICE_TO_HOST, destination, source->opaque, size);
}

static void copy_to_device_now(const SP_Device* device, SP_DeviceMemoryBase* destination, const void* source,
                               uint64_t size, TF_Status* status) {
  copy(STREAM_HOST_TO_DEVICE, destination->opaque, source, size);
}

static void copy_within_device_now(const SP_Device* device, SP_DeviceMemoryBase* destination,
                                   const SP_DeviceMemoryBase* source, uint64_t size, TF_Status* status) {
  copy(STREAM_DEVICE_TO_DEVICE, destination->opaque, source->opaque, size);
}

static void fill_zero(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* location, uint64_t size,
                      TF_Status* status) {
  memset(location->opaque, 0, size);
}

static void fill_bytes(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* location, uint8_t pattern,
                       uint64_t size, TF_Status* status) {
  memset(location->opaque, pattern, size);
}

static void fill_words(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* location, uint32_t pattern,
                       uint64_t size, TF_Status* status) {
  uint32_t* words = location->opaque;
  for (uint64_t i = 0; i < size / sizeof(pattern); i++) words[i] = pattern;
}

// -- the platform --------------------------------------------------------------------------------------------------

static void device_count(const SP_Platform* platform, int* count, TF_Status* status) { *count = 1; }

static void create_device(const SP_Platform* platform, SE_CreateDeviceParams* params, TF_Status* status) {
  SP_Device* device = params->device;
  device->struct_size = SP_DEVICE_STRUCT_SIZE;
  device->ordinal = params->ordinal;
  device->hardware_name = "fake GPU";
  device->device_vendor = "graphlens tests";
  device->pci_bus_id = "0000:00:00.0";
}

static void destroy_device(const SP_Platform* platform, SP_Device* device) {}

// Negative values are "unset".
static int32_t numa_node(const SP_Device* device) { return -1; }

static int64_t memory_bandwidth(const SP_Device* device) { return -1; }

static double gflops(const SP_Device* device) { return -1; }

static void create_device_functions(const SP_Platform* platform, SE_CreateDeviceFnsParams* params, TF_Status* status) {
  SP_DeviceFns* functions = params->device_fns;
  functions->struct_size = SP_DEVICE_FNS_STRUCT_SIZE;
  functions->get_numa_node = numa_node;
  functions->get_memory_bandwidth = memory_bandwidth;
  functions->get_gflops = gflops;
}

static void destroy_device_functions(const SP_Platform* platform, SP_DeviceFns* functions) {}

static void create_stream_executor(const SP_Platform* platform, SE_CreateStreamExecutorParams* params,
                                   TF_Status* status) {
  SP_StreamExecutor* executor = params->stream_executor;
  executor->struct_size = SP_STREAMEXECUTOR_STRUCT_SIZE;
  executor->allocate = allocate;
  executor->deallocate = deallocate;
  executor->host_memory_allocate = allocate_host;
  executor->host_memory_deallocate = deallocate_host;
  executor->unified_memory_allocate = allocate_host;
  executor->unified_memory_deallocate = deallocate_host;
  executor->get_allocator_stats = allocator_stats;
  executor->device_memory_usage = memory_usage;
  executor->create_stream = create_stream;
  executor->destroy_stream = destroy_stream;
  executor->create_stream_dependency = depend_on_stream;
  executor->get_stream_status = stream_status;
  executor->create_event = create_event;
  executor->destroy_event = destroy_event;
  executor->get_event_status = event_status;
  executor->record_event = record_event;
  executor->wait_for_event = wait_for_event;
  executor->create_timer = create_timer;
  executor->destroy_timer = destroy_timer;
  executor->start_timer = start_timer;
  executor->stop_timer = stop_timer;
  executor->memcpy_dtoh = copy_to_host;
  executor->memcpy_htod = copy_to_device;
  executor->memcpy_dtod = copy_within_device;
  executor->sync_memcpy_dtoh = copy_to_host_now;
  executor->sync_memcpy_htod = copy_to_device_now;
  executor->sync_memcpy_dtod = copy_within_device_now;
  executor->block_host_for_event = block_host_for_event;
  executor->block_host_until_done = block_host_until_done;
  executor->synchronize_all_activity = synchronize_all_activity;
  executor->mem_zero = fill_zero;
  executor->memset = fill_bytes;
  executor->memset32 = fill_words;
  executor->host_callback = call_on_host;
}

static void destroy_stream_executor(const SP_Platform* platform, SP_StreamExecutor* executor) {}

static void create_timer_functions(const SP_Platform* platform, SP_TimerFns* functions, TF_Status* status) {
  functions->struct_size = SP_TIMER_FNS_STRUCT_SIZE;
  functions->nanoseconds = timer_ns;
}

static void destroy_timer_functions(const SP_Platform* platform, SP_TimerFns* functions) {}

static void destroy_platform(SP_Platform* platform) {}

static void destroy_platform_functions(SP_PlatformFns* functions) {}

void SE_InitPlugin(SE_PlatformRegistrationParams* params, TF_Status* status) {
  SP_Platform* platform = params->platform;
  platform->struct_size = SP_PLATFORM_STRUCT_SIZE;
  platform->name = kPlatformName;
  platform->type = kDeviceType;
  platform->supports_unified_memory = 0;
  platform->use_bfc_allocator = 1;    // as on a real GPU
  platform->force_memory_growth = 1;  // else the allocator takes all of kReportedMemory at once

  SP_PlatformFns* functions = params->platform_fns;
  functions->struct_size = SP_PLATFORM_FNS_STRUCT_SIZE;
  functions->get_device_count = device_count;
  functions->create_device = create_device;
  functions->destroy_device = destroy_device;
  functions->create_device_fns = create_device_functions;
  functions->destroy_device_fns = destroy_device_functions;
  functions->create_stream_executor = create_stream_executor;
  functions->destroy_stream_executor = destroy_stream_executor;
  functions->create_timer_fns = create_timer_functions;
  functions->destroy_timer_fns = destroy_timer_functions;

  params->destroy_platform = destroy_platform;
  params->destroy_platform_fns = destroy_platform_functions;
}
