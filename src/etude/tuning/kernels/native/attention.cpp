// Attention inside each segment of a packed row, causal or in both directions, forward and backward,
// without a matrix of the size of a segment squared.
//
//     S = scale Q K^T     P = softmax(S), row i over keys j <= i, or over all keys
//     O = (M * P) V       L = logsumexp(S)
//
//     P = e^(S - L)   dP = M * dO V^T   D = rowsum(dO * O)   dS = scale P * (dP - D)
//     dQ = dS K       dK = dS^T Q       dV = (M * P)^T dO    (Dao et al. 2022, "FlashAttention")
//
// M is dropout of the weights, drawn from the row's and the key's number (dropout.h); 1 without it.
//
// One task is a head of a segment. It takes the queries in blocks of rows, so few that their
// scores stay in the processor's cache, and all keys that they see. All six products are one micro
// kernel: units of 32 bits, which are pairs of bfloat16 along the contraction (multiplied in one
// instruction where the processor has it) or single floats, 6 rows by up to 64 columns at a time, as
// many as there are registers for.
// Scores and sums are float; P and dS are rounded to the storage type for their products.
#include <algorithm>
#include <vector>

#include "checks.h"
#include "dropout.h"
#include "vectors.h"

using namespace etude;

namespace {

template <class E>
struct Unit;
template <>
struct Unit<bf16> {
    static constexpr int along = 2;  // elements of a unit along the contraction
};
template <>
struct Unit<float> {
    static constexpr int along = 1;
};

template <class E>
inline floats accumulate(floats total, uint32_t a, words b);

template <>
inline floats accumulate<float>(floats total, uint32_t a, words b) {
    return total + reinterpret<float>(a) * reinterpret<floats>(b);
}

template <>
inline floats accumulate<bf16>(floats total, uint32_t a, words b) {
#if defined(__AVX512BF16__)
    return reinterpret<floats>(_mm512_dpbf16_ps(reinterpret<__m512>(total),
                                                reinterpret<__m512bh>(words{} + a),
                                                reinterpret<__m512bh>(b)));
#else
    total += reinterpret<float>(a << 16) * reinterpret<floats>(b << 16);
    return total + reinterpret<float>(a & 0xffff0000u) * reinterpret<floats>(b & 0xffff0000u);
#endif
}

// c (ROWS, LANES VECTORS) (+)= a b over `depth` units. Unit (row, k) of a is at a[row row_step +
// k depth_step]; row k of b is at b + k b_step.
template <class E, int ROWS, int VECTORS>
void tile(const uint32_t* a, int64_t row_step, int64_t depth_step, const uint32_t* b,
          int64_t b_step, int64_t depth, float* c, int64_t c_step, bool add) {
    floats total[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v)
            total[row][v] = add ? load(c + row * c_step + v * LANES) : floats{};
    for (int64_t k = 0; k < depth; ++k) {
        words column[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v)
            std::memcpy(&column[v], b + k * b_step + v * LANES, sizeof(words));
#pragma GCC unroll 6
        for (int row = 0; row < ROWS; ++row) {
            const uint32_t unit = a[row * row_step + k * depth_step];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v)
                total[row][v] = accumulate<E>(total[row][v], unit, column[v]);
        }
    }
#pragma GCC unroll 6
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) store(c + row * c_step + v * LANES, total[row][v]);
}

template <class E, int VECTORS>
void strip(const uint32_t* a, int64_t row_step, int64_t depth_step, const uint32_t* b,
           int64_t b_step, int64_t depth, float* c, int64_t c_step, int64_t rows, bool add) {
    int64_t row = 0;
    for (; row + 6 <= rows; row += 6)
        tile<E, 6, VECTORS>(a + row * row_step, row_step, depth_step, b, b_step, depth,
                            c + row * c_step, c_step, add);
    for (; row + 2 <= rows; row += 2)
        tile<E, 2, VECTORS>(a + row * row_step, row_step, depth_step, b, b_step, depth,
                            c + row * c_step, c_step, add);
    for (; row < rows; ++row)
        tile<E, 1, VECTORS>(a + row * row_step, row_step, depth_step, b, b_step, depth,
                            c + row * c_step, c_step, add);
}

