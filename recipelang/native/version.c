/* Which interfaces these are, see __init__.py. */

#include <stdint.h>

int32_t native_version(void) { return 3; }
