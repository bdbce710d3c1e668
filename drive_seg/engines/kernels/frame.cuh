// What every kernel is told: one Frame per image of the batch, image n being blockIdx.z.
// The host writes Frames as numpy records (layout.py); a test compares the two layouts field by field.
#pragma once

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

constexpr int SEGMENTS = 4096;    // peaks + connected components of one image, row 0 being "no segment"
constexpr int CANDIDATES = 4096;  // peaks of one image before the strongest are taken
constexpr int CHANNELS = 64;      // thing classes; ids above 64 do not fit the panoptic map
constexpr int MAX_HALVINGS = 4;   // native images up to 32 times the network's size
constexpr int SHARES = 16;        // parts of a map pixel (letterbox.py)
constexpr int DIVISOR = 1000;
constexpr int UNLABELLED = 255;
constexpr int PANOPTIC_UNLABELLED = 65535;

constexpr uint32_t TOO_MANY_CANDIDATES = 1;
constexpr uint32_t TOO_MANY_SEGMENTS = 2;

enum Packing { PACKED = 0, YUV422 = 1, TWO_PLANES = 2, BAYER = 3 };

// The source columns (or rows) under one column of the scaled image, and the weights of the first, of those between and
// of the last. Where pixels are interpolated there are two, or one twice, and the weights are in 1/2048.
struct Tap {
    int32_t first, last;
    float w_first, w_between, w_last;
};

struct Segment {
    unsigned long long size_and_certainty;  // map pixels << 32 | sum of their confidence
    uint32_t area;                          // native pixels
    uint32_t first;                         // smallest raster index of a pixel that the camera sees
    int32_t x_begin, x_end, y_begin, y_end; // native, the ends excluded
    unsigned long long twice_x, square_x, twice_y, square_y;  // sums over native pixels (cores.py)
    float heat;
    int32_t channel;
    uint32_t value;                         // panoptic id, or 65535
    uint32_t padding;
    double score;
};

// Scratch that is zero before the first frame, and that every frame leaves as the next one needs it.
struct State {
    uint32_t candidates;     // found so far; 0 between frames
    uint32_t find_ticket;    // blocks of find_centers that are done; 0 between frames
    uint32_t measure_ticket; // likewise
    uint32_t segments;       // rows in use, row 0 included
    uint32_t flags;
    uint32_t first_peak[CHANNELS + 1];  // segments first_peak[c] .. first_peak[c + 1] - 1 are the peaks of class c
};

struct Instance {
    uint32_t panoptic_id;
    uint32_t area;
    int32_t x, y, width, height;
    double score;
    unsigned long long twice_x, square_x, twice_y, square_y;
};

struct Header {
    uint32_t instances;  // records that follow
    uint32_t flags;
    uint32_t first_instance[CHANNELS + 1];  // records first_instance[c] .. belong to thing class c
    uint32_t padding;
};

struct Frame {
    // Preprocessing.
    const uint8_t* raw;  // the camera's bytes
    uint8_t* input;      // (net_h, net_w, 3) RGB
    const Tap* taps_x;   // (content_w)
    const Tap* taps_y;   // (content_h)
    // What the network said.
    const uint8_t* semantic;    // (map_h, map_w)
    const uint8_t* confidence;  // (map_h, map_w)
    const float* centers;       // (channels, cell_h, cell_w)
    const float* offsets;       // (2, cell_h, cell_w): dy, dx in network pixels
    // Tables of the geometry.
    const int32_t* x_starts;     // (map_w + 1) first native column sampled from each map column
    const int32_t* y_starts;     // (map_h + 1)
    const int32_t* column_cell;  // (map_w) the cell of each map column
    const int32_t* row_cell;     // (map_h)
    const int32_t* cell_columns; // (cell_w + 1) first map column of each cell
    const int32_t* cell_rows;    // (cell_h + 1)
    const float* middle_x;       // (cell_w) network coordinate of each cell's middle
    const float* middle_y;       // (cell_h)
    const int32_t* out_columns;  // (out_w) where the middle of each column of the result lies: 2 SHARES * map column +
                                 // SHARES / 2 + parts to the right of that column's middle
    const int32_t* out_rows;     // (out_h)
    const int32_t* view_columns; // (raw_w) the column of the result that each overlay column shows
    const int32_t* view_rows;    // (raw_h)
    const uint8_t* class_channel;  // (256) thing class -> channel, else 255
    const uint8_t* channel_class;  // (CHANNELS) and back
    const uint8_t* colors;         // (256, 3) by class id
    const uint8_t* shades;         // (channels, 1000, 3) by instance number
    const uint8_t* leads;          // (256) by confidence: how far a class is ahead of the next one (outlines.py)
    // Scratch.
    State* state;
    unsigned long long* candidates;  // (CANDIDATES)
    Segment* segments;               // (SEGMENTS)
    float* peak_x;                   // (SEGMENTS)
    float* peak_y;                   // (SEGMENTS)
    int32_t* grid;                   // (channels, cell_h, cell_w): segment, 0 none, below 0 part of a component:
                                     // -1, or -1 - the segment that is nearest and too far
    int32_t* parent;                 // (channels, cell_h, cell_w): union-find of the components
    uint8_t* claimed;                // (channels, cell_h, cell_w): at roots, whether a cell is near a centre
    uint32_t* order;                 // (SEGMENTS) segments that are kept
    // Results.
    uint8_t* mask;            // (out_h, out_w)
    uint16_t* panoptic;       // (out_h, out_w)
    uint8_t* out_confidence;  // (out_h, out_w), or null
    Header* header;
    Instance* instances;      // (SEGMENTS)
    uint8_t* overlay;         // (raw_h, raw_w, 3) RGB

    double score_threshold;
    float center_threshold;
    uint32_t min_area;  // at least 1
    int32_t max_centers;

    int32_t packing, raw_w, raw_h, raw_step;
    int32_t pixel_bytes;  // PACKED: from pixel to pixel
    int32_t at0, at1, at2;  // PACKED: bytes of R, G, B; YUV: of Y (YUV422), U, V; BAYER: row and column parity of red
    int32_t net_w, net_h, x0, y0, content_w, content_h;
    int32_t halvings;      // how often the image is first halved by 2 x 2 means
    int32_t interpolated;  // whether what follows interpolates; else it takes weighed sums
    int32_t mean_of;       // by which those are divided: the pixels of a mean of whole pixels, else 1

    int32_t map_w, map_h;
    int32_t win_x, win_y, win_w, win_h;  // map pixels that hold content
    int32_t cell_w, cell_h, channels, labels;
    int32_t out_w, out_h;
    int32_t moved;       // whether borders of stuff run between the middles of map pixels
    int32_t outline;     // half width of instance borders in the overlay
    int32_t background;  // class that the overlay leaves alone, or -1
};
