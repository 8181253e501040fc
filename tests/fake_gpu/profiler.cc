// The profiler of the fake GPU: kernels and copies, as a plane `/device:GPU:0` that looks like that of an NVIDIA GPU.
//
// As there, an event carries the annotations that TensorFlow had pushed when it was enqueued (`NAME:Op#shape=...#`, for
// a copy those of the `_Send` or `_Recv`).  Its times are those of the CPU that did the work: synthetic, good for
// counting.

#include <time.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "recorder.h"
#include "tensorflow/c/experimental/pluggable_profiler/pluggable_profiler.h"
#include "tsl/profiler/protobuf/xplane.pb.h"
#include "xla/tsl/profiler/backends/cpu/annotation_stack.h"

namespace {

using tensorflow::profiler::XEvent;
using tensorflow::profiler::XLine;
using tensorflow::profiler::XPlane;
using tensorflow::profiler::XSpace;
using tsl::profiler::AnnotationStack;

constexpr char kPlaneName[] = "/device:GPU:0";
constexpr int64_t kFirstStream = 13;
constexpr int64_t kPicosecondsPerNanosecond = 1000;

struct StreamNames {
  const char* line;
  const char* event;
  const char* source;
  const char* destination;
};

constexpr StreamNames kStreams[STREAM_COUNT] = {
    {"Compute", "", "", ""},
    {"MemcpyH2D", "MemcpyH2D", "pageable", "device"},
    {"MemcpyD2H", "MemcpyD2H", "device", "pageable"},
    {"MemcpyD2D", "MemcpyD2D", "device", "device"},
};

struct Event {
  Stream stream;
  std::string name;
  std::string annotation;
  uint64_t bytes;
  uint64_t start_ns;
  uint64_t end_ns;
};

std::mutex mutex;
bool is_on = false;
std::vector<Event> events;

void add(Stream stream, std::string name, uint64_t bytes, uint64_t start_ns) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!is_on) return;
  events.push_back({stream, std::move(name), AnnotationStack::Get(), bytes, start_ns, recorder_now_ns()});
}

// Builds the plane; names are stored once, as the format asks for.
class PlaneWriter {
 public:
  explicit PlaneWriter(XPlane* plane) : plane_(plane) { plane_->set_name(kPlaneName); }

  void Write(const std::vector<Event>& recorded) {
    uint64_t begin_ns = recorded.front().start_ns;
    for (const Event& event : recorded) begin_ns = std::min(begin_ns, event.start_ns);
    for (const Event& event : recorded) WriteEvent(event, begin_ns);
  }

 private:
  void WriteEvent(const Event& recorded, uint64_t begin_ns) {
    XEvent* event = Line(recorded.stream, begin_ns)->add_events();
    event->set_metadata_id(EventId(recorded.name));
    event->set_offset_ps((recorded.start_ns - begin_ns) * kPicosecondsPerNanosecond);
    event->set_duration_ps((recorded.end_ns - recorded.start_ns) * kPicosecondsPerNanosecond);
    AddStat(event, "correlation_id", ++correlation_);
    if (!recorded.annotation.empty()) AddStat(event, "annotation", recorded.annotation);
    if (recorded.stream == STREAM_COMPUTE) {
      AddStat(event, "kernel_details", "regs:0 shm:0 grid:1,1,1 block:1,1,1");
    } else {
      AddStat(event, "memcpy_details", Details(recorded));
    }
  }

  static std::string Details(const Event& recorded) {
    const StreamNames& names = kStreams[recorded.stream];
    return std::string("kind_src:") + names.source + " kind_dst:" + names.destination +
           " size:" + std::to_string(recorded.bytes) + " dest:0 async:1";
  }

  XLine* Line(Stream stream, uint64_t begin_ns) {
    auto [found, is_new] = lines_.try_emplace(stream, nullptr);
    if (is_new) {
      const int64_t number = kFirstStream + stream;
      found->second = plane_->add_lines();
      found->second->set_id(number);
      found->second->set_name("Stream #" + std::to_string(number) + "(" + kStreams[stream].line + ")");
      found->second->set_timestamp_ns(begin_ns);
    }
    return found->second;
  }

  int64_t EventId(const std::string& name) {
    auto [found, is_new] = event_ids_.try_emplace(name, event_ids_.size() + 1);
    if (is_new) {
      auto& metadata = (*plane_->mutable_event_metadata())[found->second];
      metadata.set_id(found->second);
      metadata.set_name(name);
    }
    return found->second;
  }

  int64_t StatId(const std::string& name) {
    auto [found, is_new] = stat_ids_.try_emplace(name, stat_ids_.size() + 1);
    if (is_new) {
      auto& metadata = (*plane_->mutable_stat_metadata())[found->second];
      metadata.set_id(found->second);
      metadata.set_name(name);
    }
    return found->second;
  }

  void AddStat(XEvent* event, const char* name, uint64_t value) {
    auto* stat = event->add_stats();
    stat->set_metadata_id(StatId(name));
    stat->set_uint64_value(value);
  }

  void AddStat(XEvent* event, const char* name, const std::string& value) {
    auto* stat = event->add_stats();
    stat->set_metadata_id(StatId(name));
    stat->set_str_value(value);
  }

  XPlane* plane_;
  uint64_t correlation_ = 0;
  std::map<Stream, XLine*> lines_;
  std::map<std::string, int64_t> event_ids_;
  std::map<std::string, int64_t> stat_ids_;
};

std::string serialized() {
  std::lock_guard<std::mutex> lock(mutex);
  XSpace space;
  if (!events.empty()) PlaneWriter(space.add_planes()).Write(events);
  return space.SerializeAsString();
}

void start(const TP_Profiler*, TF_Status*) {
  AnnotationStack::Enable(true);
  std::lock_guard<std::mutex> lock(mutex);
  events.clear();
  is_on = true;
}

void stop(const TP_Profiler*, TF_Status*) {
  AnnotationStack::Enable(false);
  std::lock_guard<std::mutex> lock(mutex);
  is_on = false;
}

// TensorFlow asks twice: for the size, then with a buffer of that size.
void collect(const TP_Profiler*, uint8_t* buffer, size_t* size, TF_Status*) {
  const std::string data = serialized();
  if (buffer == nullptr) {
    *size = data.size();
    return;
  }
  std::copy_n(data.data(), std::min(*size, data.size()), buffer);
}

}  // namespace

extern "C" {

uint64_t recorder_now_ns(void) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

void recorder_add_copy(Stream stream, uint64_t bytes, uint64_t start_ns) {
  add(stream, kStreams[stream].event, bytes, start_ns);
}

void recorder_add_kernel(const char* op_type, uint64_t start_ns) {
  add(STREAM_COMPUTE, std::string("fake_gpu::") + op_type, 0, start_ns);
}

void TF_InitProfiler(TF_ProfilerRegistrationParams* params, TF_Status*) {
  params->major_version = TP_MAJOR;
  params->minor_version = TP_MINOR;
  params->patch_version = TP_PATCH;
  params->profiler->struct_size = TP_PROFILER_STRUCT_SIZE;
  params->profiler->device_type = "GPU";
  params->profiler_fns->struct_size = TP_PROFILER_FNS_STRUCT_SIZE;
  params->profiler_fns->start = start;
  params->profiler_fns->stop = stop;
  params->profiler_fns->collect_data_xspace = collect;
  params->destroy_profiler = [](TP_Profiler*) {};
  params->destroy_profiler_fns = [](TP_ProfilerFns*) {};
}

}  // extern "C"
