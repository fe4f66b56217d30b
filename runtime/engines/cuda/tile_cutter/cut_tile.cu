// A tile of a picture: both passes of the resize in images/resize.py, across and then down, in float32.
//
// Every output sample is a sum over its own few source samples. Products are added in the order of the samples, each by
// one fused multiply-add, whatever the compiler: so a GPU gives what the same source gives as plain C++.
//
// Weights of an axis are [taps, target] for the whole canvas, `first` [target] the first sample that each reads; taps
// behind the last source sample have no weight, and are not read. Launch: a thread for each column and row.
using Byte = unsigned char;

// Columns begin … begin+width of rows top … top+rows: picture [.., source, 3] -> wide [3, rows, width].
extern "C" __global__ void gar_cut_across(Byte const* __restrict__ picture, int const* __restrict__ first,
    float const* __restrict__ weights, int source, int target, int taps, int begin, int width, int top, int rows,
    float* __restrict__ wide)
{
    int const row = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
    int const column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
    if (row >= rows || column >= width)
    {
        return;
    }
    int const low = first[begin + column];
    int const count = taps < source - low ? taps : source - low;
    Byte const* sample = picture + (static_cast<long long>(top + row) * source + low) * 3;
    float const* weight = weights + begin + column;
    float sums[3] = {0.0F, 0.0F, 0.0F};
    for (int tap = 0; tap < count; ++tap, sample += 3, weight += target)
    {
        for (int channel = 0; channel < 3; ++channel)
        {
            sums[channel] = __fmaf_rn(*weight, static_cast<float>(sample[channel]), sums[channel]);
        }
    }
    for (int channel = 0; channel < 3; ++channel)
    {
        wide[(static_cast<long long>(channel) * rows + row) * width + column] = sums[channel];
    }
}

// Rows begin … begin+height of what the first pass left, rounded half to even: wide [3, rows, width] -> [3, height, width].
extern "C" __global__ void gar_cut_down(float const* __restrict__ wide, int const* __restrict__ first,
    float const* __restrict__ weights, int source, int target, int taps, int begin, int height, int top, int rows,
    int width, Byte* __restrict__ tile)
{
    int const line = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);  // of 3 * height
    int const column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
    if (line >= 3 * height || column >= width)
    {
        return;
    }
    int const channel = line / height;
    int const low = first[begin + line % height];
    int const count = taps < source - low ? taps : source - low;
    float const* sample = wide + (static_cast<long long>(channel) * rows + (low - top)) * width + column;
    float const* weight = weights + begin + line % height;
    float sum = 0.0F;
    for (int tap = 0; tap < count; ++tap, sample += width, weight += target)
    {
        sum = __fmaf_rn(*weight, *sample, sum);
    }
    float const rounded = rintf(sum);
    tile[static_cast<long long>(line) * width + column]
        = static_cast<Byte>(rounded < 0.0F ? 0.0F : (rounded > 255.0F ? 255.0F : rounded));
}