// Vectors of columns a tile: its sums, and what they are made of, fit into the registers, of which
// AVX-512 has 32 and AVX2 16.
#if defined(__AVX512F__)
constexpr int WIDEST = 4;
#else
constexpr int WIDEST = 2;
#endif

// As `tile`, for any number of rows and any multiple of 16 columns.
template <class E>
void multiply(const uint32_t* a, int64_t row_step, int64_t depth_step, const uint32_t* b,
              int64_t b_step, int64_t depth, float* c, int64_t c_step, int64_t rows,
              int64_t columns, bool add) {
    constexpr int64_t wide = WIDEST * LANES;
    int64_t column = 0;
    for (; column + wide <= columns; column += wide)
        strip<E, WIDEST>(a, row_step, depth_step, b + column, b_step, depth, c + column, c_step,
                         rows, add);
    if (column + 2 * LANES <= columns) {
        strip<E, 2>(a, row_step, depth_step, b + column, b_step, depth, c + column, c_step, rows, add);
        column += 2 * LANES;
    }
    if (column < columns)
        strip<E, 1>(a, row_step, depth_step, b + column, b_step, depth, c + column, c_step, rows, add);
}

inline int64_t up_to(int64_t count, int64_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

constexpr int64_t WIDTH_MULTIPLE = 8;   // of a head; see kernels/fused.py
constexpr int64_t TILE_MULTIPLE = 16;   // of the columns that `multiply` takes
constexpr int64_t COLUMNS = 64;      // keys a tile of scores
constexpr int64_t SCORES = 1 << 16;  // scores that a block of rows may have: 256 KiB

// Rows of one head, (n, width) with a step between rows, as units.
template <class E>
const uint32_t* units(const E* rows) {
    return reinterpret_cast<const uint32_t*>(rows);
}

// out[k][j] = unit k of row j: the contraction runs over a row's own elements.
template <class E>
void pack_across(const E* rows, int64_t step, int64_t count, int64_t width, uint32_t* out,
                 int64_t padded) {
    const int64_t depth = width / Unit<E>::along;
    for (int64_t k = 0; k < depth; ++k) std::fill(out + k * padded + count, out + (k + 1) * padded, 0u);
    for (int64_t first = 0; first < count; first += LANES) {
        const int64_t last = std::min<int64_t>(first + LANES, count);
        for (int64_t k = 0; k < depth; ++k)
            for (int64_t j = first; j < last; ++j) {
                uint32_t unit;
                std::memcpy(&unit, reinterpret_cast<const char*>(rows + j * step) + 4 * k, 4);
                out[k * padded + j] = unit;
            }
    }
}

// out[j / along][c] = elements (j, c) and, of a pair, (j + 1, c): the contraction runs over rows.
// Columns from `width` to `out_step` are zero.
inline void pack_down(const bf16* rows, int64_t step, int64_t count, int64_t width, uint32_t* out,
                      int64_t out_step) {
    for (int64_t j = 0; j < count; j += 2) {
        const bf16 *first = rows + j * step, *second = rows + (j + 1) * step;
        uint32_t* to = out + j / 2 * out_step;
        if (j + 1 < count)
            for (int64_t c = 0; c < width; ++c)
                to[c] = first[c].bits | uint32_t(second[c].bits) << 16;
        else
            for (int64_t c = 0; c < width; ++c) to[c] = first[c].bits;
        std::fill(to + width, to + out_step, 0u);
    }
}

inline void pack_down(const float* rows, int64_t step, int64_t count, int64_t width, uint32_t* out,
                      int64_t out_step) {
    for (int64_t j = 0; j < count; ++j) {
        std::memcpy(out + j * out_step, rows + j * step, 4 * width);
        std::fill(out + j * out_step + width, out + (j + 1) * out_step, 0u);
    }
}

template <class E>
struct Shape {
    int64_t heads, key_heads, width;
    int64_t q_step, k_step, v_step, o_step;  // between rows, in elements
    float scale;
    int64_t window;  // keys a query may see, itself included; 0: all before it
    bool causal;     // whether a query sees no key after it
    Dropout dropout;

    // Of a head's rows where they are columns of a product.
    int64_t padded_width() const { return up_to(width, TILE_MULTIPLE); }
    // End of the keys that query i of n sees.
    int64_t end(int64_t i, int64_t n) const { return causal ? i + 1 : n; }
};

struct Scratch {
    std::vector<uint32_t> memory;
    uint32_t* take(int64_t& used, int64_t count) {
        uint32_t* place = memory.data() + used;
        used += up_to(count, LANES);
        return place;
    }
};

int64_t rows_a_block(int64_t keys) {
    const int64_t rows = SCORES / up_to(keys, COLUMNS);
    return std::clamp<int64_t>(rows / 6 * 6, 6, 96);
}

// First key tile that a block of queries from `first` sees, by the window.
inline int64_t first_key(int64_t first, int64_t window) {
    if (window <= 0 || first - window + 1 <= 0) return 0;
    return (first - window + 1) / COLUMNS * COLUMNS;
}

template <class E>
void forward_head(const E* q, const E* k, const E* v, E* out, float* log_norm, int64_t n,
                  int64_t first_row, const Shape<E>& s, Scratch& scratch) {
    constexpr int along = Unit<E>::along;
    const int64_t width = s.width, padded = up_to(n, COLUMNS), block = rows_a_block(n);
    const int64_t depth = width / along, wide = s.padded_width();
    scratch.memory.resize(depth * padded + up_to(n, 2) / along * wide +
                          block * (padded + padded / along + wide) + 8 * LANES);
    int64_t used = 0;
    uint32_t* keys = scratch.take(used, depth * padded);
    uint32_t* values = scratch.take(used, up_to(n, 2) / along * wide);
    float* scores = reinterpret_cast<float*>(scratch.take(used, block * padded));
    E* probabilities = reinterpret_cast<E*>(scratch.take(used, block * padded / along));
    float* result = reinterpret_cast<float*>(scratch.take(used, block * wide));
    pack_across(k, s.k_step, n, width, keys, padded);
    pack_down(v, s.v_step, n, width, values, wide);

    for (int64_t first = 0; first < n; first += block) {
        const int64_t rows = std::min(block, n - first);
        const int64_t from = first_key(first, s.window);
        const int64_t seen = up_to(s.end(first + rows - 1, n), COLUMNS);
        multiply<E>(units(q + first * s.q_step), s.q_step / along, 1, keys + from, padded, depth,
                    scores + from, padded, rows, seen - from, false);
        float inverse[96];
        for (int64_t row = 0; row < rows; ++row) {
            float* at = scores + row * padded;
            E* p = probabilities + row * padded;
            const int64_t end = s.end(first + row, n);
            const int64_t begin = s.window > 0 ? std::max<int64_t>(0, end - s.window) : 0;
            for (int64_t j = from; j < begin; ++j) at[j] = -__builtin_inff();
            for (int64_t j = end; j < up_to(end, LANES); ++j) at[j] = -__builtin_inff();
            floats highest = splat(-__builtin_inff());
            const int64_t stop = up_to(end, LANES);
            for (int64_t j = from; j < stop; j += LANES) highest = most(load(at + j), highest);
            const float top = largest(highest) * s.scale;
            floats total = {};
            const uint32_t key = s.dropout.row(first_row + first + row);
            for (int64_t j = from; j < stop; j += LANES) {
                const floats e = exponential(load(at + j) * s.scale - top);
                total += e;
                store(p + j, s.dropout.on ? e * s.dropout.factors(key, j) : e);
            }
            for (int64_t j = stop; j < seen; j += LANES) store(p + j, floats{});
            const float norm = sum(total);
            inverse[row] = 1.0f / norm;
            log_norm[first + row] = top + __builtin_logf(norm);
        }
        const int64_t last = std::min(up_to(n, along), seen);
        multiply<E>(units(probabilities + from), padded / along, 1, values + from / along * wide,
                    wide, (last - from) / along, result, wide, rows, wide, false);
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t c = 0; c < width; c += LANES)
                store(out + (first + row) * s.o_step + c, load(result + row * wide + c) * inverse[row],
                      width - c);
    }
}

