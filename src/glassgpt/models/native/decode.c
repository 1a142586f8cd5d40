/* One decode step of a GPT: tokens in, logits out, with a cache of keys and values.
 *
 * At batch 1 a step reads every weight once and does two operations with it, so memory sets the pace. Everything here
 * serves that: weights lie in the order in which they are read, in as few bits as asked for, threads share each matrix
 * by rows, and between matrices next to nothing happens. The mathematics is that of gpt_array.py, in float32.
 *
 * A matrix is cut into tiles of LANES output rows. Inside a tile rows are interleaved, so that each lane of a vector
 * is a row with a sum of its own: no sum is ever taken across lanes, and a row's result does not depend on the number
 * of threads or on how many tokens are fed together.
 *
 * C11 with the vector extensions of GCC and Clang, which make plain code where a machine has no such vectors. Only
 * dot products of bytes and 16-bit floats need intrinsics, and each has a plain version beside it. Rounded sums follow
 * the code as written: no -ffast-math.
 *
 * engine.py checks every size and id before it calls; nothing is checked here.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

/* ---- Vectors ---- */

#ifndef VECTOR_BYTES
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif

/* Which intrinsics fit these vectors. -DPLAIN leaves all of them out, to test the plain versions anywhere. */
#if !defined(PLAIN) && VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
#define BYTES_AVX512 1
#elif !defined(PLAIN) && VECTOR_BYTES == 32 && defined(__AVXVNNI__)
#define BYTES_AVXVNNI 1
#elif !defined(PLAIN) && VECTOR_BYTES == 32 && defined(__AVX2__)
#define BYTES_AVX2 1
#elif !defined(PLAIN) && VECTOR_BYTES == 16 && defined(__ARM_FEATURE_DOTPROD)
#define BYTES_NEON 1
#endif

#define LANES (VECTOR_BYTES / 4)
#define BLOCK 32      /* columns that share a scale */
#define PAIR 64       /* two blocks; every row is padded with zeros to whole pairs */
#define ALIGNMENT 64  /* of every buffer: a cache line */
#define CHUNK 256     /* columns of the MLP's hidden layer that a thread takes at a time; whole pairs */
#if VECTOR_BYTES == 32
#define TOKENS 3      /* tokens that a tile is multiplied with at a time: their sums fill the 16 registers of AVX2 */
#else
#define TOKENS 4      /* AVX-512 and Arm have 32 */
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef int32_t Ints __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES), may_alias));

INLINE Floats load(const float *from) { return *(const Floats *)from; }

INLINE Floats all(float value) { return (Floats){0} + value; }

INLINE size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* ---- 16-bit floats ---- */

INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* IEEE half to float: the exponent is moved to its new place by a multiplication, which also sets subnormals right. */
INLINE float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = (uint32_t)(half & 0x7fff) << 13;
    if (rest >= 0x7c00u << 13) return from_bits(sign | 0x7f800000 | rest); /* infinity and NaN */
    return from_bits(sign | to_bits(from_bits(rest) * 0x1p112f));
}

/* Float to half, to nearest and even: adding a large power of two lets the adder round at the right bit. */
INLINE uint16_t float_to_half(float value) {
    uint32_t sign = to_bits(value) >> 16 & 0x8000;
    float size = fabsf(value);
    if (!(size < 65520.0f)) return (uint16_t)(sign | (size != size ? 0x7e00 : 0x7c00));
    uint32_t exponent = to_bits(size) >> 23 < 113 ? 113 : to_bits(size) >> 23; /* 113: the smallest normal half */
    float magic = from_bits((exponent + 13) << 23);
    uint32_t mantissa = to_bits(size + magic) - to_bits(magic); /* the rounded mantissa, its leading one included */
    return (uint16_t)(sign | (((exponent - 113) << 10) + mantissa));
}

/* Bfloat16 is a float's upper half, rounded to nearest and even. */
INLINE uint16_t float_to_bfloat(float value) {
    uint32_t bits = to_bits(value);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE Floats load_halves(const uint16_t *from) {
#if !defined(PLAIN) && VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif !defined(PLAIN) && VECTOR_BYTES == 32 && defined(__F16C__)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#elif !defined(PLAIN) && VECTOR_BYTES == 16 && defined(__ARM_NEON) && defined(__aarch64__)
    return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    Floats result;
    for (int i = 0; i < LANES; i++) result[i] = half_to_float(from[i]);
    return result;
#endif
}

INLINE void store_halves(uint16_t *to, Floats values) {
#if !defined(PLAIN) && VECTOR_BYTES == 64 && defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph((__m512)values, _MM_FROUND_TO_NEAREST_INT));
#elif !defined(PLAIN) && VECTOR_BYTES == 32 && defined(__F16C__)
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph((__m256)values, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < LANES; i++) to[i] = float_to_half(values[i]);
#endif
}

/* ---- exp and the activations, plain formulas without a branch so that loops over them become vector code ---- */

/* e^x to 1e-7 of itself: 2^n times a polynomial (least largest error, 3e-9) in what is left, |r| <= ln(2) / 2. */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln(2) in two parts: n times the first is exact */
    float p = 0.001381459878757596f;
    p = p * r + 0.008368716575205326f;
    p = p * r + 0.04166838899254799f;
    p = p * r + 0.1666652113199234f;
    p = p * r + 0.4999999403953552f;
    p = p * r * r + r + 1.0f;
    return p * from_bits((uint32_t)((int32_t)n + 127) << 23);
}

/* The probability that a standard normal number is above z >= 0, to 5e-7 of itself while z < 5 (beyond, exp(-z^2/2)
 * loses digits that do not count): exp(-z^2 / 2) times a polynomial in t = 2 / (2 + z / sqrt 2). */
INLINE float normal_tail(float z) {
    float y = z * 0.707106781f, t = 2.0f / (2.0f + y), p = 0.0363149456679821f;
    p = p * t - 0.1942804455757141f;
    p = p * t + 0.3898535966873169f;
    p = p * t - 0.3022054433822632f;
    p = p * t - 0.00996090192347765f;
    p = p * t + 0.027838392183184624f;
    p = p * t + 0.058073535561561584f;
    p = p * t + 0.18470513820648193f;
    p = p * t + 0.24533511698246002f;
    p = p * t + 0.28223690390586853f;
    p = p * t + 0.2820891737937927f;
    return 0.5f * exponential(-0.5f * z * z) * p * t;
}

/* x times the probability that a standard normal number is below x. */
INLINE float gelu(float x) {
    float tail = normal_tail(fabsf(x));
    return x * (x < 0 ? tail : 1.0f - tail);
}

INLINE float silu(float x) { return x / (1.0f + exponential(-x)); }

/* 0.5 (1 + tanh u) is the logistic function of 2 u. */
INLINE float gelu_tanh(float x) { return x / (1.0f + exponential(-1.59576912f * (x + 0.044715f * x * x * x))); }

