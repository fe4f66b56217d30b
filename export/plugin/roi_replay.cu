// The replay kernel: token-major tile features straight to token-major replayed features.
//
// A block makes one output token of one region; its threads walk the channels, 16 bytes each where the layout allows.
// Neighbouring bins touch the same cells, so beyond the first touch reads come from L2: the floor is reading each
// touched cell once and writing the output once.
#include "roi_replay_kernel.h"

namespace gar
{
namespace
{

constexpr int kLoadBytes = 16;
constexpr int kMaxThreads = 256;
constexpr int kWarp = 32;
constexpr int kMaxRegionsPerLaunch = 65535;  // gridDim.y

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaxThreads) roiReplayKernel(
    T const* features, int64_t const* grid, float const* boxes, T* out, ReplayShape shape)
{
    int const token = static_cast<int>(blockIdx.x);
    int const region = static_cast<int>(blockIdx.y);
    int const columns = static_cast<int>(grid[0]);
    int const rows = static_cast<int>(grid[1]);
    bool const fits = columns > 0 && rows > 0
        && static_cast<int64_t>(columns) * rows == static_cast<int64_t>(shape.tiles) - 1;
    T* target = out + (static_cast<int64_t>(region) * shape.side * shape.side + token) * shape.channels;
    for (int channel = static_cast<int>(threadIdx.x) * kWidth; channel < shape.channels;
         channel += static_cast<int>(blockDim.x) * kWidth)
    {
        Pack<T, kWidth> pack;
        if (fits)
        {
            pack = replayToken<T, kWidth>(features, shape, columns, rows, boxes + 4 * region, token, channel);
        }
        else
        {
            for (int c = 0; c < kWidth; ++c)
            {
                pack.value[c] = fromFloat<T>(0.0F);
            }
        }
        *reinterpret_cast<Pack<T, kWidth>*>(target + channel) = pack;
    }
}

bool aligned(void const* pointer)
{
    return reinterpret_cast<uintptr_t>(pointer) % kLoadBytes == 0;
}

template <typename T, int kWidth>
cudaError_t launchWidth(T const* features, int64_t const* grid, float const* boxes, T* out, ReplayShape const& shape,
    cudaStream_t stream)
{
    int const packs = (shape.channels + kWidth - 1) / kWidth;
    int const rounded = (packs + kWarp - 1) / kWarp * kWarp;
    int const threads = rounded < kMaxThreads ? rounded : kMaxThreads;
    dim3 const blocks(static_cast<unsigned>(shape.side) * shape.side, static_cast<unsigned>(shape.regions));
    roiReplayKernel<T, kWidth><<<blocks, threads, 0, stream>>>(features, grid, boxes, out, shape);
    return cudaGetLastError();
}

template <typename T>
cudaError_t launchType(void const* features, int64_t const* grid, float const* boxes, void* out,
    ReplayShape const& shape, cudaStream_t stream)
{
    constexpr int kWide = kLoadBytes / static_cast<int>(sizeof(T));
    auto const* in = static_cast<T const*>(features);
    auto* result = static_cast<T*>(out);
    if (shape.channels % kWide == 0 && aligned(features) && aligned(out))
    {
        return launchWidth<T, kWide>(in, grid, boxes, result, shape, stream);
    }
    return launchWidth<T, 1>(in, grid, boxes, result, shape, stream);
}

}  // namespace

cudaError_t launchRoiReplay(FeatureType type, void const* features, int64_t const* grid, float const* boxes, void* out,
    ReplayShape const& shape, cudaStream_t stream)
{
    if (shape.tiles < 2 || shape.side < 1 || shape.channels < 1 || shape.regions < 0
        || shape.regions > kMaxRegionsPerLaunch)
    {
        return cudaErrorInvalidValue;
    }
    if (shape.regions == 0)
    {
        return cudaSuccess;
    }
    switch (type)
    {
    case FeatureType::kFloat32: return launchType<float>(features, grid, boxes, out, shape, stream);
    case FeatureType::kFloat16: return launchType<__half>(features, grid, boxes, out, shape, stream);
    case FeatureType::kBfloat16: return launchType<__nv_bfloat16>(features, grid, boxes, out, shape, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace gar
