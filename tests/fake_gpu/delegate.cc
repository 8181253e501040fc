// Kernels of the fake GPU: each row of the CUDA wheel's registry that the CPU wheel lacks, run by the kernel of the
// CPU.
//
// Placement needs the rows only.  Running the model needs kernels too; since the fake device's memory is host memory, a
// kernel made for the CPU from the same node can do the work.  Its host-memory arguments, types and priorities are
// those of the row, so that the placer and the partitioner decide as they would with TensorFlow for CUDA.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "recorder.h"
#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/node_properties.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/notification.h"

extern "C" const char kernel_rows_begin[];
extern "C" const char kernel_rows_end[];

namespace {

using namespace tensorflow;  // NOLINT: every name here is one of TensorFlow's

bool IsVerbose() { return std::getenv("GRAPHLENS_FAKE_GPU_VERBOSE") != nullptr; }

// Runs the CPU's kernel for the node, or, where none can do it, fills the outputs with zeros.
class Delegate : public OpKernel {
 public:
  explicit Delegate(OpKernelConstruction* construction)
      : OpKernel(construction), graph_version_(construction->graph_def_version()) {
    if (IsForGpuOnly()) return;
    std::shared_ptr<const NodeProperties> properties;
    if (!NodeProperties::CreateFromNodeDef(def(), OpRegistry::Global(), &properties).ok()) return;
    auto* device = const_cast<DeviceBase*>(static_cast<const DeviceBase*>(construction->device()));
    AllocatorAttributes on_host;
    on_host.set_on_host(true);
    OpKernel* kernel = nullptr;
    const absl::Status made =
        CreateOpKernel(DeviceType(DEVICE_CPU), device, device->GetAllocator(on_host), construction->function_library(),
                       construction->resource_manager(), properties, graph_version_, &kernel);
    if (made.ok()) kernel_.reset(kernel);
  }

  void Compute(OpKernelContext* context) override {
    const uint64_t start_ns = recorder_now_ns();
    if (kernel_ == nullptr) {
      FillWithZeros(context);
    } else {
      Forward(context);
    }
    recorder_add_kernel(type_string().c_str(), start_ns);
  }

 private:
  // The CPU has kernels for these, which refuse the node only when they run: channels first is a GPU's layout.
  bool IsForGpuOnly() const {
    if (type_string() == "_FusedBatchNormEx") return true;
    if (type_string() == "BiasAdd" || type_string() == "BiasAddGrad") return false;
    const auto layout = def().attr().find("data_format");
    return layout != def().attr().end() && layout->second.s().substr(0, 2) == "NC";
  }

  void Forward(OpKernelContext* context) {
    AsyncOpKernel* asynchronous = kernel_->AsAsync();
    if (asynchronous == nullptr) {
      kernel_->Compute(context);
      return;
    }
    absl::Notification done;
    asynchronous->ComputeAsync(context, [&done] { done.Notify(); });
    done.WaitForNotification();
  }

  // Shapes are right, so that placement and copies stay valid; values are not, nor what depends on them.
  void FillWithZeros(OpKernelContext* context) {
    if (IsVerbose()) std::fprintf(stderr, "fake GPU: zeros for %s (%s)\n", name().c_str(), type_string().c_str());
    std::vector<TensorShape> shapes;
    OP_REQUIRES_OK(context, InferShapes(context, &shapes));
    for (int i = 0; i < context->num_outputs(); i++) {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(i, shapes[i], &output));
      if (DataTypeCanUseMemcpy(output->dtype())) std::memset(output->data(), 0, output->TotalBytes());
    }
  }

  absl::Status InferShapes(OpKernelContext* context, std::vector<TensorShape>* shapes) {
    const OpRegistrationData* op = nullptr;
    TF_RETURN_IF_ERROR(OpRegistry::Global()->LookUp(type_string(), &op));
    std::vector<PartialTensorShape> input_shapes;
    std::vector<const Tensor*> inputs;
    for (int i = 0; i < context->num_inputs(); i++) {
      const bool has_value = context->has_input(i) && !IsRefType(context->input_dtype(i));
      inputs.push_back(has_value ? &context->input(i) : nullptr);
      input_shapes.push_back(has_value ? PartialTensorShape(context->input(i).shape().dim_sizes())
                                       : PartialTensorShape());
    }
    shape_inference::InferenceContext inference(graph_version_, def(), op->op_def, input_shapes, inputs, {}, {});
    TF_RETURN_IF_ERROR(inference.construction_status());
    TF_RETURN_IF_ERROR(inference.Run(op->shape_inference_fn));
    for (int i = 0; i < context->num_outputs(); i++) shapes->push_back(ShapeOf(context, &inference, i));
    return absl::OkStatus();
  }

  static TensorShape ShapeOf(OpKernelContext* context, shape_inference::InferenceContext* inference, int output) {
    const shape_inference::ShapeHandle inferred = inference->output(output);
    if (!inference->RankKnown(inferred)) {
      // _FusedBatchNormEx has no shape function: the picture first, then one number for each channel.
      return context->input(output > 0 && context->num_inputs() > 1 ? 1 : 0).shape();
    }
    TensorShape shape;
    for (int i = 0; i < inference->Rank(inferred); i++) {
      const int64_t size = inference->Value(inference->Dim(inferred, i));
      shape.AddDim(size < 0 ? 0 : size);
    }
    return shape;
  }

  const int graph_version_;
  std::unique_ptr<OpKernel> kernel_;
};

uint32_t ReadNumber(const char** at) {
  uint32_t number;
  std::memcpy(&number, *at, sizeof(number));
  *at += sizeof(number);
  return number;
}

}  // namespace

// The rows follow each other as: length of the name, length of the row, name, a zero byte, the row (a KernelDef).
extern "C" void TF_InitKernel(void) {
  int registered = 0;
  for (const char* at = kernel_rows_begin; at < kernel_rows_end;) {
    const uint32_t name_size = ReadNumber(&at);
    const uint32_t row_size = ReadNumber(&at);
    const char* row = at + name_size + 1;
    at = row + row_size;
    auto* kernel = new KernelDef();  // the registry keeps it
    if (!kernel->ParseFromArray(row, row_size)) {
      std::fprintf(stderr, "fake GPU: kernel row %d is damaged\n", registered);
      std::abort();
    }
    kernel_factory::OpKernelRegistrar(kernel, "FakeGpuDelegate", [](OpKernelConstruction* construction) -> OpKernel* {
      return new Delegate(construction);
    });
    registered++;
  }
  if (IsVerbose()) std::fprintf(stderr, "fake GPU: %d kernels\n", registered);
}