INLINE float relu2(float x) { return x > 0 ? x * x : 0.0f; }

/* ---- The model, as engine.py describes it ---- */

enum { FLOAT32, BFLOAT16, INT8, INT4 };
enum { GELU, GELU_TANH, RELU2, SWIGLU };

typedef struct {
    const uint8_t *tiles;
    const float *bias; /* or NULL */
    int32_t format, n_out, n_in;
} Matrix;

typedef struct {
    const float *weight, *bias; /* no bias: RMSNorm. No weight: no norm */
} Norm;

typedef struct {
    Norm ln_1, ln_2;
    Matrix c_attn, attn_proj, c_fc, mlp_proj;
    const float *q_norm, *k_norm; /* (head_size,) or NULL */
} Layer;

typedef struct {
    int32_t vocab_size, n_layer, n_head, n_kv_head, head_size, n_embd, n_hidden;
    int32_t activation, post_norm, quantised; /* quantised: any matrix is INT8 or INT4 */
    float epsilon;
    const float *positions;    /* (context, n_embd) added to the embedding, or NULL */
    const double *frequencies; /* (head_size / 2,) radians a position, or NULL: rotary positions */
    const float *slopes;       /* (n_head,) or NULL: ALiBi */
    const Layer *layers;
    Matrix embedding, output;
    Norm ln_f;
} Model;

/* Keys and values, (layer, key head, capacity, head_stride): heads padded with zeros to whole vectors. */
typedef struct {
    void *keys, *values;
    int32_t capacity, halves; /* halves: 16-bit floats */
} Cache;

INLINE int head_stride(const Model *m) { return (int)round_up((size_t)m->head_size, LANES); }

/* ---- Packing ----
 *
 * A tile holds LANES rows of `columns` (n_in in whole pairs of blocks), as one stretch that is read from its beginning
 * to its end: scales in a place of their own would be a second stream, and halved the speed. Row r, column k lies
 *   FLOAT32   at float k LANES + r
 *   BFLOAT16  at 16-bit number 2 ((k / 2) LANES + r) + k % 2: two columns in one 32-bit lane
 *   INT8      for each pair of blocks: LANES half-precision scales of the first block, as many of the second (a pair,
 *             so that what follows stays aligned), then bytes, four columns in one lane
 *   INT4      for each pair of blocks: scales and minima of the first, of the second, then eight columns in one lane:
 *             the low halves of its bytes are four columns, the high halves those 16 further on
 */

#if defined(BYTES_AVX512) || defined(BYTES_AVXVNNI)
#define BIAS 128 /* these multiply unsigned bytes with signed ones: weights are stored as q + 128 */
#else
#define BIAS 0
#endif

#define INT8_SCALES (2 * 2 * LANES)     /* bytes of a pair's scales */
#define INT4_SCALES (2 * 2 * 2 * LANES) /* and minima */
#define INT8_PAIR (INT8_SCALES + PAIR * LANES)
#define INT4_PAIR (INT4_SCALES + PAIR / 2 * LANES)

INLINE int columns_of(const Matrix *m) { return (int)round_up((size_t)m->n_in, PAIR); }

INLINE int tiles_of(const Matrix *m) { return (m->n_out + LANES - 1) / LANES; }

INLINE size_t tile_bytes(int format, size_t columns) {
    static const size_t of_pair[] = {
        [FLOAT32] = 4 * PAIR * LANES, [BFLOAT16] = 2 * PAIR * LANES, [INT8] = INT8_PAIR, [INT4] = INT4_PAIR
    };
    return columns / PAIR * of_pair[format];
}

static const uint8_t *tile_of(const Matrix *m, int tile) {
    return m->tiles + (size_t)tile * tile_bytes(m->format, (size_t)columns_of(m));
}

/* Where in a tile the scales of column k's block and row r are, as a 16-bit number, and where its byte is. */
INLINE size_t int8_scale(int k, int r) { return (size_t)(k / PAIR * INT8_PAIR / 2 + k % PAIR / BLOCK * LANES + r); }

INLINE size_t int4_scale(int k, int r) { return (size_t)(k / PAIR * INT4_PAIR / 2 + k % PAIR / BLOCK * 2 * LANES + r); }

INLINE size_t lane_byte(int k, int r) { return (size_t)(k / 4 * 4 * LANES + 4 * r + k % 4); }

INLINE size_t int8_byte(int k, int r) { return (size_t)(k / PAIR * INT8_PAIR + INT8_SCALES) + lane_byte(k % PAIR, r); }

INLINE size_t int4_byte(int k, int r) {
    size_t block = (size_t)(k / PAIR * INT4_PAIR + INT4_SCALES + k % PAIR / BLOCK * (BLOCK / 2) * LANES);
    return block + lane_byte(k % 16, r);
}

INLINE float rounded(float value, float least, float most) {
    value = rintf(value);
    return value < least ? least : value > most ? most : value;
}

/* A block as d q, |q| <= 127. A block that already is of this kind, with 127 in it, comes out as it was. */
static void pack_int8_block(const float *values, int k, int r, uint8_t *tile) {
    float largest = 0;
    for (int i = 0; i < BLOCK; i++) largest = fmaxf(largest, fabsf(values[i]));
    uint16_t scale = float_to_half(fminf(largest / 127, 65504.0f));
    float d = half_to_float(scale), inverse = d > 0 ? 1 / d : 0;
    ((uint16_t *)(void *)tile)[int8_scale(k, r)] = scale;
    for (int i = 0; i < BLOCK; i++) {
        tile[int8_byte(k + i, r)] = (uint8_t)((int)rounded(values[i] * inverse, -127, 127) + BIAS);
    }
}

/* A block's levels 0 to 15 as d q + m, with d and m rounded to halves. */
typedef struct {
    float levels[BLOCK], error; /* sum of squares */
    uint16_t scale, minimum;
} Fit;

static void int4_levels(const float *values, float d, float m, Fit *fit) {
    fit->scale = float_to_half(d);
    fit->minimum = float_to_half(m);
    d = half_to_float(fit->scale);
    m = half_to_float(fit->minimum);
    float inverse = d > 0 ? 1 / d : 0, error = 0;
#pragma omp simd reduction(+ : error)
    for (int i = 0; i < BLOCK; i++) {
        float level = rounded((values[i] - m) * inverse, 0, 15), off = d * level + m - values[i];
        fit->levels[i] = level;
        error += off * off;
    }
    fit->error = error;
}

/* The d and m that fit best (least squares) once every value has its level. */
static void fit_line(const float *values, const float *levels, float *d, float *m) {
    float q = 0, qq = 0, x = 0, qx = 0;
#pragma omp simd reduction(+ : q, qq, x, qx)
    for (int i = 0; i < BLOCK; i++) {
        q += levels[i];
        qq += levels[i] * levels[i];
        x += values[i];
        qx += levels[i] * values[i];
    }
    float spread = BLOCK * qq - q * q;
    if (spread <= 0) return;
    *d = (BLOCK * qx - q * x) / spread;
    *m = (x - *d * q) / BLOCK;
}

