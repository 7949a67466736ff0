/* Runs a program of elementwise instructions over a range of elements, a strip at a time, so that
   what one instruction makes is still in the first cache when the next one takes it.

   Every instruction is one IEEE 754 operation an element, in the order of the program, without
   contraction: the results have the bits of the same operations on whole arrays. Sums are in float64
   and in the order that recipelang/weights/sums.py says, in numpy.

   An instruction is a row of OPERATIONS below; its number is its place there. */

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "vectors.h"

#define STRIP 1024
#define STRIDE (STRIP * 8 + 128) /* bytes from one register to the next */

typedef struct {
    int32_t op, out, a, b, c, unused;
    double number;
    uint64_t word;
} Instruction;

typedef struct {
    char **registers;          /* where each register's strip stands */
    const char *const *inputs; /* whole arrays */
    char *const *outputs;
    double *sums;
    uint8_t *flags;
    int64_t origin; /* the element that outputs begin with */
    int64_t at;     /* the strip's first element */
} Machine;

typedef void Operation(const Instruction *i, Machine *m, int n);

#define DEFINE(name) VECTORS static void name(const Instruction *i, Machine *m, int n)
#define OUT(T) T *restrict out = (T *)m->registers[i->out]
#define IN(T, which) const T *restrict which = (const T *)m->registers[i->which]
#define EACH for (int k = 0; k < n; k++)

