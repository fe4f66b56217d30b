// The tile cutter's kernels as a shared library for the CPU: a launch is four loops.
#include <cmath>

namespace
{

struct Index
{
    unsigned x;
    unsigned y;
};

Index blockIdx;
Index threadIdx;
Index blockDim;

template <typename Body>
void launch(unsigned lines, unsigned columns, unsigned wide, unsigned high, Body body)
{
    blockDim = {wide, high};
    for (blockIdx.x = 0; blockIdx.x * high < lines; ++blockIdx.x)
    {
        for (blockIdx.y = 0; blockIdx.y * wide < columns; ++blockIdx.y)
        {
            for (threadIdx.y = 0; threadIdx.y < high; ++threadIdx.y)
            {
                for (threadIdx.x = 0; threadIdx.x < wide; ++threadIdx.x)
                {
                    body();
                }
            }
        }
    }
}

}  // namespace

#define __global__
#define __fmaf_rn std::fma
using std::rintf;
#include "cut_tile.cu"

extern "C" void across(unsigned wide, unsigned high, Byte const* picture, int const* first, float const* weights,
    int source, int target, int taps, int begin, int width, int top, int rows, float* out)
{
    launch(rows, width, wide, high,
        [&] { gar_cut_across(picture, first, weights, source, target, taps, begin, width, top, rows, out); });
}

extern "C" void down(unsigned wide, unsigned high, float const* between, int const* first, float const* weights,
    int source, int target, int taps, int begin, int height, int top, int rows, int width, Byte* tile)
{
    launch(3 * height, width, wide, high,
        [&] { gar_cut_down(between, first, weights, source, target, taps, begin, height, top, rows, width, tile); });
}
