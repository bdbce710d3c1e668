// All kernels of a frame. Compiles with nvcc as it is, with NVRTC once the includes are inlined (source.py), and with
// g++ over a header that plays the GPU (test/cuda_on_cpu.h).
#include "letterbox.cuh"
#include "grouping.cuh"
#include "measuring.cuh"
#include "maps.cuh"
