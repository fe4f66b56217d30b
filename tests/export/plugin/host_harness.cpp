// The kernel that TensorRT's ahead-of-time plugins launch, as a shared library for the CPU: its launch is two loops.
//
// GAR_ELEMENT is given when this is compiled. GAR_OUTPUT_SIZE and GAR_SPATIAL_SCALE may be; if not, a run sets them.
#include "roi_replay_block.h"

namespace
{

struct Index
{
    unsigned x;
};

Index blockIdx;
Index threadIdx;
Index blockDim;

#ifndef GAR_OUTPUT_SIZE
int outputSize = 0;
float spatialScale = 0.0F;
#define GAR_OUTPUT_SIZE outputSize
#define GAR_SPATIAL_SCALE spatialScale
#define GAR_SET(size, scale) (outputSize = (size), spatialScale = (scale))
#else
#define GAR_SET(size, scale) (static_cast<void>(size), static_cast<void>(scale))
#endif

}  // namespace

#define __global__
#define __launch_bounds__(threads)
#include "roi_replay_aot.cu"

extern "C" void launch(unsigned blocks, unsigned threads, GAR_ELEMENT const* features, int64_t const* grid,
    float const* boxes, int tiles, int channels, GAR_ELEMENT* out, int size, float scale)
{
    GAR_SET(size, scale);
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    {
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
        {
            gar_roi_replay(features, grid, boxes, tiles, channels, out);
        }
    }
}

extern "C" float spatial_scale()
{
    return GAR_SPATIAL_SCALE;
}

extern "C" int block_threads(int channels)
{
    return gar::blockThreads<GAR_ELEMENT>(channels);
}

extern "C" void convert(float const* values, GAR_ELEMENT* out, int count)
{
    for (int i = 0; i < count; ++i)
    {
        out[i] = gar::fromFloat<GAR_ELEMENT>(values[i]);
    }
}
