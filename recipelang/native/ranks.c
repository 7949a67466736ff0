/* The rank of each magnitude in its row: a radix sort of (bits, place) pairs, which takes the same
   time whatever the numbers are. */

#include <stdint.h>
#include <string.h>

#define DIGITS 3

static const int SHIFT[DIGITS] = {0, 11, 21}, WIDTH[DIGITS] = {11, 10, 10};

/* For whole rows of `row` elements: the rank of a magnitude in its row times `unit`, from 0 for the
   smallest; among equals the lowest index comes out largest. `space` holds 16 bytes an element of a
   row. */
void rank_rows(const float *values, int64_t rows, int64_t row, float unit, float *ranks, void *space) {
    uint64_t *pairs = space, *other = pairs + row;
    for (int64_t r = 0; r < rows; r++, values += row, ranks += row) {
        uint32_t counts[DIGITS][1 << 11];
        memset(counts, 0, sizeof counts);
        for (int64_t k = 0; k < row; k++) {
            uint32_t bits;
            memcpy(&bits, &values[row - 1 - k], 4);
            bits &= 0x7FFFFFFF;
            pairs[k] = (uint64_t)bits << 32 | (uint32_t)(row - 1 - k);
            for (int d = 0; d < DIGITS; d++) counts[d][bits >> SHIFT[d] & ((1u << WIDTH[d]) - 1)]++;
        }
        uint64_t *from = pairs, *to = other;
        for (int d = 0; d < DIGITS; d++) {
            uint32_t *places = counts[d], mask = (1u << WIDTH[d]) - 1, before = 0;
            int shift = 32 + SHIFT[d];
            int64_t same = places[from[0] >> shift & mask];
            if (same == row && d < DIGITS - 1) continue; /* all of them share the digit */
            for (uint32_t k = 0; k <= mask; k++) {
                uint32_t count = places[k];
                places[k] = before;
                before += count;
            }
            if (d == DIGITS - 1) {
                for (int64_t k = 0; k < row; k++)
                    ranks[(uint32_t)from[k]] = (float)(int32_t)places[from[k] >> shift & mask]++ * unit;
                break;
            }
            for (int64_t k = 0; k < row; k++) to[places[from[k] >> shift & mask]++] = from[k];
            uint64_t *swapped = from; from = to; to = swapped;
        }
    }
}
