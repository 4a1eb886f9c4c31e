// One new token for each of a few answers: products with few rows, and attention over kept keys.
//
// Such a step reads every weight once and multiplies it a few times: what it costs is the reading.
#include "checks.h"
#include "vectors.h"

using namespace etude;

namespace {

// What one instruction multiplies: a register of floats, or of pairs of bfloat16.
template <class E>
constexpr int64_t STEP = LANES * 4 / sizeof(E);

constexpr int64_t AHEAD = 12;  // columns of the result by which weights are asked for early

template <class E>
inline words whole(const E* from) {
    words x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

template <class E>
inline words part(const E* from, int64_t left) {
    words x = {};
    std::memcpy(&x, from, left * sizeof(E));
    return x;
}

template <class E>
inline floats multiply_add(floats total, words a, words b) {
    if constexpr (sizeof(E) == sizeof(float))
        return total + reinterpret<floats>(a) * reinterpret<floats>(b);
#if defined(__AVX512BF16__)
    return reinterpret<floats>(_mm512_dpbf16_ps(reinterpret<__m512>(total), reinterpret<__m512bh>(a),
                                                reinterpret<__m512bh>(b)));
#else
    total += reinterpret<floats>(a << 16) * reinterpret<floats>(b << 16);
    return total + reinterpret<floats>(a & 0xffff0000u) * reinterpret<floats>(b & 0xffff0000u);
#endif
}

template <class E, int ROWS, int COLUMNS>
inline void dots(const E* x, int64_t x_step, const E* w, int64_t width, float* out,
                 int64_t out_step) {
    floats total[ROWS][COLUMNS] = {};
    const auto add = [&](auto take, int64_t k) {
        words weights[COLUMNS];
#pragma GCC unroll 2
        for (int column = 0; column < COLUMNS; ++column) {
            // The processor's own guess comes late where each line is multiplied by several rows.
            __builtin_prefetch(w + (column + AHEAD) * width + k);
            weights[column] = take(w + column * width + k);
        }
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; ++row) {
            const words of_row = take(x + row * x_step + k);
#pragma GCC unroll 2
            for (int column = 0; column < COLUMNS; ++column)
                total[row][column] = multiply_add<E>(total[row][column], of_row, weights[column]);
        }
    };
    const int64_t rest = width % STEP<E>;
    for (int64_t k = 0; k < width - rest; k += STEP<E>) add([](const E* at) { return whole(at); }, k);
    if (rest) add([&](const E* at) { return part(at, rest); }, width - rest);
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 2
        for (int column = 0; column < COLUMNS; ++column)
            out[row * out_step + column] = sum(total[row][column]);
}

// An adapter beside a weight: its thin product h (rows, rank), and b (rank, columns), scaled.
template <class E>
struct Low {
    const E* h;
    int64_t step;
    const E* b;
    int64_t rank;
};

template <class E, int ROWS>
void thin_rows(const E* x, int64_t x_step, const E* w, const E* bias, const E* add, Low<E> low,
               E* y, int64_t width, int64_t columns) {
    constexpr int64_t PART = 2 * LANES;
    // Waking a thread costs some microseconds: what a thin weight takes altogether.
#pragma omp parallel for schedule(dynamic, 2) if (columns * width > 1 << 16)
    for (int64_t first = 0; first < columns; first += PART) {
        float part[ROWS][PART];
        const int64_t here = columns - first < PART ? columns - first : PART;
        int64_t column = 0;
        for (; column + 2 <= here; column += 2)
            dots<E, ROWS, 2>(x, x_step, w + (first + column) * width, width, &part[0][column], PART);
        if (column < here)
            dots<E, ROWS, 1>(x, x_step, w + (first + column) * width, width, &part[0][column], PART);
        for (int64_t i = 0; i < here; i += LANES) {
            const int64_t left = here - i;
            floats total[ROWS];
            for (int row = 0; row < ROWS; ++row) total[row] = load(&part[row][i], left);
            for (int64_t k = 0; k < low.rank; ++k) {
                const floats of_b = load(low.b + k * columns + first + i, left);
                for (int row = 0; row < ROWS; ++row)
                    total[row] += of_b * as_float(low.h[row * low.step + k]);
            }
            for (int row = 0; row < ROWS; ++row) {
                const int64_t at = row * columns + first + i;
                if (bias) total[row] += load(bias + first + i, left);
                if (add) total[row] += load(add + at, left);
                store(y + at, total[row], left);
            }
        }
    }
}

// y = x W^T + bias + add + h b, rounded once, for any number of rows, up to 8 at a time.
template <class E>
void thin_product(const E* x, int64_t x_step, const E* w, const E* bias, const E* add, Low<E> low,
                  E* y, int64_t rows, int64_t width, int64_t columns) {
    while (rows > 0) {
        const int64_t now = rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        if (now == 8)
            thin_rows<E, 8>(x, x_step, w, bias, add, low, y, width, columns);
        else if (now == 4)
            thin_rows<E, 4>(x, x_step, w, bias, add, low, y, width, columns);
        else if (now == 2)
            thin_rows<E, 2>(x, x_step, w, bias, add, low, y, width, columns);
        else
            thin_rows<E, 1>(x, x_step, w, bias, add, low, y, width, columns);
        x += now * x_step;
        y += now * columns;
        low.h += now * low.step;
        if (add) add += now * columns;
        rows -= now;
    }
}

// Row i of q attends to the first counts[i] kept keys of answer places[i], the last `window` of
// them where that is not 0. Keys and values: (answers, key heads, capacity, width).
template <class E>
void cached_attention(const E* q, const E* keys, const E* values, E* out, const int64_t* places,
                      const int64_t* counts, int64_t rows, int64_t heads, int64_t key_heads,
                      int64_t capacity, int64_t width, float scale, int64_t window) {
#pragma omp parallel
    {
        float* scores = new float[capacity + LANES];
        float* total = new float[width + LANES];
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < rows * heads; ++task) {
            const int64_t row = task / heads, head = task % heads, end = counts[row];
            const int64_t begin = window > 0 && end > window ? end - window : 0;
            const int64_t place = places[row] * key_heads + head / (heads / key_heads);
            const E* from = q + (row * heads + head) * width;
            const E *k = keys + place * capacity * width, *v = values + place * capacity * width;
            float top = -__builtin_inff();
            for (int64_t j = begin; j < end; ++j) {
                dots<E, 1, 1>(from, width, k + j * width, width, scores + j, 1);
                scores[j] *= scale;
                top = __builtin_fmaxf(top, scores[j]);
            }
            floats norm = {};
            for (int64_t j = begin; j < end; j += LANES) {
                const int64_t left = end - j;
                floats e = exponential(load(scores + j) - top);
                if (left < LANES) e = choose(lanes() < int(left), e, floats{});
                store(scores + j, e);
                norm += e;
            }
            const float inverse = 1.0f / sum(norm);
            for (int64_t c = 0; c < width; c += LANES) store(total + c, floats{});
            for (int64_t j = begin; j < end; ++j)
                for (int64_t c = 0; c < width; c += LANES)
                    store(total + c,
                          load(total + c) + load(v + j * width + c, width - c) * scores[j]);
            E* to = out + (row * heads + head) * width;
            for (int64_t c = 0; c < width; c += LANES)
                store(to + c, load(total + c) * inverse, width - c);
        }
        delete[] scores;
        delete[] total;
    }
}

}  // namespace