// dK and dV of one query head, (n, padded width) float, are written whole.
template <class E>
void backward_head(const E* q, const E* k, const E* v, const E* out, const E* gradient,
                   const float* log_norm, E* dq, int64_t dq_step, float* dk, float* dv, int64_t n,
                   int64_t first_row, const Shape<E>& s, Scratch& scratch) {
    constexpr int along = Unit<E>::along;
    const int64_t width = s.width, padded = up_to(n, COLUMNS), block = rows_a_block(2 * n);
    const int64_t depth = width / along, wide = s.padded_width();
    const int64_t scores_size = block * padded;
    scratch.memory.resize(2 * depth * padded + up_to(n, 2) / along * wide + 2 * scores_size +
                          3 * scores_size / along + 2 * up_to(block, 2) / along * wide +
                          block * wide + 12 * LANES);
    int64_t used = 0;
    uint32_t* keys = scratch.take(used, depth * padded);      // K, contraction over width
    uint32_t* values = scratch.take(used, depth * padded);    // V, likewise
    uint32_t* keys_down = scratch.take(used, up_to(n, 2) / along * wide);  // K, over keys
    float* scores = reinterpret_cast<float*>(scratch.take(used, scores_size));
    float* upstream = reinterpret_cast<float*>(scratch.take(used, scores_size));
    E* ds = reinterpret_cast<E*>(scratch.take(used, scores_size / along));
    uint32_t* p_down = scratch.take(used, scores_size / along);   // P, contraction over queries
    uint32_t* ds_down = scratch.take(used, scores_size / along);  // dS, likewise
    uint32_t* q_down = scratch.take(used, up_to(block, 2) / along * wide);
    uint32_t* g_down = scratch.take(used, up_to(block, 2) / along * wide);
    float* result = reinterpret_cast<float*>(scratch.take(used, block * wide));
    pack_across(k, s.k_step, n, width, keys, padded);
    pack_across(v, s.v_step, n, width, values, padded);
    pack_down(k, s.k_step, n, width, keys_down, wide);
    std::fill(dk, dk + n * wide, 0.0f);
    std::fill(dv, dv + n * wide, 0.0f);

    for (int64_t first = 0; first < n; first += block) {
        const int64_t rows = std::min(block, n - first);
        const int64_t from = first_key(first, s.window);
        const int64_t seen = up_to(s.end(first + rows - 1, n), COLUMNS);
        const E* g = gradient + first * s.o_step;
        multiply<E>(units(q + first * s.q_step), s.q_step / along, 1, keys + from, padded, depth,
                    scores + from, padded, rows, seen - from, false);
        multiply<E>(units(g), s.o_step / along, 1, values + from, padded, depth, upstream + from,
                    padded, rows, seen - from, false);
        // Pairs of rows are written together; a last odd row gets zeros beside it.
        for (int64_t row = 0; row < rows; row += along) {
            uint32_t* p_to = p_down + row / along * padded;
            uint32_t* ds_to = ds_down + row / along * padded;
            floats norm[along], mean[along];
            int64_t begin[along], end[along];
            uint32_t key[along];
            for (int part = 0; part < along; ++part) {
                const int64_t i = row + part;
                if (i >= rows) {
                    begin[part] = end[part] = from;
                    key[part] = 0;
                    norm[part] = mean[part] = floats{};
                    continue;
                }
                end[part] = s.end(first + i, n);
                begin[part] = s.window > 0 ? std::max<int64_t>(0, end[part] - s.window) : 0;
                floats products = {};
                for (int64_t c = 0; c < width; c += LANES)
                    products += load(g + i * s.o_step + c, width - c) *
                                load(out + (first + i) * s.o_step + c, width - c);
                mean[part] = splat(sum(products));
                norm[part] = splat(log_norm[first + i]);
                key[part] = s.dropout.row(first_row + first + i);
            }
            for (int64_t j = from; j < seen; j += LANES) {
                floats p[along], d[along];
                for (int part = 0; part < along; ++part) {
                    const int64_t i = row + part;
                    if (j >= end[part] || j + LANES <= begin[part]) {
                        p[part] = d[part] = floats{};
                    } else {
                        const floats exponent = load(scores + i * padded + j) * s.scale - norm[part];
                        p[part] = exponential(exponent);
                        if (j + LANES > end[part] || j < begin[part]) {
                            const ints place = lanes() + int(j);
                            const ints open =
                                (place < int(end[part])) & (place >= int(begin[part]));
                            p[part] = choose(open, p[part], floats{});
                        }
                        floats dp = load(upstream + i * padded + j);
                        if (s.dropout.on) {
                            const floats kept = s.dropout.factors(key[part], j);
                            d[part] = p[part] * (dp * kept - mean[part]) * s.scale;
                            p[part] *= kept;
                        } else {
                            d[part] = p[part] * (dp - mean[part]) * s.scale;
                        }
                    }
                    if (i < rows) store(ds + i * padded + j, d[part]);
                }
                if constexpr (along == 1) {
                    std::memcpy(p_to + j, &p[0], sizeof(floats));
                    std::memcpy(ds_to + j, &d[0], sizeof(floats));
                } else {
                    const words low = __builtin_convertvector(to_bf16(p[0]), words);
                    const words high = __builtin_convertvector(to_bf16(p[along - 1]), words);
                    const words pair = low | high << 16;
                    std::memcpy(p_to + j, &pair, sizeof pair);
                    const words d_low = __builtin_convertvector(to_bf16(d[0]), words);
                    const words d_high = __builtin_convertvector(to_bf16(d[along - 1]), words);
                    const words d_pair = d_low | d_high << 16;
                    std::memcpy(ds_to + j, &d_pair, sizeof d_pair);
                }
            }
        }
        pack_down(q + first * s.q_step, s.q_step, rows, width, q_down, wide);
        pack_down(g, s.o_step, rows, width, g_down, wide);
        const int64_t count = s.end(first + rows - 1, n) - from, deep = up_to(rows, along) / along;
        multiply<E>(p_down + from, 1, padded, g_down, wide, deep, dv + from * wide, wide, count,
                    wide, true);
        multiply<E>(ds_down + from, 1, padded, q_down, wide, deep, dk + from * wide, wide, count,
                    wide, true);
        const int64_t last = std::min(up_to(n, along), seen);
        multiply<E>(units(ds + from), padded / along, 1, keys_down + from / along * wide, wide,
                    (last - from) / along, result, wide, rows, wide, false);
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t c = 0; c < width; c += LANES)
                store(dq + (first + row) * dq_step + c, load(result + row * wide + c), width - c);
    }
}

