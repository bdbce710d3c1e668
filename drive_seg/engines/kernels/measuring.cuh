// Segments -> instances: area, box and sums of the core in native pixels, score, which are kept, and their numbers
// (postprocess.py).
#pragma once
#include "grouping.cuh"

constexpr int STRIP = 16;  // map pixels of a row that one thread goes through
constexpr uint32_t MOST_INSTANCES = DIVISOR - 1;

// To the sums of a segment, those over the pixels of a rectangle: 2 x, x^2, 2 y and y^2.
__device__ inline void add_sums(Segment* s, int left, int right, int top, int bottom) {
    const unsigned long long columns = right - left, rows = bottom - top, x2 = left + right - 1, y2 = top + bottom - 1;
    atomicAdd(&s->twice_x, columns * rows * x2);
    atomicAdd(&s->square_x, rows * (columns * (3 * x2 * x2 + columns * columns - 1) / 12));
    atomicAdd(&s->twice_y, columns * rows * y2);
    atomicAdd(&s->square_y, columns * (rows * (3 * y2 * y2 + rows * rows - 1) / 12));
}

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
    add_sums(s, left, right, top, bottom);
}

// (The centre's heat times the mean confidence) to the power of 3/4, by roots, which are exact everywhere.
__device__ inline double score_of(const Segment* s) {
    const unsigned long long both = __ldcg(&s->size_and_certainty);
    const double size = double(max(uint32_t(both >> 32), 1u)), certainty = double(uint32_t(both));
    const double mean = __ddiv_rn(certainty, __dmul_rn(255.0, size));
    const double root = __dsqrt_rn(__dmul_rn(double(fminf(fmaxf(s->heat, 0.0f), 1.0f)), mean));
    return __dmul_rn(root, __dsqrt_rn(root));
}

struct Standing {
    double score;
    uint32_t first;
    int32_t channel;
};

__device__ inline Standing standing_of(const Segment* s) {
    return {__ldcg(&s->score), __ldcg(&s->first), __ldcg(&s->channel)};
}

__device__ inline bool comes_before(const Standing& a, const Standing& b) {
    return a.channel == b.channel && (a.score > b.score || (a.score == b.score && a.first < b.first));
}

// By one block: judge the segments, number those kept by score within their class, and write their records.
__device__ inline void number_instances(const Frame& f) {
    __shared__ uint32_t kept, per_channel[CHANNELS], first[CHANNELS + 1];
    __shared__ Standing near[NEAR];
    const int count = int(min(__ldcg(&f.state->segments), uint32_t(SEGMENTS)));
    for (int i = thread_number(); i < CHANNELS; i += thread_count()) per_channel[i] = 0;
    if (thread_number() == 0) kept = 0;
    __syncthreads();
    for (int i = 1 + thread_number(); i < count; i += thread_count()) {
        Segment* s = f.segments + i;
        const double score = score_of(s);
        s->score = score;
        s->value = PANOPTIC_UNLABELLED;
        if (__ldcg(&s->area) < f.min_area || !(score >= f.score_threshold)) continue;
        const uint32_t place = atomicAdd(&kept, 1u);
        f.order[place] = uint32_t(i);
        if (place < NEAR) near[place] = {score, __ldcg(&s->first), s->channel};
        atomicAdd(&per_channel[s->channel], 1u);
    }
    __syncthreads();
    if (thread_number() == 0) {
        first[0] = 0;
        for (int i = 0; i < CHANNELS; ++i) first[i + 1] = first[i] + min(per_channel[i], MOST_INSTANCES);
        f.header->instances = first[CHANNELS];
        f.header->flags = __ldcg(&f.state->flags);
    }
    __syncthreads();
    const auto standing = [&](uint32_t i) { return i < NEAR ? near[i] : standing_of(f.segments + __ldcg(f.order + i)); };
    for (int i = thread_number(); i <= CHANNELS; i += thread_count()) f.header->first_instance[i] = first[i];
    for (uint32_t i = uint32_t(thread_number()); i < kept; i += uint32_t(thread_count())) {
        Segment* s = f.segments + __ldcg(f.order + i);
        const Standing mine = standing(i);
        uint32_t rank = 0;
        for (uint32_t j = 0; j < kept; ++j) rank += comes_before(standing(j), mine);
        if (rank >= MOST_INSTANCES) continue;
        s->value = uint32_t(f.channel_class[mine.channel] * DIVISOR) + rank + 1;
        const int x = __ldcg(&s->x_begin), y = __ldcg(&s->y_begin);
        const int width = __ldcg(&s->x_end) - x, height = __ldcg(&s->y_end) - y;
        f.instances[first[mine.channel] + rank] = {
            s->value, __ldcg(&s->area), x, y, width, height, mine.score,
            __ldcg(&s->twice_x), __ldcg(&s->square_x), __ldcg(&s->twice_y), __ldcg(&s->square_y)};
    }
}

// One thread per strip of a map row. Four pixels are looked up at a time, so that their loads overlap.
extern "C" __global__ void __launch_bounds__(256, 2) measure(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int strips = (f.map_w + STRIP - 1) / STRIP, at = int(blockIdx.x * blockDim.x + threadIdx.x);
    const int y = at / strips, begin_x = (at - y * strips) * STRIP, end_x = min(begin_x + STRIP, f.win_x + f.win_w);
    if (y >= f.win_y && y < f.win_y + f.win_h) {
        int segment = 0, begin = 0;
        uint32_t certainty = 0;
        for (int x = max(begin_x, f.win_x); x < end_x; x += 4) {
            unsigned long long owners = 0;  // 16 bits each
            uint32_t sure = 0;              // 8 bits each
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (x + i >= end_x) break;
                const size_t pixel = size_t(y) * f.map_w + x + i;
                const int channel = __ldg(f.class_channel + __ldg(f.semantic + pixel));
                sure |= uint32_t(__ldg(f.confidence + pixel)) << 8 * i;
                if (channel < CHANNELS) owners |= (unsigned long long)(segment_at(f, channel, x + i, y)) << 16 * i;
            }
#pragma unroll 1
            for (int i = 0; i < 4; ++i) {
                const int mine = int(owners & 0xffff);
                if (mine != segment) {
                    if (segment != 0) add_stretch(f, segment, begin, x + i, y, certainty);
                    segment = mine;
                    begin = x + i;
                    certainty = 0;
                }
                certainty += sure & 255;
                owners >>= 16;
                sure >>= 8;
            }
        }
        if (segment != 0) add_stretch(f, segment, begin, end_x, y, certainty);
    }
    if (last_block(&f.state->measure_ticket)) number_instances(f);
}
