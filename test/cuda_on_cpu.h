// Plays a GPU for kernels compiled with g++, exactly enough to test them: every CUDA thread is a fiber of its own, blocks
// run on several OS threads at once, barriers are real, and the order of blocks, of threads and around atomics is drawn
// from a seed. What a GPU's memory model allows beyond that, its speed and its compiler are not played.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct Dim3 {
    unsigned x, y, z;
};

static Dim3 gridDim, blockDim;
static thread_local Dim3 threadIdx, blockIdx;

using std::max;
using std::min;

namespace gpu {

enum Fate { READY, WAITING, DONE };

struct Fiber {
    ucontext_t context;
    Dim3 index;
    Fate fate;
};

// What one OS thread needs to run a block.
struct Worker {
    std::mt19937 random;
    std::vector<Fiber> fibers;
    std::vector<char> stacks;
    ucontext_t scheduler;
    Fiber* running = nullptr;
    void (*body)(const void*) = nullptr;
    const void* argument = nullptr;
    unsigned pauses = 0;  // of 1024 atomics, how many let another thread go first
    bool broken = false;
};

constexpr size_t STACK = 1 << 16;
static thread_local Worker* worker = nullptr;

inline void leave(Fate fate) {
    worker->running->fate = fate;
    swapcontext(&worker->running->context, &worker->scheduler);
}

inline void maybe_pause() {
    if (worker && worker->running && worker->random() % 1024 < worker->pauses) leave(READY);
}

inline void enter() {
    worker->body(worker->argument);
    leave(DONE);
}

// All threads of a block, in drawn order from barrier to barrier.
inline void run_fibers(Worker& w, bool shuffled) {
    const unsigned count = blockDim.x * blockDim.y * blockDim.z;
    w.fibers.resize(count);
    w.stacks.resize(count * STACK);
    std::vector<unsigned> ready;
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = w.fibers[i];
        fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        fiber.fate = READY;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = &w.stacks[i * STACK];
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &w.scheduler;
        makecontext(&fiber.context, enter, 0);
        ready.push_back(count - 1 - i);
    }
    unsigned done = 0;
    std::vector<unsigned> waiting;
    while (done < count) {
        if (ready.empty()) {
            w.broken |= waiting.size() != count;  // some threads ended, others wait for them
            ready.swap(waiting);
            for (unsigned i : ready) w.fibers[i].fate = READY;
            std::reverse(ready.begin(), ready.end());
        }
        const size_t pick = shuffled ? w.random() % ready.size() : ready.size() - 1;
        std::swap(ready[pick], ready.back());
        Fiber& fiber = w.fibers[ready.back()];
        w.running = &fiber;
        threadIdx = fiber.index;
        swapcontext(&w.scheduler, &fiber.context);
        w.running = nullptr;
        if (fiber.fate == READY) continue;
        if (fiber.fate == WAITING) waiting.push_back(ready.back());
        done += fiber.fate == DONE;
        ready.pop_back();
    }
}

// The threads of a block one after the other: for kernels that neither wait nor share.
inline void run_loop(Worker& w, bool shuffled) {
    const unsigned count = blockDim.x * blockDim.y * blockDim.z;
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    if (shuffled) std::shuffle(order.begin(), order.end(), w.random);
    for (unsigned i : order) {
        threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        w.body(w.argument);
    }
}

// Returns 0, or 1 when a block's threads did not all meet at a barrier.
inline int launch(void (*body)(const void*), const void* argument, const unsigned* grid, const unsigned* block,
                  bool fibers, unsigned seed, unsigned workers, unsigned pauses) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const unsigned count = grid[0] * grid[1] * grid[2];
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    std::mt19937 random(seed);
    if (seed) std::shuffle(order.begin(), order.end(), random);
    std::atomic<unsigned> next{0};
    std::atomic<int> broken{0};
    auto work = [&](unsigned number) {
        Worker mine;
        mine.random.seed(seed + 7919 * number);
        mine.body = body;
        mine.argument = argument;
        mine.pauses = seed ? pauses : 0;
        worker = &mine;
        for (unsigned i = next++; i < count; i = next++) {
            blockIdx = {order[i] % grid[0], order[i] / grid[0] % grid[1], order[i] / grid[0] / grid[1]};
            fibers ? run_fibers(mine, seed != 0) : run_loop(mine, seed != 0);
        }
        if (mine.broken) broken = 1;
        worker = nullptr;
    };
    std::vector<std::thread> threads;
    for (unsigned number = 1; number < workers; ++number) threads.emplace_back(work, number);
    work(0);
    for (auto& thread : threads) thread.join();
    return broken;
}

}  // namespace gpu

inline void __syncthreads() { gpu::leave(gpu::WAITING); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

template <typename T>
inline T __ldg(const T* place) {
    return *place;
}

template <typename T>
inline T __ldcg(const T* place) {
    T value;
    __atomic_load(place, &value, __ATOMIC_RELAXED);
    return value;
}

template <typename T, typename F>
inline T change(T* place, F&& next) {
    gpu::maybe_pause();
    T before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(place, &before, next(before), true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
    gpu::maybe_pause();
    return before;
}

template <typename T>
inline T atomicAdd(T* place, T value) {
    return change(place, [=](T old) { return T(old + value); });
}
template <typename T>
inline T atomicOr(T* place, T value) {
    return change(place, [=](T old) { return T(old | value); });
}
template <typename T>
inline T atomicMin(T* place, T value) {
    return change(place, [=](T old) { return min(old, value); });
}
template <typename T>
inline T atomicMax(T* place, T value) {
    return change(place, [=](T old) { return max(old, value); });
}
inline unsigned atomicInc(unsigned* place, unsigned end) {
    return change(place, [=](unsigned old) { return old >= end ? 0u : old + 1; });
}

// Compiled without contraction, plain operators round as these do.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline int __float2int_rn(float a) { return int(std::nearbyint(a)); }
template <typename To, typename From>
inline To same_bits(From from) {
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int bits) { return same_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
