// Segments -> instances: area and box in native pixels, score, which are kept, and their numbers (postprocess.py).
#pragma once
#include "grouping.cuh"

constexpr int STRIP = 16;  // map pixels of a row that one thread goes through
constexpr uint32_t MOST_INSTANCES = DIVISOR - 1;

// A stretch of one segment in a map row. What the camera does not see counts for the score alone.
__device__ inline void add_stretch(const Frame& f, int segment, int begin, int end, int y, uint32_t certainty) {
    Segment* s = f.segments + segment;
    atomicAdd(&s->size_and_certainty, (unsigned long long)(end - begin) << 32 | certainty);
    const int left = __ldg(f.x_starts + begin), right = __ldg(f.x_starts + end);
    const int top = __ldg(f.y_starts + y), bottom = __ldg(f.y_starts + y + 1);
    if (left >= right || top >= bottom) return;
    atomicAdd(&s->area, uint32_t((right - left) * (bottom - top)));
    lower(&s->first, uint32_t(y * f.map_w + begin));
    lower(&s->x_begin, left);
    raise(&s->x_end, right);
    lower(&s->y_begin, top);
    raise(&s->y_end, bottom);
}

// The geometric mean of the centre's heat and the mean confidence.
__device__ inline double score_of(const Segment* s) {
    const unsigned long long both = __ldcg(&s->size_and_certainty);
    const double size = double(max(uint32_t(both >> 32), 1u)), certainty = double(uint32_t(both));
    const double mean = __ddiv_rn(certainty, __dmul_rn(255.0, size));
    return __dsqrt_rn(__dmul_rn(double(fminf(fmaxf(s->heat, 0.0f), 1.0f)), mean));
}

__device__ inline bool comes_before(const Segment* a, const Segment* b) {
    const double mine = __ldcg(&a->score), other = __ldcg(&b->score);
    return mine > other || (mine == other && __ldcg(&a->first) < __ldcg(&b->first));
}

// By one block: judge the segments, number those kept by score within their class, and write their records.
__device__ inline void number_instances(const Frame& f) {
    __shared__ uint32_t kept, per_channel[CHANNELS], first[CHANNELS + 1];
    const int count = int(min(__ldcg(&f.state->segments), uint32_t(SEGMENTS)));
    for (int i = thread_number(); i < CHANNELS; i += thread_count()) per_channel[i] = 0;
    if (thread_number() == 0) kept = 0;
    __syncthreads();
    for (int i = 1 + thread_number(); i < count; i += thread_count()) {
        Segment* s = f.segments + i;
        s->score = score_of(s);
        s->value = PANOPTIC_UNLABELLED;
        if (__ldcg(&s->area) >= f.min_area && s->score >= f.score_threshold) {
            f.order[atomicAdd(&kept, 1u)] = uint32_t(i);
            atomicAdd(&per_channel[s->channel], 1u);
        }
    }
    __syncthreads();
    if (thread_number() == 0) {
        first[0] = 0;
        for (int i = 0; i < CHANNELS; ++i) first[i + 1] = first[i] + min(per_channel[i], MOST_INSTANCES);
        f.header->instances = first[CHANNELS];
        f.header->flags = __ldcg(&f.state->flags);
    }
    __syncthreads();
    for (int i = thread_number(); i <= CHANNELS; i += thread_count()) f.header->first_instance[i] = first[i];
    for (uint32_t i = uint32_t(thread_number()); i < kept; i += uint32_t(thread_count())) {
        Segment* s = f.segments + __ldcg(f.order + i);
        const int channel = s->channel;
        uint32_t rank = 0;
        for (uint32_t j = 0; j < kept; ++j) {
            const Segment* other = f.segments + __ldcg(f.order + j);
            rank += other->channel == channel && comes_before(other, s);
        }
        if (rank >= MOST_INSTANCES) continue;
        s->value = uint32_t(f.channel_class[channel] * DIVISOR) + rank + 1;
        const int x = __ldcg(&s->x_begin), y = __ldcg(&s->y_begin);
        f.instances[first[channel] + rank] = {s->value,           __ldcg(&s->area),        x, y, __ldcg(&s->x_end) - x,
                                              __ldcg(&s->y_end) - y, __ldcg(&s->score)};
    }
}

// One thread per strip of a map row.
extern "C" __global__ void __launch_bounds__(256) measure(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int strips = (f.map_w + STRIP - 1) / STRIP, at = int(blockIdx.x * blockDim.x + threadIdx.x);
    const int y = at / strips, x_begin = (at - y * strips) * STRIP;
    if (y >= f.win_y && y < f.win_y + f.win_h) {
        const int end = min(x_begin + STRIP, f.win_x + f.win_w);
        int segment = 0, begin = 0;
        uint32_t certainty = 0;
        for (int x = max(x_begin, f.win_x); x < end; ++x) {
            const size_t pixel = size_t(y) * f.map_w + x;
            const int channel = __ldg(f.class_channel + __ldg(f.semantic + pixel));
            const int mine = channel < CHANNELS ? segment_at(f, channel, x, y) : 0;
            if (mine != segment) {
                if (segment != 0) add_stretch(f, segment, begin, x, y, certainty);
                segment = mine;
                begin = x;
                certainty = 0;
            }
            certainty += __ldg(f.confidence + pixel);
        }
        if (segment != 0) add_stretch(f, segment, begin, end, y, certainty);
    }
    if (last_block(&f.state->measure_ticket)) number_instances(f);
}