/* A block as d q + m, 0 <= q <= 15: the best of a few ranges around the block's own. The first is the range itself,
 * which gives a block that already is of this kind back as it was. */
static void pack_int4_block(const float *values, int k, int r, uint8_t *tile) {
    static const float widths[] = {15, 14, 14.5f, 15.5f, 16, 17, 18}; /* steps from the least to the largest value */
    float least = values[0], most = values[0];
    Fit best = {.error = INFINITY}, fit;
    for (int i = 1; i < BLOCK; i++) {
        least = values[i] < least ? values[i] : least;
        most = values[i] > most ? values[i] : most;
    }
    for (size_t c = 0; c < sizeof widths / sizeof *widths && best.error > 0; c++) {
        float d = (most - least) / widths[c], m = widths[c] < 15 ? least : (least + most - 15 * d) / 2;
        int4_levels(values, d, m, &fit);
        if (fit.error < best.error) best = fit;
        fit_line(values, fit.levels, &d, &m);
        int4_levels(values, d, m, &fit);
        if (fit.error < best.error) best = fit;
    }
    ((uint16_t *)(void *)tile)[int4_scale(k, r)] = best.scale;
    ((uint16_t *)(void *)tile)[int4_scale(k, r) + LANES] = best.minimum;
    for (int i = 0; i < BLOCK; i++) tile[int4_byte(k + i, r)] |= (uint8_t)((int)best.levels[i] << (i < 16 ? 0 : 4));
}

static void pack_block(int format, const float *values, int k, int r, uint8_t *tile) {
    uint16_t *halves = (uint16_t *)(void *)tile;
    if (format == INT8) pack_int8_block(values, k, r, tile);
    if (format == INT4) pack_int4_block(values, k, r, tile);
    for (int i = 0; i < BLOCK && format == FLOAT32; i++) ((float *)(void *)tile)[(k + i) * LANES + r] = values[i];
    for (int i = 0; i < BLOCK && format == BFLOAT16; i++) {
        halves[2 * ((k + i) / 2 * LANES + r) + i % 2] = float_to_bfloat(values[i]);
    }
}

size_t glass_packed_bytes(int format, int n_out, int n_in) {
    Matrix m = {.format = format, .n_out = n_out, .n_in = n_in};
    return (size_t)tiles_of(&m) * tile_bytes(format, (size_t)columns_of(&m));
}

/* Packs the matrix whose element (row, column) is from[row row_stride + column column_stride] into zeroed `tiles`. */
void glass_pack(int format, int n_out, int n_in, const float *from, size_t row_stride, size_t column_stride,
                uint8_t *tiles) {
    Matrix m = {.format = format, .n_out = n_out, .n_in = n_in};
    size_t columns = (size_t)columns_of(&m), size = tile_bytes(format, columns);
    float values[BLOCK];
    for (int tile = 0; tile < tiles_of(&m); tile++) {
        for (int k = 0; k < (int)columns; k += BLOCK) {
            for (int r = 0; r < LANES; r++) {
                size_t row = (size_t)tile * LANES + (size_t)r;
                for (int i = 0; i < BLOCK; i++) {
                    int inside = row < (size_t)n_out && k + i < n_in;
                    values[i] = inside ? from[row * row_stride + (size_t)(k + i) * column_stride] : 0.0f;
                }
                pack_block(format, values, k, r, tiles + (size_t)tile * size);
            }
        }
    }
}

/* One row of a matrix as floats: an embedding, or what the packed weights stand for. */
static void unpack_row(const Matrix *m, int row, float *to) {
    int r = row % LANES;
    const uint8_t *tile = tile_of(m, row / LANES);
    const uint16_t *halves = (const uint16_t *)(const void *)tile;
    for (int k = 0; k < m->n_in; k++) {
        if (m->format == FLOAT32) to[k] = ((const float *)(const void *)tile)[k * LANES + r];
        if (m->format == BFLOAT16) to[k] = from_bits((uint32_t)halves[2 * (k / 2 * LANES + r) + k % 2] << 16);
        if (m->format == INT8) {
            uint8_t byte = tile[int8_byte(k, r)];
            to[k] = half_to_float(halves[int8_scale(k, r)]) * (float)(BIAS ? byte - BIAS : (int8_t)byte);
        }
        if (m->format == INT4) {
            int level = tile[int4_byte(k, r)] >> (k % BLOCK < 16 ? 0 : 4) & 15;
            size_t scale = int4_scale(k, r);
            to[k] = half_to_float(halves[scale]) * (float)level + half_to_float(halves[scale + LANES]);
        }
    }
}

void glass_unpack(const Matrix *m, float *to) {
    for (int row = 0; row < m->n_out; row++) unpack_row(m, row, to + (size_t)row * (size_t)m->n_in);
}

/* ---- The input of a matrix: rows of floats, and the same quantised to bytes, a scale for each block ---- */

typedef struct {
    float *values;
    size_t stride; /* floats from row to row: whole pairs of blocks, zeros at the end */
    int8_t *bytes;
    float *scales;    /* (rows, blocks) */
    int32_t *totals;  /* of a block's bytes: what the BIAS of the weights is multiplied with */
    float *sums;      /* totals times scales: what the minima of the weights are multiplied with */
} Rows;

static void quantise_block(const float *values, int8_t *bytes, float *scale, int32_t *total, float *block_sum) {
    float largest = 0;
    int32_t sum = 0;
#pragma omp simd reduction(max : largest)
    for (int i = 0; i < BLOCK; i++) {
        float size = fabsf(values[i]);
        largest = size > largest ? size : largest;
    }
    float inverse = largest > 0 ? 127.0f / largest : 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < BLOCK; i++) {
        int32_t q = (int32_t)rintf(values[i] * inverse);
        bytes[i] = (int8_t)q;
        sum += q;
    }
    *scale = largest / 127.0f;
    *total = sum;
    *block_sum = *scale * (float)sum;
}

static void quantise(const Rows *rows, size_t row, size_t start, size_t end) {
    for (size_t k = start; k < end; k += BLOCK) {
        size_t place = row * rows->stride + k, block = place / BLOCK;
        quantise_block(rows->values + place, rows->bytes + place, rows->scales + block, rows->totals + block,
                       rows->sums + block);
    }
}

/* ---- A tile times T tokens: LANES results each ---- */

/* An addition waits four cycles for the one before, so each row has four sums, in an array of constant size that the
 * compiler keeps in registers. */
