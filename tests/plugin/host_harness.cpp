// The kernel's arithmetic as a shared library for the CPU: every token of every region in plain loops.
#include "roi_replay.h"

namespace
{

template <typename T, int kWidth>
void replay(T const* features, float const* boxes, T* out, gar::ReplayShape const& shape, int columns, int rows)
{
    int const tokens = shape.side * shape.side;
    for (int region = 0; region < shape.regions; ++region)
    {
        for (int token = 0; token < tokens; ++token)
        {
            for (int channel = 0; channel < shape.channels; channel += kWidth)
            {
                auto const pack = gar::replayToken<T, kWidth>(
                    features, shape, columns, rows, boxes + 4 * region, token, channel);
                for (int c = 0; c < kWidth; ++c)
                {
                    out[(static_cast<int64_t>(region) * tokens + token) * shape.channels + channel + c] = pack.value[c];
                }
            }
        }
    }
}

}  // namespace

extern "C" void replay_float(float const* features, float const* boxes, float* out, gar::ReplayShape const* shape,
    int columns, int rows, int wide)
{
    (wide != 0 ? replay<float, 4> : replay<float, 1>)(features, boxes, out, *shape, columns, rows);
}

extern "C" void replay_half(void const* features, float const* boxes, void* out, gar::ReplayShape const* shape,
    int columns, int rows, int wide)
{
    auto const* in = static_cast<_Float16 const*>(features);
    auto* result = static_cast<_Float16*>(out);
    (wide != 0 ? replay<_Float16, 8> : replay<_Float16, 1>)(in, boxes, result, *shape, columns, rows);
}
