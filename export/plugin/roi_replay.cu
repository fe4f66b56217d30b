// The replay kernel's launch on a CUDA stream, for the C++ plugin.
#include "roi_replay_kernel.h"

#include "roi_replay_block.h"

#include <climits>

namespace gar
{
namespace
{

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) roiReplayKernel(T const* __restrict__ features,
    int64_t const* __restrict__ grid, float const* __restrict__ boxes, T* __restrict__ out, ReplayShape shape)
{
    replayBlock(features, grid, boxes, out, shape, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x),
        static_cast<int>(blockDim.x));
}

template <typename T>
cudaError_t launch(void const* features, int64_t const* grid, float const* boxes, void* out, ReplayShape const& shape,
    unsigned blocks, cudaStream_t stream)
{
    roiReplayKernel<T><<<blocks, blockThreads<T>(shape.channels), 0, stream>>>(
        static_cast<T const*>(features), grid, boxes, static_cast<T*>(out), shape);
    return cudaGetLastError();
}

}  // namespace

cudaError_t launchRoiReplay(FeatureType type, void const* features, int64_t const* grid, float const* boxes, void* out,
    ReplayShape const& shape, int regions, cudaStream_t stream)
{
    int64_t const blocks = static_cast<int64_t>(shape.side) * shape.side * regions;
    if (shape.tiles < 2 || shape.side < 1 || shape.channels < 1 || regions < 0 || blocks > INT_MAX)
    {
        return cudaErrorInvalidValue;
    }
    if (regions == 0)
    {
        return cudaSuccess;
    }
    auto const count = static_cast<unsigned>(blocks);
    switch (type)
    {
    case FeatureType::kFloat32: return launch<float>(features, grid, boxes, out, shape, count, stream);
    case FeatureType::kFloat16: return launch<Half>(features, grid, boxes, out, shape, count, stream);
    case FeatureType::kBfloat16: return launch<Bfloat16>(features, grid, boxes, out, shape, count, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace gar
