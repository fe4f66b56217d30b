// The launch of the replay kernel; the plugin needs nothing else of CUDA code.
#pragma once

#include "replay_shape.h"

#include <cuda_runtime_api.h>

#include <cstdint>

namespace gar
{

enum class FeatureType
{
    kFloat32,
    kFloat16,
    kBfloat16,
};

// Enqueue the replay of all regions: one launch, no workspace. All pointers are the device's; see replayBlock in
// roi_replay_block.h for their shapes. Refused: no tile beside the thumbnail, more than 2^31 - 1 tokens to make.
cudaError_t launchRoiReplay(FeatureType type, void const* features, int64_t const* grid, float const* boxes, void* out,
    ReplayShape const& shape, int regions, cudaStream_t stream);

}  // namespace gar
