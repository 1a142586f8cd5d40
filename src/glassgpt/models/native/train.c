/* What a training step does between its matrix products when numbers fall out: masks, and attention's softmax.
 *
 * A mask is a function of a row's two keys and of a number's place in the row (dropout.py has the same in torch).
 * Loops are plain and without a branch, so that a compiler makes vector code of them. The caller has as many threads as
 * it likes, each with rows of its own. Nothing is checked here: dropout.py does that.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    uint32_t key[2];
    uint32_t below; /* a number whose hash is smaller falls out */
    float scale;    /* of the others */
} Mask;

/* lowbias32 (Wellons 2018), with the second key in the middle: two rows never have shifted copies of one mask. */
INLINE uint32_t hash(uint32_t i, const Mask *mask)
{
    uint32_t x = i + mask->key[0];
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= (x >> 15) ^ mask->key[1];
    x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

INLINE float masked(float value, uint32_t i, const Mask *mask)
{
    return hash(i, mask) < mask->below ? 0.0f : value * mask->scale;
}

/* e^x for x <= 0, to 2e-7 of itself; 0 below -87. */
INLINE float exponential(float x)
{
    float clipped = x < -87.0f ? -87.0f : x;
    float whole = clipped * 1.44269504f + 12582912.0f; /* the sum has no room for a fraction: this rounds */
    int32_t exponent;
    memcpy(&exponent, &whole, sizeof exponent);
    whole -= 12582912.0f;
    float rest = clipped - whole * 0.693145752f - whole * 1.42860677e-6f;
    float p = 1.9875691500e-4f;
    p = p * rest + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += (int32_t)((uint32_t)exponent << 23);
    memcpy(&p, &bits, sizeof p);
    return x < -87.0f ? 0.0f : p;
}

/* out = x with its mask, `size` numbers a row. */
void drop(const float *restrict x, float *restrict out, const Mask *masks, int64_t rows, int64_t size)
{
    for (int64_t row = 0; row < rows; row++) {
        const Mask mask = masks[row];
        for (int64_t i = 0; i < size; i++)
            out[row * size + i] = masked(x[row * size + i], (uint32_t)i, &mask);
    }
}

/* Scores (heads, queries, keys) of the queries first, first + 1, ... of a row become what attention weighs values by:
 * the softmax over the keys that a query may see, with its mask. `total[head * context + query]`: log of the sum. */
void attend(float *scores, float *total, const Mask *row, int64_t heads, int64_t first, int64_t queries, int64_t keys,
            int64_t context, float factor)
{
    const Mask mask = *row;
    for (int64_t line = 0; line < heads * queries; line++) {
        const int64_t head = line / queries, query = first + line % queries, seen = query + 1;
        float *restrict at = scores + line * keys;
        float largest = at[0], sum = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < seen; i++) largest = at[i] > largest ? at[i] : largest;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < seen; i++) {
            at[i] = exponential((at[i] - largest) * factor);
            sum += at[i];
        }
        total[head * context + query] = largest * factor + logf(sum);
        const uint32_t base = (uint32_t)((head * context + query) * context);
        const float share = 1.0f / sum;
#pragma omp simd
        for (int64_t i = 0; i < seen; i++) at[i] = masked(at[i] * share, base + (uint32_t)i, &mask);
        for (int64_t i = seen; i < keys; i++) at[i] = 0.0f;
    }
}

/* The way back. In: the same scores, and the gradient of what `attend` made of them. Out: what it made, and the
 * gradient of the scores. `inner[head * context + query]`: the product of attention's output with its gradient. */
void attend_back(float *scores, float *grads, const float *total, const float *inner, const Mask *row, int64_t heads,
                 int64_t first, int64_t queries, int64_t keys, int64_t context, float factor)
{
    const Mask mask = *row;
    for (int64_t line = 0; line < heads * queries; line++) {
        const int64_t head = line / queries, query = first + line % queries, seen = query + 1;
        float *restrict at = scores + line * keys, *restrict grad = grads + line * keys;
        const uint32_t base = (uint32_t)((head * context + query) * context);
        const float whole = total[head * context + query], less = inner[head * context + query];
#pragma omp simd
        for (int64_t i = 0; i < seen; i++) {
            const float weight = exponential(at[i] * factor - whole);
            const uint32_t place = base + (uint32_t)i;
            at[i] = masked(weight, place, &mask);
            grad[i] = (masked(grad[i], place, &mask) - less) * weight * factor;
        }
        for (int64_t i = seen; i < keys; i++) at[i] = grad[i] = 0.0f;
    }
}