INLINE void float32_tile(const uint8_t *tile, int columns, const Rows *x, size_t first, Floats *to, const int T) {
    const float *w = (const float *)(const void *)tile;
    const size_t stride = x->stride;
    const float *values = x->values + first * stride;
    Floats sums[TOKENS][4] = {{{0}}};
    for (int k = 0; k < columns; k += 4, w += 4 * LANES, values += 4) {
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sums[t][i] += load(w + i * LANES) * values[(size_t)t * stride + (size_t)i];
        }
    }
    for (int t = 0; t < T; t++) to[t] = (sums[t][0] + sums[t][1]) + (sums[t][2] + sums[t][3]);
}

INLINE void bfloat16_tile(const uint8_t *tile, int columns, const Rows *x, size_t first, Floats *to, const int T) {
    const Words *w = (const Words *)(const void *)tile;
    const size_t stride = x->stride;
    const float *values = x->values + first * stride;
    Floats sums[TOKENS][4] = {{{0}}};
    for (int k = 0; k < columns; k += 4, w += 2, values += 4) {
        Floats four[4] = {(Floats)(w[0] << 16), (Floats)(w[0] & 0xffff0000u),
                          (Floats)(w[1] << 16), (Floats)(w[1] & 0xffff0000u)};
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sums[t][i] += four[i] * values[(size_t)t * stride + (size_t)i];
        }
    }
    for (int t = 0; t < T; t++) to[t] = (sums[t][0] + sums[t][1]) + (sums[t][2] + sums[t][3]);
}

INLINE int32_t four_bytes(const int8_t *from) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* For each lane, the dot product of a block's 32 weights with 32 bytes: INT8, then INT4. `total` is the bytes' sum. */

#if defined(BYTES_AVX512) || defined(BYTES_AVXVNNI)

INLINE Ints add_dots(Ints sum, Ints weights, Ints x) {
#if defined(BYTES_AVX512)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)x);
#else
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, (__m256i)x);
#endif
}

INLINE Ints int8_block(const uint8_t *w, const int8_t *x, int32_t total) {
    Ints sum = (Ints){0} - BIAS * total;
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        sum = add_dots(sum, *(const Ints *)(const void *)(w + g * VECTOR_BYTES), (Ints){0} + four_bytes(x + 4 * g));
    }
    return sum;
}

INLINE Ints int4_block(const uint8_t *w, const int8_t *x) {
    Ints low = {0}, high = {0};
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        Ints both = *(const Ints *)(const void *)(w + g * VECTOR_BYTES);
        low = add_dots(low, both & 0x0f0f0f0f, (Ints){0} + four_bytes(x + 4 * g));
        high = add_dots(high, both >> 4 & 0x0f0f0f0f, (Ints){0} + four_bytes(x + 16 + 4 * g));
    }
    return low + high;
}

#elif defined(BYTES_AVX2)

/* maddubs multiplies unsigned bytes with signed ones and adds pairs in 16 bits, which |x| * (w with x's sign) fits. */
INLINE Ints int8_block(const uint8_t *w, const int8_t *x, int32_t total) {
    __m256i sum = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    (void)total;
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m256i four = _mm256_set1_epi32(four_bytes(x + 4 * g));
        __m256i weights = _mm256_sign_epi8(_mm256_load_si256((const __m256i *)(const void *)(w + g * 32)), four);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(four), weights), ones));
    }
    return (Ints)sum;
}

/* A whole block fits 16 bits here: 32 / 4 pairs of at most 2 * 15 * 127 give 30,480. */
INLINE Ints int4_block(const uint8_t *w, const int8_t *x) {
    __m256i sum = _mm256_setzero_si256(), mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        __m256i both = _mm256_load_si256((const __m256i *)(const void *)(w + g * 32));
        __m256i low = _mm256_and_si256(both, mask), high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(low, _mm256_set1_epi32(four_bytes(x + 4 * g))));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(high, _mm256_set1_epi32(four_bytes(x + 16 + 4 * g))));
    }
    return (Ints)_mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

#elif defined(BYTES_NEON)

INLINE Ints int8_block(const uint8_t *w, const int8_t *x, int32_t total) {
    int32x4_t sum = vdupq_n_s32(0);
    (void)total;
    for (int g = 0; g < 8; g++) {
        int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(x + 4 * g)));
        sum = vdotq_s32(sum, vld1q_s8((const int8_t *)w + g * 16), four);
    }
    return (Ints)sum;
}

INLINE Ints int4_block(const uint8_t *w, const int8_t *x) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int g = 0; g < 4; g++) {
        uint8x16_t both = vld1q_u8(w + g * 16);
        int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
        sum = vdotq_s32(sum, low, vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(x + 4 * g))));
        sum = vdotq_s32(sum, high, vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(x + 16 + 4 * g))));
    }
    return (Ints)sum;
}

#else

INLINE Ints int8_block(const uint8_t *w, const int8_t *x, int32_t total) {
    Ints sum = {0};
    (void)total;
    for (int k = 0; k < BLOCK; k++) {
        for (int r = 0; r < LANES; r++) sum[r] += (int8_t)w[lane_byte(k, r)] * x[k];
    }
    return sum;
}

INLINE Ints int4_block(const uint8_t *w, const int8_t *x) {
    Ints sum = {0};
    for (int k = 0; k < 16; k++) {
        for (int r = 0; r < LANES; r++) {
            uint8_t both = w[lane_byte(k, r)];
            sum[r] += (both & 15) * x[k] + (both >> 4) * x[k + 16];
        }
    }
    return sum;
}

#endif

INLINE Floats as_floats(Ints values) { return __builtin_convertvector(values, Floats); }

INLINE void int8_tile(const uint8_t *tile, int columns, const Rows *x, size_t first, Floats *to, const int T) {
    const size_t stride = x->stride, blocks = stride / BLOCK;
    const int8_t *bytes = x->bytes + first * stride;
    const float *x_scales = x->scales + first * blocks;
    const int32_t *totals = x->totals + first * blocks;
    Floats sums[TOKENS] = {{0}};
    for (int b = 0; b < columns / BLOCK; b++, bytes += BLOCK) {
        const uint8_t *pair = tile + b / 2 * INT8_PAIR, *w = pair + INT8_SCALES + b % 2 * BLOCK * LANES;
        Floats d = load_halves((const uint16_t *)(const void *)pair + b % 2 * LANES);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            size_t block = (size_t)t * blocks + (size_t)b;
            Ints dots = int8_block(w, bytes + (size_t)t * stride, totals[block]);
            sums[t] += as_floats(dots) * (d * x_scales[block]);
        }
    }
    for (int t = 0; t < T; t++) to[t] = sums[t];
}

