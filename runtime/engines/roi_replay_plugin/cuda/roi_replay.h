// Feature replay for one output token: RoIAlign out of the merged tile map, without the map.
//
// The same code runs as a CUDA device function and as plain C++, so that its arithmetic is tested on any machine.
// Coordinates, weights and sums are float32 whatever the features' type. The formula is torchvision's RoIAlign with
// sampling_ratio 2 and aligned = true (ROIAlign_cpu.cpp), whose average is separable: two samples an axis with two
// neighbours each make four taps, and the token is their outer product's weighted sum.
#pragma once

#include "element.h"
#include "replay_shape.h"

namespace gar
{

constexpr int kTaps = 2 * kSamples;  // cells that one bin touches along an axis

// Where one bin looks along one axis: cells and their weights, which sum to at most 1.
struct AxisTaps
{
    int cell[kTaps];
    float weight[kTaps];
};

// A product that is rounded before anything is added to it. Contracted to a fused multiply-add, coordinates of large
// maps would differ from the reference's by enough to show in float32 features.
GAR_DEVICE float product(float a, float b)
{
#if defined(__CUDACC__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// Taps of one bin. begin, end: the box's edges as fractions of the image; length: cells along the axis.
GAR_DEVICE AxisTaps axisTaps(float begin, float end, int length, int bin, int bins, float scale)
{
    float const cells = static_cast<float>(length);
    float const start = product(begin, cells);
    float const first = product(start, scale) - 0.5F;
    float const binSize = product(product(end, cells) - start, scale) / static_cast<float>(bins);
    AxisTaps taps{};
    for (int sample = 0; sample < kSamples; ++sample)
    {
        float const step = (static_cast<float>(bin * kSamples + sample) + 0.5F) / kSamples;
        float const at = first + product(binSize, step);
        // Written so that NaN, too, is outside.
        bool const inside = at >= -1.0F && at <= cells;
        float const last = cells - 1.0F;
        float const clamped = !inside || at < 0.0F ? 0.0F : (at > last ? last : at);
        int const low = static_cast<int>(clamped);
        float const fraction = clamped - static_cast<float>(low);
        float const share = inside ? 1.0F / kSamples : 0.0F;
        taps.cell[2 * sample] = low;
        taps.weight[2 * sample] = (1.0F - fraction) * share;
        taps.cell[2 * sample + 1] = low + 1 < length ? low + 1 : length - 1;
        taps.weight[2 * sample + 1] = fraction * share;
    }
    return taps;
}

// Index of a merged map's cell among the tile features' tokens: the tile merge, as arithmetic.
GAR_DEVICE int64_t tokenOfCell(int y, int x, int columns, int side)
{
    int const tile = 1 + y / side * columns + x / side;
    return (static_cast<int64_t>(tile) * side + y % side) * side + x % side;
}

// kWidth neighbouring channels, loaded and stored at once.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack
{
    T value[kWidth];
};

// Channels [channel, channel + kWidth) of output token `token` of a region whose box is `box` (x1, y1, x2, y2).
template <typename T, int kWidth>
GAR_DEVICE Pack<T, kWidth> replayToken(T const* features, ReplayShape const& shape, int columns, int rows,
    float const* box, int token, int channel)
{
    AxisTaps const ys = axisTaps(box[1], box[3], rows * shape.side, token / shape.side, shape.side, shape.scale);
    AxisTaps const xs = axisTaps(box[0], box[2], columns * shape.side, token % shape.side, shape.side, shape.scale);
    float sum[kWidth] = {};
    for (int i = 0; i < kTaps; ++i)
    {
        for (int j = 0; j < kTaps; ++j)
        {
            float const weight = ys.weight[i] * xs.weight[j];
            if (weight == 0.0F)
            {
                continue;  // the same for a whole block: a load saved, no thread diverges
            }
            int64_t const source = tokenOfCell(ys.cell[i], xs.cell[j], columns, shape.side);
            auto const* pack = reinterpret_cast<Pack<T, kWidth> const*>(features + source * shape.channels + channel);
            Pack<T, kWidth> const loaded = *pack;
            for (int c = 0; c < kWidth; ++c)
            {
                sum[c] += weight * toFloat(loaded.value[c]);
            }
        }
    }
    Pack<T, kWidth> out;
    for (int c = 0; c < kWidth; ++c)
    {
        out.value[c] = fromFloat<T>(sum[c]);
    }
    return out;
}

}  // namespace gar