// Tasks, the longest segments first, so that no thread is left with a long one at the end.
std::vector<int64_t> by_length(const int64_t* starts, int64_t segments) {
    std::vector<int64_t> order(segments);
    for (int64_t i = 0; i < segments; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return starts[a + 1] - starts[a] > starts[b + 1] - starts[b];
    });
    return order;
}

template <class E>
void forward(const E* q, const E* k, const E* v, E* out, float* log_norm, const int64_t* starts,
             int64_t segments, const Shape<E>& s) {
    const std::vector<int64_t> order = by_length(starts, segments);
    const int64_t total = starts[segments];
#pragma omp parallel
    {
        Scratch scratch;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < segments * s.heads; ++task) {
            const int64_t segment = order[task / s.heads], head = task % s.heads;
            const int64_t start = starts[segment], n = starts[segment + 1] - start;
            const int64_t key_head = head / (s.heads / s.key_heads);
            if (n > 0)
                forward_head(q + start * s.q_step + head * s.width,
                             k + start * s.k_step + key_head * s.width,
                             v + start * s.v_step + key_head * s.width,
                             out + start * s.o_step + head * s.width,
                             log_norm + head * total + start, n, head * total + start, s, scratch);
        }
    }
}

template <class E>
void backward(const E* q, const E* k, const E* v, const E* out, const E* gradient,
              const float* log_norm, E* dq, E* dk, E* dv, const int64_t* starts, int64_t segments,
              float* parts, const Shape<E>& s) {
    // `parts`: 2 (heads, T, padded width) float: dK and dV of each query head, added up at the end, so
    // that the heads of a group can be worked on at once and the sum does not depend on who was
    // first.
    const std::vector<int64_t> order = by_length(starts, segments);
    const int64_t total = starts[segments], wide = s.padded_width(), size = total * wide;
#pragma omp parallel
    {
        Scratch scratch;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < segments * s.heads; ++task) {
            const int64_t segment = order[task / s.heads], head = task % s.heads;
            const int64_t start = starts[segment], n = starts[segment + 1] - start;
            const int64_t key_head = head / (s.heads / s.key_heads);
            if (n > 0)
                backward_head(q + start * s.q_step + head * s.width,
                              k + start * s.k_step + key_head * s.width,
                              v + start * s.v_step + key_head * s.width,
                              out + start * s.o_step + head * s.width,
                              gradient + start * s.o_step + head * s.width,
                              log_norm + head * total + start,
                              dq + start * s.q_step + head * s.width, s.q_step,
                              parts + head * size + start * wide,
                              parts + (s.heads + head) * size + start * wide, n,
                              head * total + start, s, scratch);
        }
        const int64_t group = s.heads / s.key_heads;
#pragma omp for schedule(dynamic, 16)
        for (int64_t row = 0; row < total; ++row)
            for (int64_t key_head = 0; key_head < s.key_heads; ++key_head)
                for (int64_t c = 0; c < s.width; c += LANES) {
                    floats a = {}, b = {};
                    for (int64_t member = 0; member < group; ++member) {
                        const int64_t head = key_head * group + member;
                        a += load(parts + head * size + row * wide + c);
                        b += load(parts + (s.heads + head) * size + row * wide + c);
                    }
                    store(dk + row * s.k_step + key_head * s.width + c, a, s.width - c);
                    store(dv + row * s.v_step + key_head * s.width + c, b, s.width - c);
                }
    }
}