/* A block's part of a row is the sum of (d q + m)(s x) = s (d sum(q x) + m sum(x)). */
INLINE void int4_tile(const uint8_t *tile, int columns, const Rows *x, size_t first, Floats *to, const int T) {
    const size_t stride = x->stride, blocks = stride / BLOCK;
    const int8_t *bytes = x->bytes + first * stride;
    const float *x_scales = x->scales + first * blocks, *x_sums = x->sums + first * blocks;
    Floats sums[TOKENS] = {{0}}, minima[TOKENS] = {{0}};
    for (int b = 0; b < columns / BLOCK; b++, bytes += BLOCK) {
        const uint8_t *pair = tile + b / 2 * INT4_PAIR, *w = pair + INT4_SCALES + b % 2 * (BLOCK / 2) * LANES;
        const uint16_t *scales = (const uint16_t *)(const void *)pair + b % 2 * 2 * LANES;
        Floats d = load_halves(scales), m = load_halves(scales + LANES);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            size_t block = (size_t)t * blocks + (size_t)b;
            sums[t] += as_floats(int4_block(w, bytes + (size_t)t * stride)) * (d * x_scales[block]);
            minima[t] += m * x_sums[block];
        }
    }
    for (int t = 0; t < T; t++) to[t] = sums[t] + minima[t];
}

INLINE void any_tile(int format, const uint8_t *tile, int columns, const Rows *x, size_t first, Floats *sums,
                     const int T) {
    switch (format) {
    case FLOAT32: float32_tile(tile, columns, x, first, sums, T); break;
    case BFLOAT16: bfloat16_tile(tile, columns, x, first, sums, T); break;
    case INT8: int8_tile(tile, columns, x, first, sums, T); break;
    default: int4_tile(tile, columns, x, first, sums, T);
    }
}

/* T as a constant in each branch, so that the sums of its tokens stay in registers. */
static void multiply_tile(int format, const uint8_t *tile, int columns, const Rows *x, size_t first, Floats *sums,
                          int T) {
    switch (T) {
    case 1: any_tile(format, tile, columns, x, first, sums, 1); break;
    case 2: any_tile(format, tile, columns, x, first, sums, 2); break;
    case 3: any_tile(format, tile, columns, x, first, sums, 3); break;
    default: any_tile(format, tile, columns, x, first, sums, TOKENS);
    }
}

/* ---- What a step works on ---- */

/* The buffers of a step, for n tokens; every row is padded with zeros to whole pairs of blocks. */
typedef struct {
    const Model *model;
    const Cache *cache;
    const int32_t *tokens;
    int n, position, first_logits;
    float *logits;   /* (n - first_logits, vocab_size) */
    float *x;        /* (n, n_embd): the residual stream */
    float *qkv;      /* (n, heads head_size): what c_attn gives */
    float *queries;  /* (n, n_head, head_stride), ready for dot products with keys */
    float *turns;    /* (n, 2, head_size / 2): cosines and sines of this step's rotary angles */
    float *raw;      /* (n, n_hidden or twice that): what c_fc gives */
    float *scores;   /* (threads, capacity) */
    size_t score_stride;
    Rows stream, normed, mixed, hidden; /* inputs of matrices; stream is x itself */
} Work;

#define PHASES_OF_LAYER 11 /* at most; see `run` */
#define OTHER_PHASES 4

/* ---- Threads: a team walks through a step together, sharing the items of each phase ----
 *
 * A phase is over when its items are done, not when every thread has come by: a helper whose core is lent to another
 * program holds the others up only while it has an item in hand. A helper that is late finds nothing left and catches
 * up; if it still is in the old step when the next begins, the caller walks that one alone.
 */

typedef struct {
    _Alignas(ALIGNMENT) atomic_int next; /* the first item that nobody has taken */
    atomic_int done;                     /* items finished */
} Phase;

/* One thread's way through a step. */
typedef struct {
    const Work *work;
    Phase *phase;
    int thread, threads;
    int finished; /* items of this phase that this thread has finished */
} Walk;

INLINE void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Takes up to `chunk` of `count` items: [*first, *end). When none are left it returns 0, once all are done. */
static int take(Walk *walk, int count, int chunk, int *first, int *end) {
    Phase *phase = walk->phase;
    *first = atomic_fetch_add_explicit(&phase->next, chunk, memory_order_relaxed);
    *end = *first + chunk < count ? *first + chunk : count;
    if (*first < count) {
        walk->finished += *end - *first; /* by the time of the next call */
        return 1;
    }
    int done = walk->finished;
    if (done) done += atomic_fetch_add_explicit(&phase->done, done, memory_order_acq_rel);
    for (int spins = 0; done < count; spins++) {
        if (spins < 5000) relax(); /* tens of microseconds; then perhaps the thread we wait for wants this core */
        else sched_yield();
        done = atomic_load_explicit(&phase->done, memory_order_acquire);
    }
    atomic_thread_fence(memory_order_acquire);
    walk->finished = 0;
    walk->phase++;
    return 0;
}

static void run(Walk *walk);

typedef struct {
    Work work;               /* of the step that helpers may be in */
    Phase *phases, *alone;   /* of that step; of one that the caller walks alone */
    int n_phases, size, home; /* home: helpers are to end */
    int inside;              /* helpers in the step; under the mutex */
    atomic_uint steps;       /* steps begun: what a helper waits for */
    pthread_mutex_t mutex;
    pthread_cond_t begun;
    pthread_t helpers[];
} Team;

typedef struct {
    Team *team;
    int index;
} Start;

