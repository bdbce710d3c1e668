// The answer: maps in the resolution asked for (letterbox.restore), and the overlay's colours (overlay.py).
#pragma once
#include "camera.cuh"
#include "grouping.cuh"

__device__ inline bool is_stuff(const Frame& f, int class_id) {
    return class_id < f.labels && __ldg(f.class_channel + class_id) >= CHANNELS;
}

// A column or row of the result: the map column or row it lies in, and parts to the right of or below its middle.
struct Place {
    int at, share;
};

__device__ inline Place place_of(int packed) {
    return {packed / (2 * SHARES), packed % (2 * SHARES) - SHARES / 2};
}

// The class of a pixel at this place of the map, where the logits around it are interpolated (outlines.py).
__device__ inline int class_between(const Frame& f, int own, Place row, Place column) {
    const bool edge = row.at <= f.win_y || row.at >= f.win_y + f.win_h - 1 || column.at <= f.win_x || column.at >= f.win_x + f.win_w - 1;
    if (!f.moved || edge || !is_stuff(f, own)) return own;
    const size_t pixel = size_t(row.at) * f.map_w + column.at;
    const uint8_t *classes = f.semantic + pixel, *confidence = f.confidence + pixel;
    const int sides[4] = {-f.map_w, f.map_w, -1, 1};
    int strongest = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int theirs = __ldg(classes + sides[i]);
        if (theirs != own) strongest = max(strongest, int(__ldg(f.leads + __ldg(confidence + sides[i]))) << 8 | theirs);
    }
    const int other = strongest & 255;
    if (!strongest || !is_stuff(f, other)) return own;
    auto ahead = [&](int step) {
        const int theirs = __ldg(classes + step);
        const int lead = __ldg(f.leads + __ldg(confidence + step));
        return theirs == other ? lead : theirs == own ? -lead : 0;
    };
    const int down = row.share > 0 ? f.map_w : -f.map_w, across = column.share > 0 ? 1 : -1;
    const int far_y = abs(row.share), far_x = abs(column.share);
    const int here = (SHARES - far_y) * ahead(0) + far_y * ahead(down);
    const int there = (SHARES - far_y) * ahead(across) + far_y * ahead(down + across);
    return (SHARES - far_x) * here + far_x * there > 0 ? other : own;
}

// Four pixels of a row per thread; mask, panoptic ids and confidence in one pass, as whole words where rows allow it.
extern "C" __global__ void __launch_bounds__(256, 2) write_maps(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int x = 4 * int(blockIdx.x * blockDim.x + threadIdx.x), y = int(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= f.out_w || y >= f.out_h) return;
    const Place row = place_of(__ldg(f.out_rows + y));
    uint32_t mask = 0, confidence = 0;
    unsigned long long panoptic = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + i >= f.out_w) break;
        const Place column = place_of(__ldg(f.out_columns + x + i));
        const size_t pixel = size_t(row.at) * f.map_w + column.at;
        const int class_id = class_between(f, __ldg(f.semantic + pixel), row, column);
        const int channel = __ldg(f.class_channel + class_id);
        uint32_t label = class_id < f.labels ? class_id : UNLABELLED;
        uint32_t id = class_id < f.labels ? class_id : PANOPTIC_UNLABELLED;
        if (channel < CHANNELS) {
            id = f.segments[segment_at(f, channel, column.at, row.at)].value;
            if (id == PANOPTIC_UNLABELLED) label = UNLABELLED;
        }
        mask |= label << 8 * i;
        panoptic |= (unsigned long long)id << 16 * i;
        if (f.out_confidence) confidence |= uint32_t(__ldg(f.confidence + pixel)) << 8 * i;
    }
    const size_t at = size_t(y) * f.out_w + x;
    if (f.out_w % 4 == 0) {
        *reinterpret_cast<uint32_t*>(f.mask + at) = mask;
        *reinterpret_cast<unsigned long long*>(f.panoptic + at) = panoptic;
        if (f.out_confidence) *reinterpret_cast<uint32_t*>(f.out_confidence + at) = confidence;
        return;
    }
    for (int i = 0; i < 4 && x + i < f.out_w; ++i) {
        f.mask[at + i] = uint8_t(mask >> 8 * i);
        f.panoptic[at + i] = uint16_t(panoptic >> 16 * i);
        if (f.out_confidence) f.out_confidence[at + i] = uint8_t(confidence >> 8 * i);
    }
}

// The overlay counts instances over all classes and gives each a code behind the classes; past 254 they have their
// class's code. So has, in maps of network size, a pixel outside of its instance's box.
__device__ inline int code_at(const Frame& f, int x, int y) {
    const size_t pixel = size_t(__ldg(f.view_rows + y)) * f.out_w + __ldg(f.view_columns + x);
    const int class_id = f.mask[pixel], channel = __ldg(f.class_channel + class_id);
    if (channel >= CHANNELS) return class_id;
    const int index = int(f.header->first_instance[channel]) + f.panoptic[pixel] - class_id * DIVISOR - 1;
    if (index >= UNLABELLED - f.labels) return class_id;
    const Instance* box = f.instances + index;
    const bool inside = x >= box->x && x < box->x + box->width && y >= box->y && y < box->y + box->height;
    return inside ? f.labels + index : class_id;
}

__device__ inline const uint8_t* color_of(const Frame& f, int code) {
    if (code == UNLABELLED || code == f.background) return nullptr;
    if (code < f.labels) return f.colors + 3 * code;
    const int index = code - f.labels;
    int channel = 0;
    while (int(f.header->first_instance[channel + 1]) <= index) ++channel;
    return f.shades + 3 * (channel * DIVISOR + index - int(f.header->first_instance[channel]) + 1);
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
