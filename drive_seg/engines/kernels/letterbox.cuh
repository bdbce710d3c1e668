// Camera bytes -> the network's input: decoded, scaled and padded in one pass (preprocess.py).
// Bit for bit what OpenCV's x86 build computes: the very same integers, and floats in the same order, never fused.
#pragma once
#include "camera.cuh"

// Two by two pixels weighed in 1/2048; the sums lose bits where OpenCV's vector code does.
__device__ inline uint32_t interpolate(const Frame& f, Tap across, Tap down) {
    uint32_t result = 0;
    const uint32_t corners[4] = {halved_pixel(f, across.first, down.first), halved_pixel(f, across.last, down.first),
                                 halved_pixel(f, across.first, down.last), halved_pixel(f, across.last, down.last)};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const int upper = across.w_first * int(channel_of(corners[0], c)) + across.w_last * int(channel_of(corners[1], c));
        const int lower = across.w_first * int(channel_of(corners[2], c)) + across.w_last * int(channel_of(corners[3], c));
        const int sum = (down.w_first * (upper >> 4) >> 16) + (down.w_last * (lower >> 4) >> 16);
        result |= uint32_t(sum + 2 >> 2) << 10 * c;
    }
    return result;
}

__device__ inline uint32_t rounded(float r, float g, float b) {
    return pack(clamp8(__float2int_rn(r)), clamp8(__float2int_rn(g)), clamp8(__float2int_rn(b)));
}

// The mean of whole pixels.
__device__ inline uint32_t whole_mean(const Frame& f, Tap across, Tap down) {
    int sum[3] = {};
    for (int y = down.first; y <= down.last; ++y)
        for (int x = across.first; x <= across.last; ++x) {
            const uint32_t pixel = halved_pixel(f, x, y);
#pragma unroll
            for (int c = 0; c < 3; ++c) sum[c] += int(channel_of(pixel, c));
        }
    const float scale = __fdiv_rn(1.0f, float((across.last - across.first + 1) * (down.last - down.first + 1)));
    return rounded(__fmul_rn(float(sum[0]), scale), __fmul_rn(float(sum[1]), scale), __fmul_rn(float(sum[2]), scale));
}

__device__ inline float weight(Tap tap, int at) {
    return __int_as_float(at == tap.first ? tap.w_first : at == tap.last ? tap.w_last : tap.w_between);
}

// The mean of pixels, those at the edges in part: rows first, then their sum.
__device__ inline uint32_t partial_mean(const Frame& f, Tap across, Tap down) {
    float sum[3] = {};
    for (int y = down.first; y <= down.last; ++y) {
        float row[3] = {};
        for (int x = across.first; x <= across.last; ++x) {
            const uint32_t pixel = halved_pixel(f, x, y);
            const float share = weight(across, x);
#pragma unroll
            for (int c = 0; c < 3; ++c) row[c] = __fadd_rn(row[c], __fmul_rn(float(channel_of(pixel, c)), share));
        }
        const float share = weight(down, y);
#pragma unroll
        for (int c = 0; c < 3; ++c) sum[c] = __fadd_rn(sum[c], __fmul_rn(share, row[c]));
    }
    return rounded(sum[0], sum[1], sum[2]);
}

__device__ inline uint32_t content_pixel(const Frame& f, int x, int y) {
    if (f.scaling == COPY) return halved_pixel(f, x, y);
    const Tap across = f.taps_x[x], down = f.taps_y[y];
    if (f.scaling == LINEAR) return interpolate(f, across, down);
    return f.scaling == WHOLE_AREA ? whole_mean(f, across, down) : partial_mean(f, across, down);
}

// Four pixels of a row per thread, so that a row leaves in whole words.
extern "C" __global__ void __launch_bounds__(256, 2) letterbox(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int x = 4 * int(blockIdx.x * blockDim.x + threadIdx.x), y = int(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= f.net_w || y >= f.net_h) return;
    uint32_t pixels[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int column = x + i - f.x0, row = y - f.y0;
        const bool inside = column >= 0 && column < f.content_w && row >= 0 && row < f.content_h;
        pixels[i] = inside ? content_pixel(f, column, row) : 0;
    }
    uint8_t* out = f.input + 3 * (size_t(y) * f.net_w + x);
    if (f.net_w % 4 == 0) {
        uint32_t words[3] = {};
#pragma unroll
        for (int i = 0; i < 12; ++i) words[i / 4] |= channel_of(pixels[i / 3], i % 3) << 8 * (i % 4);
#pragma unroll
        for (int i = 0; i < 3; ++i) reinterpret_cast<uint32_t*>(out)[i] = words[i];
    } else {
#pragma unroll
        for (int i = 0; i < 12; ++i)
            if (x + i / 3 < f.net_w) out[i] = uint8_t(channel_of(pixels[i / 3], i % 3));
    }
}
