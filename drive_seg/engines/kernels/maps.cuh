// The answer: maps in the resolution asked for (letterbox.restore), and the overlay's colours (overlay.py).
#pragma once
#include "camera.cuh"
#include "grouping.cuh"

__device__ inline bool is_stuff(const Frame& f, int class_id) {
    return class_id < f.labels && __ldg(f.class_channel + class_id) >= CHANNELS;
}

// The class of a quarter of a map pixel, `lower` and `righter` of its middle or not (corners.py).
__device__ inline int class_of_quarter(const Frame& f, int own, int row, int column, bool lower, bool righter) {
    const bool edge = row <= f.win_y || row >= f.win_y + f.win_h - 1 || column <= f.win_x || column >= f.win_x + f.win_w - 1;
    if (!f.cut || edge || !is_stuff(f, own)) return own;
    const uint8_t* here = f.semantic + size_t(row) * f.map_w + column;
    const int up = __ldg(here - f.map_w), down = __ldg(here + f.map_w), left = __ldg(here - 1), right = __ldg(here + 1);
    const int vertical = lower ? down : up, opposite_row = lower ? up : down;
    const int horizontal = righter ? right : left, opposite_column = righter ? left : right;
    const bool cut = vertical == horizontal && horizontal != opposite_row && vertical != opposite_column;
    return cut && is_stuff(f, vertical) ? vertical : own;
}

// Four pixels of a row per thread; mask, panoptic ids and confidence in one pass, as whole words where rows allow it.
extern "C" __global__ void __launch_bounds__(256, 2) write_maps(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int x = 4 * int(blockIdx.x * blockDim.x + threadIdx.x), y = int(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= f.out_w || y >= f.out_h) return;
    const int half_row = __ldg(f.out_rows + y), row = half_row >> 1;
    uint32_t mask[4] = {}, panoptic[4] = {}, confidence[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + i >= f.out_w) break;
        const int half_column = __ldg(f.out_columns + x + i), column = half_column >> 1;
        const size_t pixel = size_t(row) * f.map_w + column;
        const int own = __ldg(f.semantic + pixel);
        const int class_id = class_of_quarter(f, own, row, column, half_row & 1, half_column & 1);
        const int channel = __ldg(f.class_channel + class_id);
        mask[i] = class_id < f.labels ? class_id : UNLABELLED;
        panoptic[i] = class_id < f.labels ? class_id : PANOPTIC_UNLABELLED;
        if (channel < CHANNELS) {
            panoptic[i] = f.segments[segment_at(f, channel, column, row)].value;
            if (panoptic[i] == PANOPTIC_UNLABELLED) mask[i] = UNLABELLED;
        }
        if (f.out_confidence) confidence[i] = __ldg(f.confidence + pixel);
    }
    const size_t at = size_t(y) * f.out_w + x;
    if (f.out_w % 4 == 0) {
        *reinterpret_cast<uint32_t*>(f.mask + at) = mask[0] | mask[1] << 8 | mask[2] << 16 | mask[3] << 24;
        *reinterpret_cast<unsigned long long*>(f.panoptic + at) =
            (unsigned long long)(panoptic[2] | panoptic[3] << 16) << 32 | (panoptic[0] | panoptic[1] << 16);
        if (f.out_confidence)
            *reinterpret_cast<uint32_t*>(f.out_confidence + at) =
                confidence[0] | confidence[1] << 8 | confidence[2] << 16 | confidence[3] << 24;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + i >= f.out_w) break;
        f.mask[at + i] = uint8_t(mask[i]);
        f.panoptic[at + i] = uint16_t(panoptic[i]);
        if (f.out_confidence) f.out_confidence[at + i] = uint8_t(confidence[i]);
    }
}

// The overlay counts instances over all classes and gives each a code behind the classes; past 254 they share codes.
// In maps of network size a pixel may stand outside of its instance's box: it then has its class's code.
__device__ inline int code_at(const Frame& f, int x, int y) {
    const size_t pixel = size_t(__ldg(f.view_rows + y)) * f.out_w + __ldg(f.view_columns + x);
    const int class_id = f.mask[pixel], channel = __ldg(f.class_channel + class_id), free = UNLABELLED - f.labels;
    if (channel >= CHANNELS || free == 0) return class_id;
    const int index = int(f.header->first_instance[channel]) + f.panoptic[pixel] - class_id * DIVISOR - 1;
    const Instance* box = f.instances + index;
    const bool inside = x >= box->x && x < box->x + box->width && y >= box->y && y < box->y + box->height;
    return inside ? f.labels + index % free : class_id;
}

// The colour of a code is that of the last instance that has it.
__device__ inline const uint8_t* color_of(const Frame& f, int code) {
    const int count = int(f.header->instances), free = UNLABELLED - f.labels;
    if (code == UNLABELLED || code == f.background) return nullptr;
    if (code < f.labels) {
        const int channel = f.class_channel[code];
        if (free > 0 || channel >= CHANNELS) return f.colors + 3 * code;
        const int number = int(f.header->first_instance[channel + 1] - f.header->first_instance[channel]);
        return f.shades + 3 * (channel * DIVISOR + number);
    }
    const int index = code - f.labels, last = index + (count - 1 - index) / free * free;
    int channel = 0;
    while (int(f.header->first_instance[channel + 1]) <= last) ++channel;
    return f.shades + 3 * (channel * DIVISOR + last - int(f.header->first_instance[channel]) + 1);
}

// Whether another code begins within `outline` pixels.
__device__ inline bool on_border(const Frame& f, int x, int y, int code) {
    const int right = min(x + f.outline, f.raw_w - 1), bottom = min(y + f.outline, f.raw_h - 1);
    for (int v = max(y - f.outline, 0); v <= bottom; ++v)
        for (int u = max(x - f.outline, 0); u <= right; ++u)
            if (code_at(f, u, v) != code) return true;
    return false;
}

// One native pixel per thread. Equal to cv2.addWeighted where that fuses its multiply-add, else within one grey level.
extern "C" __global__ void __launch_bounds__(256, 2) draw_overlay(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int x = int(blockIdx.x * blockDim.x + threadIdx.x), y = int(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= f.raw_w || y >= f.raw_h) return;
    const uint32_t pixel = native_pixel(f, x, y);
    const int code = code_at(f, x, y);
    const uint8_t* color = color_of(f, code);
    const bool whole = code >= f.labels && code < UNLABELLED && on_border(f, x, y, code);
    uint8_t* out = f.overlay + 3 * (size_t(y) * f.raw_w + x);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const float camera = float(channel_of(pixel, c)), tint = color ? float(__ldg(color + c)) : camera;
        const float mixed = whole ? tint : __fmaf_rn(camera, 0.55f, __fmul_rn(tint, 0.45f));
        out[c] = uint8_t(clamp8(__float2int_rn(mixed)));
    }
}
