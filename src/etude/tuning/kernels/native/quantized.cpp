// Weights in 4 bits to numbers; activations to 8 bits and integer products back to numbers.
#include "checks.h"
#include "vectors.h"

using namespace etude;

namespace {

// out[i] = round(levels[code i] * absmax[i / block]); two codes a byte, the high one first.
template <class E>
void dequantize(const uint8_t* codes, const float* absmax, const float* levels, E* out,
                int64_t count, int64_t block) {
    constexpr int64_t PART = 1 << 14;
#if !defined(__AVX512F__)
    // Both weights of each byte, side by side: one read gives two.
    float pairs[256][2];
    for (int byte = 0; byte < 256; ++byte) {
        pairs[byte][0] = levels[byte >> 4];
        pairs[byte][1] = levels[byte & 15];
    }
#endif
#pragma omp parallel for schedule(dynamic, 2)
    for (int64_t begin = 0; begin < count; begin += PART) {
        const int64_t end = begin + PART < count ? begin + PART : count;
        int64_t i = begin;
#if defined(__AVX512F__)
        if (block % 32 == 0) {
            const __m512 table = _mm512_loadu_ps(levels);
            for (; i + 32 <= end; i += 32) {
                const __m512i bytes =
                    _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(codes + i / 2)));
                const __m512 scale = _mm512_set1_ps(absmax[i / block]);
                // The permutation looks at the low 4 bits of each index only.
                const __m512 first =
                    _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table), scale);
                const __m512 second = _mm512_mul_ps(_mm512_permutexvar_ps(bytes, table), scale);
                if constexpr (sizeof(E) == 2) {
                    const words low =
                        __builtin_convertvector(to_bf16_exactly((floats)first), words);
                    const words high =
                        __builtin_convertvector(to_bf16_exactly((floats)second), words);
                    const words pair = low | high << 16;
                    std::memcpy(out + i, &pair, sizeof pair);
                } else {
                    const __m512i even = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                                           6, 22, 7, 23);
                    const __m512i odd = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                          29, 14, 30, 15, 31);
                    store(out + i, (floats)_mm512_permutex2var_ps(first, even, second));
                    store(out + i + 16, (floats)_mm512_permutex2var_ps(first, odd, second));
                }
            }
        }
#else
        if (block % LANES == 0)
            for (; i + LANES <= end; i += LANES) {
                const float scale = absmax[i / block];
                float value[LANES];
                // Pair by pair to where it goes: a wide read of what was just written in parts waits.
                float* to = value;
                if constexpr (sizeof(E) == sizeof(float)) to = out + i;
                for (int64_t two = 0; two < LANES; two += 2) {
                    const float* pair = pairs[codes[(i + two) / 2]];
                    const float both[2] = {pair[0] * scale, pair[1] * scale};
                    std::memcpy(to + two, both, sizeof both);
                }
                if constexpr (sizeof(E) == 2) {
                    const halves bits = to_bf16_exactly(load(value));
                    std::memcpy(out + i, &bits, sizeof bits);
                }
            }
#endif
        for (; i < end; i += LANES) {
            const int64_t here = end - i < LANES ? end - i : LANES;
            floats value = {}, scale = {};
            for (int64_t lane = 0; lane < here; ++lane) {
                const uint8_t byte = codes[(i + lane) / 2];
                value[lane] = levels[(i + lane) % 2 ? byte & 15 : byte >> 4];
                scale[lane] = absmax[(i + lane) / block];
            }
            value *= scale;
            if constexpr (sizeof(E) == 2) {
                const halves bits = to_bf16_exactly(value);
                std::memcpy(out + i, &bits, 2 * here);
            } else {
                store(out + i, value, here);
            }
        }
    }
}

// codes = round(x / scale), scale = max |x| / 127 of the row; x is first multiplied by `columns`,
// one number a column, where that is not null.
template <class E>
void int8_rows(const E* x, int64_t step, const float* columns, int8_t* codes, float* scales,
               int64_t rows, int64_t width) {
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t row = 0; row < rows; ++row) {
        const E* from = x + row * step;
        const auto value = [&](int64_t i) {
            const floats v = load(from + i, width - i);
            return columns ? v * load(columns + i, width - i) : v;
        };
        floats highest = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const floats v = value(i);
            highest = most(most(v, -v), highest);
        }
        const float top = largest(highest);
        scales[row] = top / 127.0f;
        const float inverse = top > 0 ? 127.0f / top : 0.0f;
        const floats shift = splat(12582912.0f);  // 1.5 * 2^23: rounds to a whole number, even on ties
        for (int64_t i = 0; i < width; i += LANES) {
            const ints whole = __builtin_convertvector((value(i) * inverse + shift) - shift, ints);
            store(codes + row * width + i, to_bytes(whole), width - i);
        }
    }
}