/* Two operands of T, or one and a number, to R. */
#define VECTOR_VECTOR(name, T, R, E)                                                               \
    DEFINE(name##_vv) { OUT(R); IN(T, a); IN(T, b); EACH { T x = a[k], y = b[k]; out[k] = (R)(E); } }
#define VECTOR_NUMBER(name, T, R, E)                                                               \
    DEFINE(name##_vn) { OUT(R); IN(T, a); T y = (T)i->number; EACH { T x = a[k]; out[k] = (R)(E); } }
#define NUMBER_VECTOR(name, T, R, E)                                                               \
    DEFINE(name##_nv) { OUT(R); IN(T, b); T x = (T)i->number; EACH { T y = b[k]; out[k] = (R)(E); } }
#define COMMUTING(name, T, R, E) VECTOR_VECTOR(name, T, R, E) VECTOR_NUMBER(name, T, R, E)
#define ORDERED(name, T, R, E) COMMUTING(name, T, R, E) NUMBER_VECTOR(name, T, R, E)
#define UNARY(name, T, R, E)                                                                       \
    DEFINE(name) { OUT(R); IN(T, a); EACH { T x = a[k]; out[k] = (R)(E); } }

#define FLOATING(P, T, ABS, SQRT, SIGN)                                                            \
    COMMUTING(P##_add, T, T, x + y)                                                                \
    ORDERED(P##_sub, T, T, x - y)                                                                  \
    COMMUTING(P##_mul, T, T, x *y)                                                                 \
    ORDERED(P##_div, T, T, x / y)                                                                  \
    COMMUTING(P##_max, T, T, x > y || x != x ? x : y)                                              \
    COMMUTING(P##_min, T, T, x < y || x != x ? x : y)                                              \
    COMMUTING(P##_gt, T, uint8_t, x > y)                                                           \
    COMMUTING(P##_ge, T, uint8_t, x >= y)                                                          \
    COMMUTING(P##_lt, T, uint8_t, x < y)                                                           \
    COMMUTING(P##_le, T, uint8_t, x <= y)                                                          \
    COMMUTING(P##_eq, T, uint8_t, x == y)                                                          \
    COMMUTING(P##_ne, T, uint8_t, x != y)                                                          \
    VECTOR_VECTOR(P##_copysign, T, T, SIGN(x, y))                                                  \
    UNARY(P##_abs, T, T, ABS(x))                                                                   \
    UNARY(P##_neg, T, T, -x)                                                                       \
    UNARY(P##_sqrt, T, T, SQRT(x))                                                                 \
    DEFINE(P##_where) { OUT(T); IN(T, a); IN(T, b); IN(uint8_t, c); EACH out[k] = c[k] ? a[k] : b[k]; } \
    DEFINE(P##_fill) { OUT(T); T x = (T)i->number; EACH out[k] = x; }

FLOATING(f4, float, fabsf, sqrtf, copysignf)
FLOATING(f8, double, fabs, sqrt, copysign)

COMMUTING(u1_add, uint8_t, uint8_t, x + y)
ORDERED(u1_sub, uint8_t, uint8_t, x - y)
COMMUTING(u1_mul, uint8_t, uint8_t, x *y)
COMMUTING(u1_max, uint8_t, uint8_t, x > y ? x : y)
COMMUTING(u1_and, uint8_t, uint8_t, x &y)
COMMUTING(u1_or, uint8_t, uint8_t, x | y)
COMMUTING(u1_xor, uint8_t, uint8_t, x ^ y)
VECTOR_NUMBER(u2_lt, uint16_t, uint8_t, x < y)

UNARY(u1_f4, uint8_t, float, x)
UNARY(u1_f8, uint8_t, double, x)
UNARY(u2_f4, uint16_t, float, x)
UNARY(u2_f8, uint16_t, double, x)
UNARY(f4_f8, float, double, x)
UNARY(f8_f4, double, float, x)

static inline float from_bits(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline uint32_t to_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }

static inline float from_half(uint32_t half) {
    uint32_t size = (half & 0x7FFF) << 13;
    uint32_t scaled = to_bits(from_bits(size) * 0x1p112f); /* exact, subnormal halves included */
    uint32_t bits = size >= 0x7C00 << 13 ? size | 0x7F800000 : scaled;
    return from_bits(bits | (half & 0x8000) << 16);
}

/* Round to nearest, ties to even; NaN becomes the quiet one of its sign. */
static inline uint16_t to_bfloat(float x) {
    uint32_t bits = to_bits(x);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    uint32_t nan = (bits >> 16 & 0x8000) | 0x7FC0;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

/* a where the condition holds, else b, without the branches that keep a loop from the vectors. */
static inline uint32_t choose(int condition, uint32_t a, uint32_t b) {
    uint32_t mask = -(uint32_t)condition;
    return (a & mask) | (b & ~mask);
}

/* The same for halves: adding a power of two lets the processor round away what does not fit. */
static inline uint16_t to_half(float x) {
    uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
    uint32_t normal = (size + 0xFFF + (size >> 13 & 1) - (112u << 23)) >> 13;
    uint32_t small = to_bits(from_bits(size) + 0.5f) - to_bits(0.5f); /* below 2^-14 */
    uint32_t half = choose(size < 113u << 23, small, normal);
    half = choose((size >= 143u << 23) | (half > 0x7C00), 0x7C00, half);
    uint32_t payload = size >> 13 & 0x3FF;
    uint32_t nan = 0x7C00 | payload | (payload == 0);
    return (uint16_t)(sign | choose(size > 0x7F800000, nan, half));
}

UNARY(bf_f4, uint16_t, float, from_bits((uint32_t)x << 16))
UNARY(bf_f8, uint16_t, double, from_bits((uint32_t)x << 16))
UNARY(f2_f4, uint16_t, float, from_half(x))
UNARY(f2_f8, uint16_t, double, from_half(x))
UNARY(f4_bf, float, uint16_t, to_bfloat(x))
UNARY(f4_f2, float, uint16_t, to_half(x))

/* Lowbias32, as recipelang/weights/kernels/uniform_bits.py. */
static inline uint32_t mix(uint32_t x) {
    x ^= x >> 16; x *= 0x7FEB352D;
    x ^= x >> 15; x *= 0x846CA68B;
    return x ^ x >> 16;
}

/* The half words of the elements from `number` on; the two keys stand in `word`. */
DEFINE(half_words) {
    OUT(uint16_t);
    uint32_t words[STRIP / 2 + 1];
    int64_t first = (int64_t)i->number + m->at, index = first / 2;
    int count = (int)((first + n + 1) / 2 - index);
    uint32_t key0 = (uint32_t)i->word, key1 = (uint32_t)(i->word >> 32), low = (uint32_t)index;
    uint32_t high = key1 ^ (uint32_t)(index >> 32) * 0x9E3779B9u;
    uint32_t next = key1 ^ (uint32_t)((index >> 32) + 1) * 0x9E3779B9u;
    int left = (uint64_t)low + count > UINT32_MAX ? (int)(UINT32_MAX - low) + 1 : count;
    for (int k = 0; k < left; k++) words[k] = mix(mix((low + (uint32_t)k) ^ key0) ^ high);
    for (int k = left; k < count; k++) words[k] = mix(mix((low + (uint32_t)k) ^ key0) ^ next);
    memcpy(out, (const uint16_t *)words + (first & 1), (size_t)n * 2);
}

/* Which elements stand before the place `number` of the range. */
DEFINE(before) {
    OUT(uint8_t);
    int64_t left = (int64_t)i->number - m->at;
    int stop = left < 0 ? 0 : left > n ? n : (int)left;
    memset(out, 1, stop);
    memset(out + stop, 0, n - stop);
}

/* Note in flag `b` whether a number has all exponent bits (`word`) set: an infinity or NaN. */
#define FINITE(P, T)                                                                               \
    DEFINE(P##_finite) {                                                                           \
        IN(T, a); T mask = (T)i->word, bad = 0;                                                    \
        EACH bad |= (a[k] & mask) == mask;                                                         \
        m->flags[i->b] |= bad != 0;                                                                \
    }
FINITE(u2, uint16_t) FINITE(u4, uint32_t) FINITE(u8, uint64_t)

/* Add the strip to sum `b`: rows of 32 in order, what they give by halves. */
#define FOLD(half) for (int k = 0; k < (half); k++) folded[k] += folded[k + (half)]
#define SUM(P, T)                                                                                  \
    DEFINE(P##_sum) {                                                                              \
        IN(T, a); T filled[STRIP]; double folded[32];                                              \
        if (n < STRIP) {                                                                           \
            memcpy(filled, a, (size_t)n * sizeof(T));                                              \
            memset(filled + n, 0, (size_t)(STRIP - n) * sizeof(T));                                \
            a = filled;                                                                            \
        }                                                                                          \
        for (int k = 0; k < 32; k++) folded[k] = a[k];                                             \
        for (int row = 32; row < STRIP; row += 32)                                                 \
            for (int k = 0; k < 32; k++) folded[k] += a[row + k];                                  \
        FOLD(16); FOLD(8); FOLD(4); FOLD(2); FOLD(1);                                              \
        m->sums[i->b] += folded[0];                                                                \
    }
SUM(f4, float) SUM(f8, double)

/* Append the magnitudes in [low, high] (`number` and the double in `word`) to output `b`. Sum `c`
   counts those above, sum `c` + 1 those appended. */
#define BRACKET(P, T, ABS)                                                                         \
    static void P##_bracket(const Instruction *i, Machine *m, int n) {                             \
        IN(T, a); T *kept = (T *)m->outputs[i->b] + (int64_t)m->sums[i->c + 1], *end = kept;       \
        double top; memcpy(&top, &i->word, 8);                                                     \
        T low = (T)i->number, high = (T)top; int64_t above = 0;                                    \
        int k = P##_bracket_wide(a, n, low, high, &end, &above);                                   \
        for (; k < n; k++) {                                                                       \
            T x = ABS(a[k]);                                                                       \
            above += x > high; *end = x; end += x >= low && !(x > high);                           \
        }                                                                                          \
        m->sums[i->c] += (double)above; m->sums[i->c + 1] += (double)(end - kept);                 \
    }
#if defined(__x86_64__)
/* Sixteen at a time, where the processor can pack what a mask selects; gives how many were taken. */
__attribute__((target("avx512f"))) static int packed(const float *a, int n, float low, float high,
                                                     float **end, int64_t *above) {
    __m512 least = _mm512_set1_ps(low), most = _mm512_set1_ps(high);
    int k = 0;
    for (; k + 16 <= n; k += 16) {
        __m512 x = _mm512_abs_ps(_mm512_loadu_ps(a + k));
        __mmask16 over = _mm512_cmp_ps_mask(x, most, _CMP_GT_OQ);
        __mmask16 inside = _mm512_cmp_ps_mask(x, least, _CMP_GE_OQ) & ~over;
        *above += __builtin_popcount(over);
        _mm512_storeu_ps(*end, _mm512_maskz_compress_ps(inside, x));
        *end += __builtin_popcount(inside);
    }
    return k;
}
static int f4_bracket_wide(const float *a, int n, float low, float high, float **end, int64_t *above) {
    return __builtin_cpu_supports("avx512f") ? packed(a, n, low, high, end, above) : 0;
}
#else
#define f4_bracket_wide(a, n, low, high, end, above) 0
#endif
#define f8_bracket_wide(a, n, low, high, end, above) 0
BRACKET(f4, float, fabsf) BRACKET(f8, double, fabs)

/* Input `b` as it stands, in elements of `c` bytes. */
static void load(const Instruction *i, Machine *m, int n) {
    (void)n;
    m->registers[i->out] = (char *)m->inputs[i->b] + m->at * i->c;
}

/* Register `a` to output `b`, in elements of `c` bytes. */
static void store(const Instruction *i, Machine *m, int n) {
    memcpy(m->outputs[i->b] + (m->at - m->origin) * i->c, m->registers[i->a], (size_t)n * i->c);
}

#define VV_VN(F, name) F(name##_vv) F(name##_vn)
#define ALL(F, name) VV_VN(F, name) F(name##_nv)
#define OF_FLOATS(F, P)                                                                            \
    VV_VN(F, P##_add) ALL(F, P##_sub) VV_VN(F, P##_mul) ALL(F, P##_div) VV_VN(F, P##_max)          \
    VV_VN(F, P##_min) VV_VN(F, P##_gt) VV_VN(F, P##_ge) VV_VN(F, P##_lt) VV_VN(F, P##_le)          \
    VV_VN(F, P##_eq) VV_VN(F, P##_ne) F(P##_copysign_vv) F(P##_abs) F(P##_neg) F(P##_sqrt)         \
    F(P##_where) F(P##_fill) F(P##_sum) F(P##_bracket)
#define OPERATIONS(F)                                                                              \
    F(load) F(store) OF_FLOATS(F, f4) OF_FLOATS(F, f8)                                             \
    VV_VN(F, u1_add) ALL(F, u1_sub) VV_VN(F, u1_mul) VV_VN(F, u1_max) VV_VN(F, u1_and)             \
    VV_VN(F, u1_or) VV_VN(F, u1_xor) F(u2_lt_vn) F(u1_f4) F(u1_f8) F(u2_f4) F(u2_f8) F(f4_f8)      \
    F(f8_f4) F(bf_f4) F(bf_f8) F(f2_f4) F(f2_f8) F(f4_bf) F(f4_f2) F(half_words) F(before)         \
    F(u2_finite) F(u4_finite) F(u8_finite)

#define POINTER(name) name,
#define TEXT(name) #name " "
static Operation *const operations[] = {OPERATIONS(POINTER)};

const char *strip_operations(void) { return OPERATIONS(TEXT); }

int64_t strip_scratch_bytes(int32_t loads, int32_t buffers) {
    return (int64_t)buffers * STRIDE + (int64_t)(loads + buffers) * (int64_t)sizeof(char *);
}

/* Run over elements [start, stop) of the inputs; outputs begin with element `origin`. Registers are
   those that loads set, then `buffers` in `scratch`, which is strip_scratch_bytes long and aligned
   to 64 bytes. Sums are added to, flags are set. */
void run_strips(const Instruction *program, int32_t count, int32_t loads, int32_t buffers,
                const char *const *inputs, char *const *outputs, double *sums, uint8_t *flags,
                int64_t origin, int64_t start, int64_t stop, char *scratch) {
    char **registers = (char **)(scratch + (int64_t)buffers * STRIDE);
    Machine m = {registers, inputs, outputs, sums, flags, origin, start};
    for (int32_t r = 0; r < buffers; r++) registers[loads + r] = scratch + (int64_t)r * STRIDE;
    for (; m.at < stop; m.at += STRIP) {
        int n = stop - m.at < STRIP ? (int)(stop - m.at) : STRIP;
        for (int32_t k = 0; k < count; k++) operations[program[k].op](&program[k], &m, n);
    }
}