#define AWAKE 100e-6 /* seconds that a helper spins after a step, for the next one may come soon */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void wait_for_step(Team *team, unsigned seen) {
    double until = seconds() + AWAKE;
    for (int spins = 0; spins % 64 || seconds() < until; spins++) {
        if (atomic_load_explicit(&team->steps, memory_order_relaxed) != seen) return;
        relax();
    }
    pthread_mutex_lock(&team->mutex);
    while (atomic_load(&team->steps) == seen) pthread_cond_wait(&team->begun, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static void *help(void *argument) {
    Start start = *(Start *)argument;
    Team *team = start.team;
    free(argument);
    for (unsigned seen = 0;;) {
        wait_for_step(team, seen);
        pthread_mutex_lock(&team->mutex);
        seen = atomic_load(&team->steps);
        int home = team->home;
        team->inside += !home;
        pthread_mutex_unlock(&team->mutex);
        if (home) return NULL;
        run(&(Walk){&team->work, team->phases, start.index, team->size, 0});
        pthread_mutex_lock(&team->mutex);
        team->inside--;
        pthread_mutex_unlock(&team->mutex);
    }
}

static void clear(Phase *phases, int n) {
    for (int i = 0; i < n; i++) {
        atomic_init(&phases[i].next, 0);
        atomic_init(&phases[i].done, 0);
    }
}

/* Wakes the helpers for a step, or with `work` NULL to end. 0 if one of them is still in the step before. */
static int begin(Team *team, const Work *work) {
    pthread_mutex_lock(&team->mutex);
    int ready = !work || !team->inside;
    if (ready) {
        if (work) team->work = *work;
        if (work) clear(team->phases, team->n_phases);
        team->home = !work;
        atomic_fetch_add(&team->steps, 1);
        pthread_cond_broadcast(&team->begun);
    }
    pthread_mutex_unlock(&team->mutex);
    return ready;
}

static void walk_step(Team *team, const Work *work) {
    if (team->size > 1 && begin(team, work)) {
        run(&(Walk){&team->work, team->phases, 0, team->size, 0});
    } else {
        clear(team->alone, team->n_phases);
        run(&(Walk){work, team->alone, 0, 1, 0});
    }
}

void glass_team_free(Team *team) {
    begin(team, NULL);
    for (int i = 0; i < team->size - 1; i++) pthread_join(team->helpers[i], NULL);
    pthread_mutex_destroy(&team->mutex);
    pthread_cond_destroy(&team->begun);
    free(team->phases);
    free(team);
}

static void hire(Team *team, int size) {
    for (; team->size < size; team->size++) {
        Start *start = malloc(sizeof *start);
        if (!start) return;
        *start = (Start){team, team->size};
        if (pthread_create(&team->helpers[team->size - 1], NULL, help, start)) {
            free(start);
            return;
        }
    }
}

/* The caller and `size` - 1 helpers, or as many as the system grants, for models of n_layer layers. NULL without
 * memory. */
Team *glass_team_new(int size, int n_layer) {
    Team *team = calloc(1, sizeof(Team) + (size_t)size * sizeof(pthread_t));
    int n_phases = PHASES_OF_LAYER * n_layer + OTHER_PHASES;
    Phase *phases = aligned_alloc(ALIGNMENT, 2 * (size_t)n_phases * sizeof(Phase));
    if (!team || !phases) {
        free(team);
        free(phases);
        return NULL;
    }
    team->phases = phases;
    team->alone = phases + n_phases;
    team->n_phases = n_phases;
    team->size = 1;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->begun, NULL);
    hire(team, size);
    return team;
}

/* ---- A step ---- */

/* Hands out pieces of one allocation; with `base` NULL it only measures. */
typedef struct {
    uint8_t *base;
    size_t used;
} Arena;

static void *piece(Arena *arena, size_t bytes) {
    void *result = arena->base ? arena->base + arena->used : NULL;
    arena->used += round_up(bytes, ALIGNMENT);
    return result;
}

static float *float_piece(Arena *arena, size_t rows, size_t columns) {
    return piece(arena, rows * columns * sizeof(float));
}

static Rows rows_piece(Arena *arena, float *values, size_t n, size_t columns) {
    Rows rows = {.values = values, .stride = round_up(columns, PAIR)};
    if (!values) rows.values = float_piece(arena, n, rows.stride);
    rows.bytes = piece(arena, n * rows.stride);
    rows.scales = float_piece(arena, n, rows.stride / BLOCK);
    rows.totals = piece(arena, n * rows.stride / BLOCK * sizeof(int32_t));
    rows.sums = float_piece(arena, n, rows.stride / BLOCK);
    return rows;
}

static void lay_out(Work *w, Arena *arena, size_t threads, size_t rows, size_t capacity) {
    const Model *m = w->model;
    size_t D = (size_t)m->head_size, H = (size_t)m->n_head, K = (size_t)m->n_kv_head, C = (size_t)m->n_embd;
    size_t F = (size_t)m->n_hidden;
    w->x = float_piece(arena, rows, round_up(C, PAIR));
    w->qkv = float_piece(arena, rows, (H + 2 * K) * D);
    w->queries = float_piece(arena, rows, H * (size_t)head_stride(m));
    w->turns = float_piece(arena, rows, D);
    w->raw = float_piece(arena, rows, m->activation == SWIGLU ? 2 * F : F);
    w->stream = rows_piece(arena, w->x, rows, C);
    w->normed = rows_piece(arena, NULL, rows, C);
    w->mixed = rows_piece(arena, NULL, rows, H * D);
    w->hidden = rows_piece(arena, NULL, rows, F);
    w->score_stride = round_up(capacity, LANES); /* last: only their size differs from cache to cache */
    w->scores = float_piece(arena, threads, w->score_stride);
}

/* How much zeroed memory a step of at most `rows` tokens needs. */
size_t glass_buffer_bytes(const Model *model, int threads, int rows, int capacity) {
    Work work = {.model = model};
    Arena arena = {0};
    lay_out(&work, &arena, (size_t)threads, (size_t)rows, (size_t)capacity);
    /* Measured with values NULL, `stream` counts once more than it takes: a little too much does no harm. */
    return arena.used;
}

/* to (n, n_out) = rows times the matrix, plus its bias; or, with `add`, that is added to what `to` holds. */
static void multiply(const Matrix *m, const Rows *rows, size_t first, size_t n, float *to, size_t stride, int add,
                     Walk *walk) {
    int tiles = tiles_of(m), columns = columns_of(m), chunk = tiles / (8 * walk->threads) + 1, start, end;
    Floats sums[TOKENS];
    while (take(walk, tiles, chunk, &start, &end)) {
        for (int tile = start; tile < end; tile++) {
            int row = tile * LANES, valid = m->n_out - row < LANES ? m->n_out - row : LANES;
            for (size_t t = 0; t < n; t += TOKENS) {
                int T = n - t < TOKENS ? (int)(n - t) : TOKENS;
                multiply_tile(m->format, tile_of(m, tile), columns, rows, first + t, sums, T);
                for (int i = 0; i < T; i++) {
                    float *out = to + (t + (size_t)i) * stride + row;
                    for (int r = 0; r < valid; r++) {
                        out[r] = sums[i][r] + (m->bias ? m->bias[row + r] : 0.0f) + (add ? out[r] : 0.0f);
                    }
                }
            }
        }
    }
}

static void normalise(const Norm *norm, const float *x, int size, float epsilon, float *to) {
    float mean = 0, square = 0;
    if (norm->bias) {
#pragma omp simd reduction(+ : mean)
        for (int i = 0; i < size; i++) mean += x[i];
        mean /= (float)size;
    }
#pragma omp simd reduction(+ : square)
    for (int i = 0; i < size; i++) square += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(square / (float)size + epsilon);
    for (int i = 0; i < size; i++) {
        to[i] = (x[i] - mean) * scale * norm->weight[i] + (norm->bias ? norm->bias[i] : 0.0f);
    }
}

/* Makes rows ready for a matrix: normalised from x where there is a norm, and quantised where a matrix wants it. */
static void prepare(const Work *w, const Norm *norm, const Rows *rows, Walk *walk) {
    const Model *m = w->model;
    int t, end;
    while (take(walk, w->n, 1, &t, &end)) {
        size_t row = (size_t)t;
        float *values = rows->values + row * rows->stride;
        if (norm) normalise(norm, w->x + row * w->stream.stride, m->n_embd, m->epsilon, values);
        if (m->quantised) quantise(rows, row, 0, rows->stride);
    }
}