// out[c] = max |x[:, c]|.
template <class E>
void column_peaks(const E* x, int64_t step, float* out, int64_t rows, int64_t width) {
    constexpr int64_t STRIP = 4 * LANES;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t first = 0; first < width; first += STRIP) {
        const int64_t here = width - first < STRIP ? width - first : STRIP;
        floats peaks[4] = {};
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t part = 0; part * LANES < here; ++part) {
                const int64_t i = part * LANES;
                const floats v = load(x + row * step + first + i, here - i);
                peaks[part] = most(most(v, -v), peaks[part]);
            }
        for (int64_t part = 0; part * LANES < here; ++part)
            store(out + first + part * LANES, peaks[part], here - part * LANES);
    }
}

// out = sums * row_scale * column_scale + add; column_scale and add may be null. `add` has the
// shape of out, or is one row for all (add_step 0).
template <class E>
void int32_scaled(const int32_t* sums, const float* row_scale, const float* column_scale,
                  const E* add, int64_t add_step, E* out, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t row = 0; row < rows; ++row) {
        const int32_t* from = sums + row * width;
        const float scale = row_scale[row];
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            floats v = __builtin_convertvector(load(from + i, left), floats) * scale;
            if (column_scale) v *= load(column_scale + i, left);
            if (add) v += load(add + row * add_step + i, left);
            store(out + row * width + i, v, left);
        }
    }
}

}  // namespace

#define BOTH(name, parameters, ...)                                  \
    extern "C" const char* name##_bf16 parameters(bf16) __VA_ARGS__  \
    extern "C" const char* name##_float parameters(float) __VA_ARGS__

#define PARAMETERS(E)                                                                          \
    (const uint8_t* codes, int64_t codes_is, const float* absmax, int64_t absmax_is,           \
     const float* levels, int64_t levels_is, E* out, int64_t out_is, int64_t count, int64_t block)
BOTH(dequantize, PARAMETERS, {
    const char* why =
        Checks()
            .that(block > 0, "a block has no weights")
            .at_least("codes", codes, codes_is, (count + 1) / 2)
            .at_least("absmax", absmax, absmax_is, block > 0 ? (count + block - 1) / block : 0)
            .array("levels", levels, levels_is, 16)
            .array("out", out, out_is, count)
            .why();
    if (!why) dequantize(codes, absmax, levels, out, count, block);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                            \
    (const E* x, int64_t x_is, int64_t step, const float* columns, int64_t columns_is,           \
     int8_t* codes, int64_t codes_is, float* scales, int64_t scales_is, int64_t rows, int64_t width)
BOTH(int8_rows, PARAMETERS, {
    const char* why = Checks()
                          .rows("x", x, x_is, rows, width, step)
                          .optional("columns", columns, columns_is, width)
                          .array("codes", codes, codes_is, rows * width)
                          .array("scales", scales, scales_is, rows)
                          .why();
    if (!why) int8_rows(x, step, columns, codes, scales, rows, width);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E) \
    (const E* x, int64_t x_is, int64_t step, float* out, int64_t out_is, int64_t rows, int64_t width)
BOTH(column_peaks, PARAMETERS, {
    const char* why = Checks()
                          .rows("x", x, x_is, rows, width, step)
                          .array("out", out, out_is, width)
                          .why();
    if (!why) column_peaks(x, step, out, rows, width);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                            \
    (const int32_t* sums, int64_t sums_is, const float* row_scale, int64_t row_scale_is,         \
     const float* column_scale, int64_t column_scale_is, const E* add, int64_t add_is,           \
     int64_t add_step, E* out, int64_t out_is, int64_t rows, int64_t width)
BOTH(int32_scaled, PARAMETERS, {
    Checks checks;
    checks.array("sums", sums, sums_is, rows * width)
        .array("row_scale", row_scale, row_scale_is, rows)
        .optional("column_scale", column_scale, column_scale_is, width)
        .array("out", out, out_is, rows * width);
    if (add) checks.rows("add", add, add_is, add_step == 0 ? 1 : rows, width, add_step);
    if (!checks.why()) int32_scaled(sums, row_scale, column_scale, add, add_step, out, rows, width);
    return checks.why();
})
#undef PARAMETERS
