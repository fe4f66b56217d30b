// The features' element types as bare storage, converted to and from float32, which is what the arithmetic is done in.
//
// No CUDA header is needed, so NVRTC compiles the kernel with nothing else installed. As plain C++ the same names work.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <cstdint>
#include <cstring>
#endif

#if defined(__CUDACC__)
#define GAR_DEVICE __device__ __forceinline__
#define GAR_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GAR_DEVICE inline
#define GAR_HOST_DEVICE inline
#endif

namespace gar
{

#if defined(__CUDACC_RTC__)
using int64_t = long long;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uintptr_t = unsigned long long;
#else
using std::int64_t;
using std::uint16_t;
using std::uint32_t;
using std::uintptr_t;
#endif

struct Half
{
    uint16_t bits;
};

struct Bfloat16
{
    uint16_t bits;
};

template <typename To, typename From>
GAR_DEVICE To sameBits(From value)
{
    static_assert(sizeof(To) == sizeof(From), "a value is reread, not converted");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

GAR_DEVICE float toFloat(float value)
{
    return value;
}

GAR_DEVICE float toFloat(Half value)
{
#if defined(__CUDACC__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    return static_cast<float>(sameBits<_Float16>(value));
#endif
}

GAR_DEVICE float toFloat(Bfloat16 value)
{
    return sameBits<float>(static_cast<uint32_t>(value.bits) << 16);
}

// To the nearest, ties to even.
template <typename T>
GAR_DEVICE T fromFloat(float value);

template <>
GAR_DEVICE float fromFloat<float>(float value)
{
    return value;
}

template <>
GAR_DEVICE Half fromFloat<Half>(float value)
{
#if defined(__CUDACC__)
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    return sameBits<Half>(static_cast<_Float16>(value));
#endif
}

template <>
GAR_DEVICE Bfloat16 fromFloat<Bfloat16>(float value)
{
    auto const bits = sameBits<uint32_t>(value);
    // A NaN keeps its upper half, made quiet: rounding could carry it to infinity.
    uint32_t const rounded = value != value ? bits | 0x400000U : bits + 0x7FFFU + (bits >> 16 & 1U);
    return Bfloat16{static_cast<uint16_t>(rounded >> 16)};
}

}  // namespace gar
