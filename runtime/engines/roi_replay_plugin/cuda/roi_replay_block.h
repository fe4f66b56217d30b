// What one block of the replay kernel does: one output token of one region, its threads walking the channels.
//
// Neighbouring bins touch the same cells, so beyond the first touch reads come from L2: the floor is reading each
// touched cell once and writing the output once.
#pragma once

#include "roi_replay.h"

namespace gar
{

constexpr int kLoadBytes = 16;
constexpr int kMaxThreads = 256;
constexpr int kWarp = 32;

// Elements in one load.
template <typename T>
constexpr int kWide = kLoadBytes / static_cast<int>(sizeof(T));

// Threads of a block: one for each 16 bytes of a token, in whole warps. Any number up to kMaxThreads is right.
template <typename T>
GAR_HOST_DEVICE constexpr int blockThreads(int channels)
{
    int const packs = (channels + kWide<T> - 1) / kWide<T>;
    int const rounded = (packs + kWarp - 1) / kWarp * kWarp;
    return rounded < kMaxThreads ? rounded : kMaxThreads;
}

GAR_DEVICE bool aligned(void const* pointer)
{
    return reinterpret_cast<uintptr_t>(pointer) % kLoadBytes == 0;
}

// kWidth channels at a time: thread `thread` of `threads` takes its share.
template <typename T, int kWidth>
GAR_DEVICE void replayChannels(T const* features, ReplayShape const& shape, int columns, int rows, float const* box,
    int token, T* target, int thread, int threads)
{
    for (int channel = thread * kWidth; channel < shape.channels; channel += threads * kWidth)
    {
        *reinterpret_cast<Pack<T, kWidth>*>(target + channel)
            = replayToken<T, kWidth>(features, shape, columns, rows, box, token, channel);
    }
}

// Block `block` of regions * side * side. features [tiles, side * side, channels]; grid: columns and rows, with
// columns * rows == tiles - 1; boxes [regions, 4]; out [regions, side * side, channels]. A grid that does not fit the
// tiles gives zeros, never a read out of bounds.
template <typename T>
GAR_DEVICE void replayBlock(T const* features, int64_t const* grid, float const* boxes, T* out,
    ReplayShape const& shape, int block, int thread, int threads)
{
    int const tokens = shape.side * shape.side;
    float const* box = boxes + static_cast<int64_t>(block / tokens) * 4;
    int const token = block % tokens;
    T* target = out + static_cast<int64_t>(block) * shape.channels;
    int64_t const columns = grid[0];
    int64_t const rows = grid[1];
    bool const fits = columns > 0 && columns < shape.tiles && rows > 0 && rows < shape.tiles
        && columns * rows == shape.tiles - 1;
    if (!fits)
    {
        for (int channel = thread; channel < shape.channels; channel += threads)
        {
            target[channel] = fromFloat<T>(0.0F);
        }
        return;
    }
    int const width = static_cast<int>(columns);
    int const height = static_cast<int>(rows);
    if (shape.channels % kWide<T> == 0 && aligned(features) && aligned(out))
    {
        replayChannels<T, kWide<T>>(features, shape, width, height, box, token, target, thread, threads);
    }
    else
    {
        replayChannels<T, 1>(features, shape, width, height, box, token, target, thread, threads);
    }
}

}  // namespace gar
