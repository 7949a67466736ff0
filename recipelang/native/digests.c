/* SHA-256 (FIPS 180-4) of sixteen byte ranges at a time, each in its lane of vector registers: for
   processors with wide vectors and without instructions for SHA. */

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "vectors.h"

#define LANES 16
#define PIECE 32768 /* bytes of a range that are read at once */

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint32_t Four __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

static const uint32_t START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define TURN(x, n) ((x) >> (n) | (x) << (32 - (n)))

/* Sixteen bytes as four words: SHA-256 reads the highest byte first. */
static inline Four four_words(const uint8_t *at) {
    Bytes x;
    memcpy(&x, at, sizeof x);
    return (Four)__builtin_shuffle(x, (Bytes){3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12});
}

/* Take `count` blocks of 64 bytes of every lane. Lanes stand beside each other in `w`, so four words
   of four lanes are transposed at a time. */
VECTORS static void take_blocks(Words state[8], const uint8_t *const data[LANES], int64_t count) {
    for (int64_t block = 0; block < count; block++) {
        Words w[16];
        uint32_t(*words)[LANES] = (uint32_t(*)[LANES])w;
        for (int lane = 0; lane < LANES; lane += 4)
            for (int t = 0; t < 16; t += 4) {
                int64_t at = 64 * block + 4 * t;
                Four p = four_words(data[lane] + at), q = four_words(data[lane + 1] + at);
                Four r = four_words(data[lane + 2] + at), s = four_words(data[lane + 3] + at);
                Four low = __builtin_shuffle(p, q, (Four){0, 4, 1, 5});
                Four high = __builtin_shuffle(p, q, (Four){2, 6, 3, 7});
                Four lower = __builtin_shuffle(r, s, (Four){0, 4, 1, 5});
                Four higher = __builtin_shuffle(r, s, (Four){2, 6, 3, 7});
                *(Four *)&words[t][lane] = __builtin_shuffle(low, lower, (Four){0, 1, 4, 5});
                *(Four *)&words[t + 1][lane] = __builtin_shuffle(low, lower, (Four){2, 3, 6, 7});
                *(Four *)&words[t + 2][lane] = __builtin_shuffle(high, higher, (Four){0, 1, 4, 5});
                *(Four *)&words[t + 3][lane] = __builtin_shuffle(high, higher, (Four){2, 3, 6, 7});
            }
        Words a = state[0], b = state[1], c = state[2], d = state[3];
        Words e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 64
        for (int t = 0; t < 64; t++) {
            Words x = w[t & 15];
            if (t >= 16) {
                Words y = w[(t - 15) & 15], z = w[(t - 2) & 15];
                x += (TURN(y, 7) ^ TURN(y, 18) ^ y >> 3) + w[(t - 7) & 15]
                    + (TURN(z, 17) ^ TURN(z, 19) ^ z >> 10);
                w[t & 15] = x;
            }
            Words one = h + (TURN(e, 6) ^ TURN(e, 11) ^ TURN(e, 25)) + (g ^ (e & (f ^ g))) + ROUND[t] + x;
            Words two = (TURN(a, 2) ^ TURN(a, 13) ^ TURN(a, 22)) + ((a & b) | (c & (a | b)));
            h = g; g = f; f = e; e = d + one;
            d = c; c = b; b = a; a = one + two;
        }
        state[0] += a; state[1] += b; state[2] += c; state[3] += d;
        state[4] += e; state[5] += f; state[6] += g; state[7] += h;
    }
}

/* A range that was hashed so far: `at` is how many bytes of it were taken, or DONE. */
typedef struct {
    uint32_t words[8];
    int64_t at;
} Range;
#define DONE (-1)

/* What hears of it from another thread: how many bytes were taken, and whether to stop. */
typedef struct {
    int64_t taken, stop;
} Watch;

typedef struct {
    int64_t range;     /* which one is in the lane, -1 for none */
    int64_t at;        /* how much of it was read */
    int64_t next, end; /* what stands in the buffer and was not taken yet */
    int padded;
    uint8_t buffer[PIECE + 128];
} Lane;