// What both passes need to hold of sizes, and of where segments start.
template <class E>
Checks checked(const Shape<E>& s, const int64_t* starts, int64_t starts_is, int64_t segments,
               int64_t total) {
    constexpr int64_t along = Unit<E>::along;
    Checks checks;
    checks.that(s.width > 0 && s.width % WIDTH_MULTIPLE == 0, "this width of a head has no kernel")
        .that(s.key_heads > 0 && s.heads % s.key_heads == 0, "key heads do not divide the queries'")
        .that(s.causal || s.window == 0, "a window needs causal attention")
        .that(s.q_step % along == 0 && s.k_step % along == 0 && s.v_step % along == 0 &&
                  s.o_step % along == 0,
              "rows are an odd number of elements apart")
        .array("starts", starts, starts_is, segments + 1);
    if (checks.why()) return checks;
    bool ordered = starts[0] == 0 && starts[segments] == total;
    for (int64_t i = 0; i < segments; ++i) ordered = ordered && starts[i] <= starts[i + 1];
    return checks.that(ordered, "the segments' lengths do not sum to the rows");
}

}  // namespace

#define ATTENTION(name, E)                                                                         \
    extern "C" const char* attention_##name(                                                       \
        const E* q, int64_t q_is, const E* k, int64_t k_is, const E* v, int64_t v_is, E* out,      \
        int64_t out_is, float* log_norm, int64_t log_norm_is, const int64_t* starts,               \
        int64_t starts_is, int64_t segments, int64_t total, int64_t heads, int64_t key_heads,      \
        int64_t width, int64_t q_step, int64_t k_step, int64_t v_step, int64_t o_step,             \
        float scale, int64_t window, int64_t causal, int64_t seed, int64_t threshold,              \
        float factor) {                                                                            \
        const Shape<E> s{heads,  key_heads, width,  q_step, k_step, v_step,                        \
                         o_step, scale,     window, causal != 0, {seed, threshold, factor}};       \
        const int64_t q_width = heads * width, k_width = key_heads * width;                        \
        const char* why = checked(s, starts, starts_is, segments, total)                           \
                              .rows("q", q, q_is, total, q_width, q_step)                          \
                              .rows("k", k, k_is, total, k_width, k_step)                          \
                              .rows("v", v, v_is, total, k_width, v_step)                          \
                              .rows("out", out, out_is, total, q_width, o_step)                    \
                              .array("log_norm", log_norm, log_norm_is, heads * total)             \
                              .why();                                                              \
        if (!why) forward(q, k, v, out, log_norm, starts, segments, s);                            \
        return why;                                                                                \
    }                                                                                              \
    extern "C" const char* attention_backward_##name(                                              \
        const E* q, int64_t q_is, const E* k, int64_t k_is, const E* v, int64_t v_is,              \
        const E* out, int64_t out_is, const E* gradient, int64_t gradient_is,                      \
        const float* log_norm, int64_t log_norm_is, E* dq, int64_t dq_is, E* dk, int64_t dk_is,    \
        E* dv, int64_t dv_is, float* parts, int64_t parts_is, const int64_t* starts,               \
        int64_t starts_is, int64_t segments, int64_t total, int64_t heads, int64_t key_heads,      \
        int64_t width, int64_t q_step, int64_t k_step, int64_t v_step, int64_t o_step,             \
        float scale, int64_t window, int64_t causal, int64_t seed, int64_t threshold,              \
        float factor) {                                                                            \
        const Shape<E> s{heads,  key_heads, width,  q_step, k_step, v_step,                        \
                         o_step, scale,     window, causal != 0, {seed, threshold, factor}};       \
        const int64_t q_width = heads * width, k_width = key_heads * width;                        \
        const char* why = checked(s, starts, starts_is, segments, total)                           \
                              .rows("q", q, q_is, total, q_width, q_step)                          \
                              .rows("k", k, k_is, total, k_width, k_step)                          \
                              .rows("v", v, v_is, total, k_width, v_step)                          \
                              .rows("out", out, out_is, total, q_width, o_step)                    \
                              .rows("gradient", gradient, gradient_is, total, q_width, o_step)     \
                              .array("log_norm", log_norm, log_norm_is, heads * total)             \
                              .rows("dq", dq, dq_is, total, q_width, q_step)                       \
                              .rows("dk", dk, dk_is, total, k_width, k_step)                       \
                              .rows("dv", dv, dv_is, total, k_width, v_step)                       \
                              .array("parts", parts, parts_is, 2 * heads * total * s.padded_width())          \
                              .why();                                                              \
        if (!why)                                                                                  \
            backward(q, k, v, out, gradient, log_norm, dq, dk, dv, starts, segments, parts, s);    \
        return why;                                                                                \
    }

ATTENTION(bf16, bf16)
ATTENTION(float, float)
