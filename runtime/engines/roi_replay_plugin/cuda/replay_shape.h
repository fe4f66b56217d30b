// Sizes of one replay: all that code outside the kernel needs to know.
#pragma once

namespace gar
{

constexpr int kSamples = 2;  // RoIAlign's sampling_ratio

// Features are [tiles, side * side, channels], the thumbnail first.
struct ReplayShape
{
    int tiles;
    int side;      // tokens along a tile's side
    int channels;
    float scale;   // multiplies the box in cells once more (1/28 in released checkpoints)
};

}  // namespace gar
