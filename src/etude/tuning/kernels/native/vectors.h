// Vectors in the compiler's own notation, so that one text serves every processor, as wide as its
// registers are: vectors of more than one register are kept in memory by compilers, which took 7
// times as long for attention on AVX2.
//
// Storage is float or bfloat16; arithmetic is float throughout.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace etude {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef int8_t bytes __attribute__((vector_size(LANES)));

struct bf16 {
    uint16_t bits;
};

inline floats splat(float value) { return floats{} + value; }

template <class To, class From>
inline To reinterpret(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// Round to nearest, ties to even; NaN stays NaN.
inline halves to_bf16_exactly(floats x) {
    words bits = reinterpret<words>(x);
    words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    words nan = reinterpret<words>(x != x);
    return __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0u), halves);
}

// The same in one instruction where there is one, which takes numbers below 2^-126 for zero.
inline halves to_bf16(floats x) {
#if defined(__AVX512BF16__)
    return reinterpret<halves>(_mm512_cvtneps_pbh(reinterpret<__m512>(x)));
#else
    return to_bf16_exactly(x);
#endif
}

inline floats load(const float* from) {
    floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline floats load(const bf16* from) {
    halves bits;
    std::memcpy(&bits, from, sizeof bits);
    return reinterpret<floats>(__builtin_convertvector(bits, words) << 16);
}

inline void store(float* to, floats x) { std::memcpy(to, &x, sizeof x); }

inline void store(bf16* to, floats x) {
    halves bits = to_bf16(x);
    std::memcpy(to, &bits, sizeof bits);
}

// The first `count` lanes; the others are zero, and are not written.
template <class E>
inline floats load(const E* from, int64_t count) {
    if (count >= LANES) return load(from);
    E padded[LANES] = {};
    std::memcpy(padded, from, count * sizeof(E));
    return load(padded);
}

template <class E>
inline void store(E* to, floats x, int64_t count) {
    if (count >= LANES) return store(to, x);
    E padded[LANES];
    store(padded, x);
    std::memcpy(to, padded, count * sizeof(E));
}

// As if it had been written to memory of this type and read again.
template <class E>
inline floats rounded(floats x) {
    if constexpr (sizeof(E) == sizeof(float)) {
        return x;
    } else {
        return reinterpret<floats>(__builtin_convertvector(to_bf16(x), words) << 16);
    }
}

template <class E>
inline float as_float(E x) {
    if constexpr (sizeof(E) == sizeof(float)) {
        return x;
    } else {
        return reinterpret<float>(uint32_t(x.bits) << 16);
    }
}

inline float sum(floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(reinterpret<__m512>(x));
#else
    float part[LANES];
    store(part, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
    return part[0];
#endif
}

inline float largest(floats x) {
    float most = x[0];
    for (int lane = 1; lane < LANES; ++lane) most = x[lane] > most ? x[lane] : most;
    return most;
}

inline floats choose(ints mask, floats yes, floats no) { return mask ? yes : no; }

inline floats most(floats a, floats b) { return a > b ? a : b; }

inline floats least(floats a, floats b) { return a < b ? a : b; }

inline ints lanes() {
    constexpr int32_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    ints x;
    std::memcpy(&x, numbers, sizeof x);
    return x;
}

// e^x within 2 units in the last place, for x up to 88; 0 below -87.3, NaN for NaN.
//
// 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and e^r by its Taylor polynomial of degree 7,
// whose remainder there is below 2^-27 of the value.
inline floats exponential(floats x) {
    const ints tiny = x < splat(-87.3f);
    const floats clipped = tiny ? splat(-87.3f) : x;
    // Adding and taking off 1.5 * 2^23 rounds to a whole number.
    const floats shift = splat(12582912.0f);
    const floats n = (clipped * 1.44269504f + shift) - shift;
    // ln 2 in two parts, the first with so few bits that n times it is exact.
    const floats r = (clipped - n * 0.693359375f) + n * 2.12194440e-4f;
    floats p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    const floats value = p * reinterpret<floats>(power);
    return tiny ? splat(0) : value;
}

// Whole numbers from -128 to 127.
inline bytes to_bytes(ints x) {
#if defined(__AVX512F__)
    return reinterpret<bytes>(_mm512_cvtepi32_epi8(reinterpret<__m512i>(x)));
#else
    return __builtin_convertvector(x, bytes);
#endif
}

inline void store(int8_t* to, bytes x, int64_t count) {
    if (count >= LANES)
        std::memcpy(to, &x, sizeof x);
    else
        std::memcpy(to, &x, count);
}

inline ints load(const int32_t* from, int64_t count) {
    ints x = {};
    if (count >= LANES)
        std::memcpy(&x, from, sizeof x);
    else
        std::memcpy(&x, from, 4 * count);
    return x;
}

}  // namespace etude
