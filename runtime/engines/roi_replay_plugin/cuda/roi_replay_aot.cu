// The replay kernel as TensorRT's ahead-of-time plugins launch it: inputs, then int32 extras, then the output.
//
// What such a plugin cannot pass, or what never changes in an engine, is defined when this is compiled:
//   GAR_ELEMENT        float, gar::Half or gar::Bfloat16
//   GAR_OUTPUT_SIZE    tokens along a tile's side
//   GAR_SPATIAL_SCALE  float32, multiplies the box in cells once more
// Launch: regions * GAR_OUTPUT_SIZE * GAR_OUTPUT_SIZE blocks, no shared memory.
#include "roi_replay_block.h"

extern "C" __global__ void __launch_bounds__(gar::kMaxThreads) gar_roi_replay(
    GAR_ELEMENT const* __restrict__ features, gar::int64_t const* __restrict__ grid, float const* __restrict__ boxes,
    int tiles, int channels, GAR_ELEMENT* __restrict__ out)
{
    gar::ReplayShape const shape{tiles, GAR_OUTPUT_SIZE, channels, GAR_SPATIAL_SCALE};
    gar::replayBlock<GAR_ELEMENT>(features, grid, boxes, out, shape, static_cast<int>(blockIdx.x),
        static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
}
