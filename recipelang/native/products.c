/* Rows of a product of two thin matrices: what an adapter changes in a weight. */

#include <stdint.h>

#include "vectors.h"

#define TILE 256 /* columns whose sums stay in registers and the first cache */

/* out (rows, columns) = left (rows, rank) times right (rank, columns), all row by row; every number
   is the sum of its `rank` products in order, each rounded. */
#define PRODUCT(P, T)                                                                              \
    VECTORS void P##_product(const T *left, const T *right, int64_t rows, int64_t rank,            \
                             int64_t columns, T *out) {                                            \
        T sums[TILE];                                                                              \
        for (int64_t first = 0; first < columns; first += TILE) {                                  \
            int64_t count = columns - first < TILE ? columns - first : TILE;                       \
            for (int64_t r = 0; r < rows; r++) {                                                   \
                const T *row = left + r * rank;                                                    \
                for (int64_t k = 0; k < count; k++) sums[k] = row[0] * right[first + k];           \
                int64_t i = 1;                                                                     \
                for (; i + 4 <= rank; i += 4) {                                                    \
                    const T *a = right + i * columns + first, *b = a + columns;                    \
                    const T *c = b + columns, *d = c + columns;                                    \
                    for (int64_t k = 0; k < count; k++)                                            \
                        sums[k] = sums[k] + row[i] * a[k] + row[i + 1] * b[k] + row[i + 2] * c[k]  \
                            + row[i + 3] * d[k];                                                   \
                }                                                                                  \
                for (; i < rank; i++) {                                                            \
                    const T *a = right + i * columns + first;                                      \
                    for (int64_t k = 0; k < count; k++) sums[k] += row[i] * a[k];                  \
                }                                                                                  \
                for (int64_t k = 0; k < count; k++) out[r * columns + first + k] = sums[k];        \
            }                                                                                      \
        }                                                                                          \
    }
PRODUCT(f4, float) PRODUCT(f8, double)
