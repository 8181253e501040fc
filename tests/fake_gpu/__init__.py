"""A GPU without hardware, for tests: TensorFlow places, copies, executes and profiles models on it as on a real one.

`plug.c` is the device, `delegate.cc` its kernels (each runs the kernel of the CPU), `profiler.cc` its profiler.  A
process has it when ``TF_PLUGGABLE_DEVICE_LIBRARY_PATH`` names the library that `build.py` makes; it cannot be unloaded,
so it is loaded into child processes only (`run.py`).  It validates against TensorFlow's own placer, Grappler and
partitioner, not against hardware.
"""
