// Pixels of a camera image in any accepted encoding, as the CPU's OpenCV converts them.
#pragma once
#include "frame.cuh"

// Three channels in one word, ten bits each: four 8-bit values may be summed without a carry into the next.
__device__ inline uint32_t pack(uint32_t r, uint32_t g, uint32_t b) { return r | g << 10 | b << 20; }

__device__ inline uint32_t channel_of(uint32_t packed, int channel) { return packed >> 10 * channel & 255; }

// (sum + 2) / 4 in each channel.
__device__ inline uint32_t quarter(uint32_t sum) { return (sum + pack(2, 2, 2)) >> 2 & pack(255, 255, 255); }

__device__ inline uint32_t clamp8(int value) { return static_cast<uint32_t>(min(max(value, 0), 255)); }

// BT.601, limited range, in 1/2**20 as OpenCV has it.
__device__ inline uint32_t yuv_to_rgb(int luma, int u, int v) {
    const int y = max(luma - 16, 0) * 1220542 + (1 << 19);
    u -= 128;
    v -= 128;
    return pack(clamp8((y + 1673527 * v) >> 20), clamp8((y - 852492 * v - 409993 * u) >> 20),
                clamp8((y + 2116026 * u) >> 20));
}

// Bilinear demosaicing. The outermost pixels repeat those beside them.
__device__ inline uint32_t demosaic(const Frame& f, int x, int y) {
    if (f.raw_w < 3 || f.raw_h < 3) return 0;  // as OpenCV does
    x = min(max(x, 1), f.raw_w - 2);
    y = min(max(y, 1), f.raw_h - 2);
    const size_t step = f.raw_step;
    const uint8_t* p = f.raw + y * step + x;
    const uint32_t self = __ldg(p), across = __ldg(p - 1) + __ldg(p + 1), down = __ldg(p - step) + __ldg(p + step);
    const bool red_row = (y & 1) == f.at0, red_column = (x & 1) == f.at1;
    if (red_row != red_column) {
        const uint32_t in_row = (across + 1) >> 1, in_column = (down + 1) >> 1;
        return red_row ? pack(in_row, self, in_column) : pack(in_column, self, in_row);
    }
    const uint32_t green = (across + down + 2) >> 2;
    const uint32_t corners =
        (__ldg(p - step - 1) + __ldg(p - step + 1) + __ldg(p + step - 1) + __ldg(p + step + 1) + 2) >> 2;
    return red_row ? pack(self, green, corners) : pack(corners, green, self);
}

__device__ inline uint32_t native_pixel(const Frame& f, int x, int y) {
    const size_t step = f.raw_step;
    const uint8_t* row = f.raw + y * step;
    if (f.packing == PACKED) {
        const uint8_t* p = row + x * f.pixel_bytes;
        return pack(__ldg(p + f.at0), __ldg(p + f.at1), __ldg(p + f.at2));
    }
    if (f.packing == YUV422) {
        const uint8_t* pair = row + (x & ~1) * 2;
        return yuv_to_rgb(__ldg(pair + 2 * (x & 1) + f.at0), __ldg(pair + f.at1), __ldg(pair + f.at2));
    }
    if (f.packing == TWO_PLANES) {
        const uint8_t* pair = f.raw + (f.raw_h + y / 2) * step + (x & ~1);
        return yuv_to_rgb(__ldg(row + x), __ldg(pair + f.at1), __ldg(pair + f.at2));
    }
    return demosaic(f, x, y);
}

__device__ inline int even_bits(int i) { return (i & 1) | (i >> 1 & 2) | (i >> 2 & 4) | (i >> 3 & 8); }

// Pixel of the image after `halvings` rounds of rounded 2 x 2 means. The native pixels under it are visited in Z order,
// so that each round's sum is complete just when the next needs it.
__device__ inline uint32_t halved_pixel(const Frame& f, int x, int y) {
    if (f.halvings == 1) {
        uint32_t sum = 0;
#pragma unroll 1
        for (int v = 2 * y; v < 2 * y + 2; ++v) sum += native_pixel(f, 2 * x, v) + native_pixel(f, 2 * x + 1, v);
        return quarter(sum);
    }
    uint32_t sums[MAX_HALVINGS] = {};
    uint32_t value = 0;
    const int count = 1 << 2 * f.halvings;
    for (int i = 0; i < count; ++i) {
        value = native_pixel(f, (x << f.halvings) + even_bits(i), (y << f.halvings) + even_bits(i >> 1));
#pragma unroll
        for (int round = 0; round < MAX_HALVINGS; ++round) {
            if (round >= f.halvings) break;
            sums[round] += value;
            if ((i >> 2 * round & 3) != 3) break;
            value = quarter(sums[round]);
            sums[round] = 0;
        }
    }
    return value;
}
