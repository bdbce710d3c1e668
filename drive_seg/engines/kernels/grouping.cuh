// Cells of thing classes -> segments (postprocess.group): each joins the nearest centre of its class by its offset, or,
// where no cell of its connected component votes near a centre, that component.
#pragma once
#include "blocks.cuh"

// A vote is near a centre if its distance squared is at most this, and this share of the offset's length squared.
constexpr float NEAR_SQUARED = 16.0f * 16.0f, NEAR_SHARE_SQUARED = 0.5f * 0.5f;

constexpr int NEAR = 256;  // candidates, and instances, that the block which sorts them holds in shared memory

__device__ inline void start_segment(Segment* segment, float heat, int channel) {
    Segment fresh = {};
    fresh.first = fresh.value = 0xffffffffu;
    fresh.x_begin = fresh.y_begin = 0x7fffffff;
    fresh.heat = heat;
    fresh.channel = channel;
    *segment = fresh;
}

// Whether a pixel of the class lies in the cell, inside the letterbox's content.
__device__ inline bool is_needed(const Frame& f, int channel, int cell) {
    const int class_id = __ldg(f.channel_class + channel), row = cell / f.cell_w, column = cell - row * f.cell_w;
    const int x_begin = max(__ldg(f.cell_columns + column), f.win_x);
    const int x_end = min(__ldg(f.cell_columns + column + 1), f.win_x + f.win_w);
    const int y_begin = max(__ldg(f.cell_rows + row), f.win_y);
    const int y_end = min(__ldg(f.cell_rows + row + 1), f.win_y + f.win_h);
    for (int y = y_begin; y < y_end; ++y)
        for (int x = x_begin; x < x_end; ++x)
            if (__ldg(f.semantic + size_t(y) * f.map_w + x) == class_id) return true;
    return false;
}

// Sorts by heat first, then against the index: of equal heats the first cell is the strongest. No two are equal.
__device__ inline unsigned long long candidate_key(float heat, uint32_t index) {
    const uint32_t bits = __float_as_uint(__fadd_rn(heat, 0.0f));  // -0 becomes 0
    const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (unsigned long long)(ordered) << 32 | ~index;
}

__device__ inline uint32_t candidate_index(unsigned long long key) { return ~uint32_t(key); }

// By one block: the `max_centers` strongest candidates become segments 1, 2, ... in the order of channel and cell. The
// candidates arrive in any order; their ranks do not depend on it.
__device__ inline void select_centers(const Frame& f, int cells) {
    __shared__ unsigned long long cutoff, near[NEAR];
    const int found = int(__ldcg(&f.state->candidates)), count = min(found, CANDIDATES);
    const int kept = min(count, f.max_centers);
    const auto key = [&](int i) { return i < NEAR ? near[i] : __ldcg(f.candidates + i); };
    for (int i = thread_number(); i < min(count, NEAR); i += thread_count()) near[i] = __ldcg(f.candidates + i);
    if (thread_number() == 0) cutoff = kept == 0 ? ~0ull : 0ull;
    __syncthreads();
    if (kept > 0 && kept < count)
        for (int i = thread_number(); i < count; i += thread_count()) {
            const unsigned long long mine = key(i);
            int stronger = 0;
            for (int j = 0; j < count; ++j) stronger += key(j) > mine;
            if (stronger == kept - 1) cutoff = mine;
        }
    __syncthreads();
    // How many of the kept come before a channel and cell.
    const auto before = [&](uint32_t index) {
        int sum = 0;
        for (int j = 0; j < count; ++j) sum += key(j) >= cutoff && candidate_index(key(j)) < index;
        return sum;
    };
    for (int i = thread_number(); i < count; i += thread_count()) {
        if (key(i) < cutoff) continue;
        const uint32_t index = candidate_index(key(i));
        const int segment = 1 + before(index), channel = int(index) / cells;
        const int cell = int(index) - channel * cells, row = cell / f.cell_w;
        start_segment(f.segments + segment, f.centers[index], channel);
        f.peak_x[segment] = f.middle_x[cell - row * f.cell_w];
        f.peak_y[segment] = f.middle_y[row];
    }
    for (int channel = thread_number(); channel <= f.channels; channel += thread_count())
        f.state->first_peak[channel] = uint32_t(1 + before(uint32_t(channel * cells)));
    if (thread_number() == 0) {
        start_segment(f.segments, 0.0f, 0);
        f.segments[0].value = PANOPTIC_UNLABELLED;
        f.state->segments = uint32_t(1 + kept);
        f.state->flags = found > CANDIDATES ? TOO_MANY_CANDIDATES : 0;
        f.state->candidates = 0;
    }
}

