// Camera bytes -> the network's input: decoded, scaled and padded in one pass (preprocess.py).
// Bit for bit what OpenCV's x86 build computes: the very same integers, and floats in the same order, never fused.
#pragma once
#include "camera.cuh"

constexpr uint32_t PADDING = 114 | 114 << 10 | 114 << 20;  // grey, as preprocess.PADDING

__device__ inline float weight(const Tap& tap, int at) {
    return at == tap.first ? tap.w_first : at == tap.last ? tap.w_last : tap.w_between;
}

// A row's part of an interpolated pixel: weights are in 1/2048, and bits are lost where OpenCV's vector code loses them.
__device__ inline float part(float row, float weight) { return float(int(weight) * (int(row) >> 4) >> 16); }

__device__ inline uint32_t content_pixel(const Frame& f, int x, int y) {
    const Tap across = f.taps_x[x], down = f.taps_y[y];
    float sum[3] = {};
#pragma unroll 1
    for (int v = down.first; v <= down.last; ++v) {
        float row[3] = {};
#pragma unroll 1
        for (int u = across.first; u <= across.last; ++u) {
            const uint32_t pixel = halved_pixel(f, u, v);
            const float share = weight(across, u);
#pragma unroll
            for (int c = 0; c < 3; ++c) row[c] = __fadd_rn(row[c], __fmul_rn(float(channel_of(pixel, c)), share));
        }
#pragma unroll
        for (int c = 0; c < 3; ++c)
            if (f.interpolated) {
                if (v == down.first) sum[c] += part(row[c], down.w_first);
                if (v == down.last) sum[c] += part(row[c], down.w_last);
            } else {
                sum[c] = __fadd_rn(sum[c], __fmul_rn(row[c], weight(down, v)));
            }
    }
    const float share = __fdiv_rn(1.0f, float(f.mean_of));
    uint32_t value[3];
#pragma unroll
    for (int c = 0; c < 3; ++c)
        value[c] = f.interpolated ? uint32_t(int(sum[c]) + 2 >> 2) : clamp8(__float2int_rn(__fmul_rn(sum[c], share)));
    return pack(value[0], value[1], value[2]);
}

// Four pixels of a row per thread, so that a row leaves in whole words.
extern "C" __global__ void __launch_bounds__(256, 3) letterbox(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int x = 4 * int(blockIdx.x * blockDim.x + threadIdx.x), y = int(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= f.net_w || y >= f.net_h) return;
    uint32_t words[3] = {};
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
        const int column = x + i - f.x0, row = y - f.y0;
        const bool inside = column >= 0 && column < f.content_w && row >= 0 && row < f.content_h;
        const uint32_t pixel = inside ? content_pixel(f, column, row) : PADDING;
        const uint32_t rgb = channel_of(pixel, 0) | channel_of(pixel, 1) << 8 | channel_of(pixel, 2) << 16;
        words[0] = words[0] >> 24 | words[1] << 8;
        words[1] = words[1] >> 24 | words[2] << 8;
        words[2] = words[2] >> 24 | rgb << 8;
    }
    uint8_t* out = f.input + 3 * (size_t(y) * f.net_w + x);
    if (f.net_w % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 3; ++i) reinterpret_cast<uint32_t*>(out)[i] = words[i];
    } else {
#pragma unroll
        for (int i = 0; i < 12; ++i)
            if (x + i / 3 < f.net_w) out[i] = uint8_t(words[i / 4] >> 8 * (i % 4));
    }
}
