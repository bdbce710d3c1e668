// How blocks of one launch work together without another launch.
#pragma once
#include "frame.cuh"

__device__ inline int thread_number() { return int(threadIdx.y * blockDim.x + threadIdx.x); }

__device__ inline int thread_count() { return int(blockDim.x * blockDim.y); }

// Whether this block is the last of its image to come here: it then sees all that the others wrote (read with __ldcg).
// Every thread of every block must call it. The ticket wraps to 0 by itself.
__device__ inline bool last_block(uint32_t* ticket) {
    __shared__ uint32_t last;
    __threadfence();
    __syncthreads();
    if (thread_number() == 0) {
        const uint32_t end = gridDim.x * gridDim.y - 1;
        last = atomicInc(ticket, end) == end;
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
}

// Atomic minimum and maximum that ask first: a value only ever moves one way, so an old one costs at most an atomic.
template <typename T>
__device__ inline void lower(T* place, T value) {
    if (value < __ldcg(place)) atomicMin(place, value);
}

template <typename T>
__device__ inline void raise(T* place, T value) {
    if (value > __ldcg(place)) atomicMax(place, value);
}