// One thread per thing class and cell.
extern "C" __global__ void __launch_bounds__(256, 2) find_centers(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int cells = f.cell_w * f.cell_h, at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at < cells * f.channels) {
        const int channel = at / cells;
        f.parent[at] = at;
        f.claimed[at] = 0;
        f.grid[at] = is_needed(f, channel, at - channel * cells) ? -1 : 0;
        const float heat = __ldg(f.centers + at);
        if (heat >= f.center_threshold) {
            const uint32_t place = atomicAdd(&f.state->candidates, 1u);
            if (place < CANDIDATES) f.candidates[place] = candidate_key(heat, uint32_t(at));
        }
    }
    if (last_block(&f.state->find_ticket)) select_centers(f, cells);
}

__device__ inline int root_of(int* parent, int at) {
    for (int above = __ldcg(parent + at); above != at; above = __ldcg(parent + at)) at = above;
    return at;
}

// Links the higher root below the lower one. Parents only ever fall, so that it needs no lock.
__device__ inline void unite(int* parent, int a, int b) {
    for (;;) {
        a = root_of(parent, a);
        b = root_of(parent, b);
        if (a == b) return;
        const int high = max(a, b), low = min(a, b);
        const int before = atomicMin(parent + high, low);
        if (before == high) return;
        a = before;
        b = low;
    }
}

// One thread per thing class and cell.
extern "C" __global__ void __launch_bounds__(256, 2) assign_cells(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int cells = f.cell_w * f.cell_h, at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= cells * f.channels || f.grid[at] == 0) return;
    const int channel = at / cells, cell = at - channel * cells, row = cell / f.cell_w, column = cell - row * f.cell_w;
    const int begin = int(f.state->first_peak[channel]), end = int(f.state->first_peak[channel + 1]);
    if (begin < end) {
        const float to_y = __ldg(f.offsets + cell), to_x = __ldg(f.offsets + cells + cell);
        const float y = __fadd_rn(f.middle_y[row], to_y), x = __fadd_rn(f.middle_x[column], to_x);
        int nearest = begin;
        float least = 0.0f;
        for (int peak = begin; peak < end; ++peak) {
            const float dy = __fsub_rn(y, f.peak_y[peak]), dx = __fsub_rn(x, f.peak_x[peak]);
            const float distance = __fadd_rn(__fmul_rn(dy, dy), __fmul_rn(dx, dx));
            if (peak == begin || distance < least) {
                nearest = peak;
                least = distance;
            }
        }
        const float length = __fadd_rn(__fmul_rn(to_y, to_y), __fmul_rn(to_x, to_x));
        const bool near = least <= __fadd_rn(NEAR_SQUARED, __fmul_rn(NEAR_SHARE_SQUARED, length));
        f.grid[at] = near ? nearest : -1 - nearest;
    }
    if (column > 0 && f.grid[at - 1] != 0) unite(f.parent, at, at - 1);
    if (row == 0) return;
    for (int x = max(column - 1, 0); x <= min(column + 1, f.cell_w - 1); ++x) {
        const int above = at - column + x - f.cell_w;
        if (f.grid[above] != 0) unite(f.parent, at, above);
    }
}

// One thread per thing class and cell: a cell that votes near a centre claims its whole component for the centres.
extern "C" __global__ void __launch_bounds__(256, 2) claim_components(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int cells = f.cell_w * f.cell_h, at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at < cells * f.channels && f.grid[at] > 0) f.claimed[root_of(f.parent, at)] = 1;
}

// One thread per thing class and cell: cells of claimed components join their nearest centres, the other components
// become segments, behind those of the centres. In what order does not matter, since instances are numbered by score
// and place.
extern "C" __global__ void __launch_bounds__(256, 2) number_components(const Frame* frames) {
    const Frame f = frames[blockIdx.z];
    const int cells = f.cell_w * f.cell_h, at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= cells * f.channels || f.grid[at] >= 0) return;
    const int root = root_of(f.parent, at);
    f.parent[at] = root;
    if (f.claimed[root]) {
        f.grid[at] = -1 - f.grid[at];
        return;
    }
    if (root != at) return;
    const uint32_t segment = atomicAdd(&f.state->segments, 1u);
    if (segment < SEGMENTS) {
        start_segment(f.segments + segment, f.center_threshold, at / cells);
        f.grid[at] = int(segment);
    } else {
        f.grid[at] = 0;
        atomicOr(&f.state->flags, TOO_MANY_SEGMENTS);
    }
}

// The segment of a map pixel of a thing class.
__device__ inline int segment_at(const Frame& f, int channel, int x, int y) {
    const int cell = __ldg(f.row_cell + y) * f.cell_w + __ldg(f.column_cell + x);
    const int at = channel * f.cell_w * f.cell_h + cell, segment = f.grid[at];
    return segment < 0 ? f.grid[f.parent[at]] : segment;
}
