// The launch of the replay kernel; the plugin needs nothing else of CUDA code.
#pragma once

#include "roi_replay.h"

#include <cuda_runtime_api.h>

namespace gar
{

enum class FeatureType
{
    kFloat32,
    kFloat16,
    kBfloat16,
};

// Enqueue the replay of all regions: one launch, no workspace.
//
// features [tiles, side * side, channels], thumbnail first; grid: two int64 on the device (columns, rows), with
// columns * rows == tiles - 1; boxes [regions, 4] float32 (x1, y1, x2, y2), fractions of the image;
// out [regions, side * side, channels]. A grid that does not fit the tiles gives zeros, never a read out of bounds.
cudaError_t launchRoiReplay(FeatureType type, void const* features, int64_t const* grid, float const* boxes, void* out,
    ReplayShape const& shape, cudaStream_t stream);

}  // namespace gar