#define BOTH(name, parameters, ...)                                  \
    extern "C" const char* name##_bf16 parameters(bf16) __VA_ARGS__  \
    extern "C" const char* name##_float parameters(float) __VA_ARGS__

#define PARAMETERS(E)                                                                            \
    (const E* x, int64_t x_is, int64_t x_step, const E* w, int64_t w_is, const E* bias,          \
     int64_t bias_is, const E* add, int64_t add_is, const E* h, int64_t h_is, int64_t h_step,    \
     const E* b, int64_t b_is, int64_t rank, E* y, int64_t y_is, int64_t rows, int64_t width,    \
     int64_t columns)
BOTH(thin_product, PARAMETERS, {
    Checks checks;
    checks.rows("x", x, x_is, rows, width, x_step)
        .array("weight", w, w_is, columns * width)
        .optional("bias", bias, bias_is, columns)
        .optional("add", add, add_is, rows * columns)
        .array("y", y, y_is, rows * columns);
    if (rank > 0) checks.rows("h", h, h_is, rows, rank, h_step).array("b", b, b_is, rank * columns);
    if (!checks.why())
        thin_product(x, x_step, w, bias, add, {h, h_step, b, rank}, y, rows, width, columns);
    return checks.why();
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                            \
    (const E* q, int64_t q_is, const E* keys, int64_t keys_is, const E* values,                  \
     int64_t values_is, E* out, int64_t out_is, const int64_t* places, int64_t places_is,        \
     const int64_t* counts, int64_t counts_is, int64_t rows, int64_t answers, int64_t heads,     \
     int64_t key_heads, int64_t capacity, int64_t width, float scale, int64_t window)
BOTH(cached_attention, PARAMETERS, {
    Checks checks;
    checks.that(key_heads > 0 && heads % key_heads == 0, "key heads do not divide the queries'")
        .array("q", q, q_is, rows * heads * width)
        .array("keys", keys, keys_is, answers * key_heads * capacity * width)
        .array("values", values, values_is, answers * key_heads * capacity * width)
        .array("out", out, out_is, rows * heads * width)
        .array("places", places, places_is, rows)
        .array("counts", counts, counts_is, rows);
    for (int64_t row = 0; row < rows && !checks.why(); ++row)
        checks.that(places[row] >= 0 && places[row] < answers, "a place is none of the answers'")
            .that(counts[row] > 0 && counts[row] <= capacity, "a count is not from 1 to the capacity");
    if (!checks.why())
        cached_attention(q, keys, values, out, places, counts, rows, heads, key_heads, capacity,
                         width, scale, window);
    return checks.why();
})
#undef PARAMETERS