static void embed(const Work *w, Walk *walk) {
    const Model *m = w->model;
    int t, end, half = m->head_size / 2;
    while (take(walk, w->n, 1, &t, &end)) {
        size_t position = (size_t)(w->position + t), C = (size_t)m->n_embd;
        float *x = w->x + (size_t)t * w->stream.stride, *turns = w->turns + (size_t)t * (size_t)m->head_size;
        unpack_row(&m->embedding, w->tokens[t], x);
        for (size_t i = 0; m->positions && i < C; i++) x[i] += m->positions[position * C + i];
        for (int i = 0; m->frequencies && i < half; i++) {
            turns[i] = (float)cos((double)position * m->frequencies[i]);
            turns[half + i] = (float)sin((double)position * m->frequencies[i]);
        }
    }
}

/* ---- Attention ---- */

/* A query or a key, normalised and turned by its position where the model does so. */
static void place_head(const Work *w, int t, const float *from, const float *norm, float *to) {
    const Model *m = w->model;
    int D = m->head_size, half = D / 2;
    const float *cosines = w->turns + (size_t)t * (size_t)D, *sines = cosines + half;
    if (norm) normalise(&(Norm){norm, NULL}, from, D, m->epsilon, to);
    else memcpy(to, from, (size_t)D * sizeof *to);
    for (int i = 0; m->frequencies && i < half; i++) {
        float a = to[i], b = to[i + half];
        to[i] = a * cosines[i] - b * sines[i];
        to[i + half] = b * cosines[i] + a * sines[i];
    }
}

/* The first entry of a key head's cache, counted in numbers. */
static size_t head_start(const Work *w, int layer, int head) {
    size_t heads = (size_t)layer * (size_t)w->model->n_kv_head + (size_t)head;
    return heads * (size_t)w->cache->capacity * (size_t)head_stride(w->model);
}

static void store_head(const Work *w, void *to, size_t start, int position, const float *values) {
    size_t stride = (size_t)head_stride(w->model);
    start += (size_t)position * stride;
    for (size_t i = 0; i < stride; i += LANES) {
        if (w->cache->halves) store_halves((uint16_t *)to + start + i, load(values + i));
        else *(Floats *)((float *)to + start + i) = load(values + i);
    }
}

/* From c_attn's output to queries in their buffer and keys and values in the cache. */
static void place_heads(const Work *w, int layer, Walk *walk) {
    const Model *m = w->model;
    int D = m->head_size, H = m->n_head, K = m->n_kv_head, first, end;
    const Layer *l = &m->layers[layer];
    size_t stride = (size_t)head_stride(m);
    while (take(walk, w->n * (H + K), H + K, &first, &end)) {
        for (int item = first; item < end; item++) {
            int t = item / (H + K), head = item % (H + K);
            const float *from = w->qkv + ((size_t)t * (size_t)(H + 2 * K) + (size_t)head) * (size_t)D;
            if (head < H) {
                float *query = w->queries + ((size_t)t * (size_t)H + (size_t)head) * stride;
                place_head(w, t, from, l->q_norm, query);
                for (int i = 0; i < D; i++) query[i] *= 1.0f / sqrtf((float)D);
                continue;
            }
            size_t start = head_start(w, layer, head - H);
            _Alignas(ALIGNMENT) float padded[stride];
            memset(padded, 0, stride * sizeof *padded);
            place_head(w, t, from, l->k_norm, padded);
            store_head(w, w->cache->keys, start, w->position + t, padded);
            memcpy(padded, from + (size_t)K * (size_t)D, (size_t)D * sizeof *padded);
            store_head(w, w->cache->values, start, w->position + t, padded);
        }
    }
}

/* The sums over the lanes of four vectors. */
INLINE void sum_lanes(const Floats *from, float *to) {
#if !defined(PLAIN) && defined(__AVX2__) && VECTOR_BYTES >= 32
    __m256 v[4];
    for (int i = 0; i < 4; i++) {
#if VECTOR_BYTES == 64
        v[i] = _mm256_add_ps(_mm512_castps512_ps256((__m512)from[i]), _mm512_extractf32x8_ps((__m512)from[i], 1));
#else
        v[i] = (__m256)from[i];
#endif
    }
    __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
#else
    for (int i = 0; i < 4; i++) {
        to[i] = 0;
        for (int lane = 0; lane < LANES; lane++) to[i] += from[i][lane];
    }
#endif
}

INLINE Floats load_cached(const void *from, size_t place, const int halves) {
    return halves ? load_halves((const uint16_t *)from + place) : load((const float *)from + place);
}

/* scores[p] = query . key p for `count` positions, four at a time: their sums wait for nothing but themselves. */
INLINE void score_keys(const float *query, const void *keys, size_t start, size_t stride, int count, float *scores,
                       const int halves) {
    for (int p = 0; p < count; p += 4) {
        Floats sums[4] = {{0}};
        float four[4];
        int inside = count - p < 4 ? count - p : 4;
        if (inside == 4) {
            for (size_t i = 0; i < stride; i += LANES) {
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    sums[j] += load(query + i) * load_cached(keys, start + (size_t)(p + j) * stride + i, halves);
                }
            }
        } else {
            for (int j = 0; j < inside; j++) {
                for (size_t i = 0; i < stride; i += LANES) {
                    sums[j] += load(query + i) * load_cached(keys, start + (size_t)(p + j) * stride + i, halves);
                }
            }
        }
        sum_lanes(sums, four);
        memcpy(scores + p, four, (size_t)inside * sizeof *four);
    }
}

/* G vectors of the mixture of values, kept in registers over all positions. */
INLINE void mix_columns(const float *weights, const void *values, size_t start, size_t stride, int count, float scale,
                        float *to, const int G, const int halves) {
    Floats sums[8] = {{0}};
    for (int p = 0; p < count; p++, start += stride) {
#pragma GCC unroll 8
        for (int g = 0; g < G; g++) sums[g] += weights[p] * load_cached(values, start + (size_t)(g * LANES), halves);
    }
    for (int g = 0; g < G; g++) *(Floats *)(to + g * LANES) = sums[g] * scale;
}

INLINE void mix_values(const float *weights, const void *values, size_t start, size_t stride, int count, float scale,
                       float *to, const int halves) {
    size_t i = 0;
    for (; i + 8 * LANES <= stride; i += 8 * LANES) {
        mix_columns(weights, values, start + i, stride, count, scale, to + i, 8, halves);
    }
    for (; i + 4 * LANES <= stride; i += 4 * LANES) {
        mix_columns(weights, values, start + i, stride, count, scale, to + i, 4, halves);
    }
    for (; i < stride; i += LANES) mix_columns(weights, values, start + i, stride, count, scale, to + i, 1, halves);
}