/* Read on, and close what was read whole with the padding: 1, zeros, the length in bits. */
static int fill(Lane *lane, int descriptor, int64_t offset, int64_t size) {
    int64_t wanted = size - lane->at < PIECE ? size - lane->at : PIECE, got = 0;
    while (got < wanted) {
        ssize_t n = pread(descriptor, lane->buffer + got, (size_t)(wanted - got), offset + lane->at + got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : ENODATA;
        got += n;
    }
    lane->at += got;
    lane->next = 0;
    lane->end = got;
    if (lane->at == size && (got < PIECE || !got)) {
        int64_t whole = (got + 9 + 63) / 64 * 64;
        memset(lane->buffer + got, 0, (size_t)(whole - got));
        lane->buffer[got] = 0x80;
        for (int k = 0; k < 8; k++) lane->buffer[whole - 1 - k] = (uint8_t)((uint64_t)size * 8 >> 8 * k);
        lane->end = whole;
        lane->padded = 1;
    }
    return 0;
}

/* Hash `count` ranges of files, best longest first, from what was hashed of them so far; of a range
   that is DONE the digest is in its words. Where less than `busy` ranges are left it ends before
   all are done. `space` holds digest_space_bytes, aligned to 64. Gives 0, or the error number of a
   read, or EINTR where it was stopped. */
int32_t digest_ranges(int64_t count, const int32_t *descriptors, const int64_t *offsets,
                      const int64_t *sizes, Range *ranges, int64_t busy, Watch *watch, void *space) {
    Words *state = space;
    Lane *lanes = (Lane *)(state + 8);
    const uint8_t *data[LANES];
    int64_t begun = 0;
    for (int k = 0; k < LANES; k++) lanes[k].range = -1;
    for (;;) {
        int64_t blocks = INT64_MAX, active = 0, padded = 0, taken = 0;
        const uint8_t *some = 0;
        for (int k = 0; k < LANES; k++) {
            Lane *lane = &lanes[k];
            if (lane->range >= 0 && lane->next == lane->end && lane->padded) {
                Range *range = &ranges[lane->range];
                for (int j = 0; j < 8; j++) range->words[j] = ((uint32_t *)&state[j])[k];
                range->at = DONE;
                lane->range = -1;
            }
            if (lane->range < 0 && begun < count) {
                Range *range = &ranges[begun];
                lane->range = begun++;
                lane->at = range->at;
                lane->next = lane->end = lane->padded = 0;
                for (int j = 0; j < 8; j++)
                    ((uint32_t *)&state[j])[k] = range->at ? range->words[j] : START[j];
            }
            if (lane->range < 0) continue;
            if (lane->next == lane->end) {
                int64_t r = lane->range, before = lane->at;
                if (watch && __atomic_load_n(&watch->stop, __ATOMIC_RELAXED)) return EINTR;
                int failed = fill(lane, descriptors[r], offsets[r], sizes[r]);
                if (failed) return failed;
                taken += lane->at - before;
            }
            int64_t here = (lane->end - lane->next) / 64;
            blocks = here < blocks ? here : blocks;
            some = lane->buffer + lane->next;
            active++;
            padded += lane->padded;
        }
        if (watch && taken) __atomic_fetch_add(&watch->taken, taken, __ATOMIC_RELAXED);
        if (!active || (active < busy && !padded)) break;
        for (int k = 0; k < LANES; k++)
            data[k] = lanes[k].range >= 0 ? lanes[k].buffer + lanes[k].next : some;
        take_blocks(state, data, blocks);
        for (int k = 0; k < LANES; k++)
            if (lanes[k].range >= 0) lanes[k].next += 64 * blocks;
    }
    for (int k = 0; k < LANES; k++) {
        if (lanes[k].range < 0) continue;
        Range *range = &ranges[lanes[k].range];
        for (int j = 0; j < 8; j++) range->words[j] = ((uint32_t *)&state[j])[k];
        range->at = lanes[k].at - (lanes[k].end - lanes[k].next);
    }
    return 0;
}

int64_t digest_space_bytes(void) { return (int64_t)(8 * sizeof(Words) + LANES * sizeof(Lane)); }

/* Whether this is faster here than one range after the other: with wide vectors and without the
   instructions that a library's own SHA-256 uses. */
int32_t digest_lanes_pay(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return !(b >> 29 & 1) && __builtin_cpu_supports("avx2");
#else
    return 0;
#endif
}
