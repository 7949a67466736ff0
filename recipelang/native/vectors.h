/* A function marked VECTORS is compiled for several generations of processors; the loader takes the
   best that this one knows. */

#ifndef RECIPELANG_VECTORS_H
#define RECIPELANG_VECTORS_H

#if defined(__x86_64__) && defined(__gnu_linux__)
#define VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORS
#endif

#endif