/* Scores to e^(score - largest); returns one over their sum. */
static float soften(float *scores, int count) {
    float largest = scores[0], sum = 0;
#pragma omp simd reduction(max : largest)
    for (int p = 0; p < count; p++) largest = scores[p] > largest ? scores[p] : largest;
#pragma omp simd reduction(+ : sum)
    for (int p = 0; p < count; p++) {
        scores[p] = exponential(scores[p] - largest);
        sum += scores[p];
    }
    return 1.0f / sum;
}

static void attend_head(const Work *w, int layer, int t, int head, float *scores) {
    const Model *m = w->model;
    const Cache *cache = w->cache;
    size_t stride = (size_t)head_stride(m), D = (size_t)m->head_size, H = (size_t)m->n_head;
    size_t start = head_start(w, layer, head / (m->n_head / m->n_kv_head));
    const float *query = w->queries + ((size_t)t * H + (size_t)head) * stride;
    int count = w->position + t + 1;
    _Alignas(ALIGNMENT) float mixed[stride];
    if (cache->halves) score_keys(query, cache->keys, start, stride, count, scores, 1);
    else score_keys(query, cache->keys, start, stride, count, scores, 0);
    for (int p = 0; m->slopes && p < count; p++) scores[p] -= m->slopes[head] * (float)(count - 1 - p);
    float scale = soften(scores, count);
    if (cache->halves) mix_values(scores, cache->values, start, stride, count, scale, mixed, 1);
    else mix_values(scores, cache->values, start, stride, count, scale, mixed, 0);
    memcpy(w->mixed.values + (size_t)t * w->mixed.stride + (size_t)head * D, mixed, D * sizeof *mixed);
}

static void attend(const Work *w, int layer, Walk *walk) {
    int H = w->model->n_head, item, end;
    float *scores = w->scores + (size_t)walk->thread * w->score_stride;
    while (take(walk, w->n * H, 1, &item, &end)) attend_head(w, layer, item / H, item % H, scores);
}

/* ---- The MLP's middle ---- */

static void activate_columns(int activation, const float *raw, size_t F, size_t start, size_t end, float *to) {
    switch (activation) {
    case GELU:
#pragma omp simd
        for (size_t i = start; i < end; i++) to[i] = gelu(raw[i]);
        break;
    case GELU_TANH:
#pragma omp simd
        for (size_t i = start; i < end; i++) to[i] = gelu_tanh(raw[i]);
        break;
    case RELU2:
#pragma omp simd
        for (size_t i = start; i < end; i++) to[i] = relu2(raw[i]);
        break;
    default:
#pragma omp simd
        for (size_t i = start; i < end; i++) to[i] = silu(raw[i]) * raw[F + i];
    }
}

static void activate(const Work *w, Walk *walk) {
    const Model *m = w->model;
    const Rows *hidden = &w->hidden;
    size_t F = (size_t)m->n_hidden, width = m->activation == SWIGLU ? 2 * F : F;
    int chunks = (int)((hidden->stride + CHUNK - 1) / CHUNK), item, end;
    while (take(walk, w->n * chunks, 1, &item, &end)) {
        size_t t = (size_t)(item / chunks), from = (size_t)(item % chunks) * CHUNK, to = from + CHUNK;
        float *values = hidden->values + t * hidden->stride;
        activate_columns(m->activation, w->raw + t * width, F, from, to < F ? to : F, values);
        if (m->quantised) quantise(hidden, t, from, to < hidden->stride ? to : hidden->stride);
    }
}

/* ---- The whole step, as each thread walks it: a late one reads only model and work, which stay where they are ---- */

static void attention_half(const Work *w, int layer, const Rows *input, Walk *walk) {
    const Layer *l = &w->model->layers[layer];
    size_t n = (size_t)w->n;
    multiply(&l->c_attn, input, 0, n, w->qkv, (size_t)l->c_attn.n_out, 0, walk);
    place_heads(w, layer, walk);
    attend(w, layer, walk);
    if (w->model->quantised) prepare(w, NULL, &w->mixed, walk);
    multiply(&l->attn_proj, &w->mixed, 0, n, w->x, w->stream.stride, 1, walk);
}

static void mlp_half(const Work *w, const Layer *l, const Rows *input, Walk *walk) {
    size_t n = (size_t)w->n;
    multiply(&l->c_fc, input, 0, n, w->raw, (size_t)l->c_fc.n_out, 0, walk);
    activate(w, walk);
    multiply(&l->mlp_proj, &w->hidden, 0, n, w->x, w->stream.stride, 1, walk);
}

static void run(Walk *walk) {
    const Work *w = walk->work;
    const Model *m = w->model;
    const Rows *input = m->post_norm ? &w->stream : &w->normed; /* what a half-block's first matrix reads */
    embed(w, walk);
    if (m->post_norm) prepare(w, NULL, input, walk);
    for (int layer = 0; layer < m->n_layer; layer++) {
        const Layer *l = &m->layers[layer];
        if (!m->post_norm) prepare(w, &l->ln_1, input, walk);
        attention_half(w, layer, input, walk);
        prepare(w, m->post_norm ? &l->ln_1 : &l->ln_2, input, walk);
        mlp_half(w, l, input, walk);
        if (m->post_norm) prepare(w, &l->ln_2, input, walk);
    }
    if (!m->post_norm) prepare(w, &m->ln_f, input, walk);
    size_t first = (size_t)w->first_logits;
    multiply(&m->output, input, first, (size_t)w->n - first, w->logits, (size_t)m->vocab_size, 0, walk);
}

/* ---- What engine.py calls ---- */

/* Appends n tokens at `position` and writes logits after tokens first_logits, ..., n - 1. `buffer` was zeroed when it
 * was allocated for this model, at least n rows and the cache's capacity; between steps it is nobody else's. */
void glass_step(const Model *model, Team *team, const Cache *cache, const int32_t *tokens, int n, int position,
                int first_logits, int rows, uint8_t *buffer, float *logits) {
    Work work = {
        .model = model, .cache = cache, .tokens = tokens, .n = n, .position = position,
        .first_logits = first_logits, .logits = logits,
    };
    Arena arena = {.base = buffer};
    lay_out(&work, &arena, (size_t)team->size, (size_t)rows, (size_t)cache->capacity);
    walk_step(team, &work);
}

/* What the tests ask for: the activations as computed here. */
void glass_activate(int activation, int n, const float *from, float *to) {
    activate_columns(activation, from, (size_t)n, 0, (size_t)n, to);
}

int glass_lanes(void) { return LANES; }

int glass_head_stride(const Model *model) { return head_stride(model); }

/* Whether 16-bit floats cost nothing to read here, so that a cache of them is faster and not only smaller. */
int glass_fast_halves(void) {
#if !defined(PLAIN) && ((VECTOR_BYTES == 64) || defined(__F16C__) || defined(__aarch64__))
    return 1;
#else
    return 0;
#endif
}
