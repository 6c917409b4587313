/* The host's processors. */
#ifndef TRIVISOR_UTIL_PROCESSORS_H
#define TRIVISOR_UTIL_PROCESSORS_H

/* How many of them this process could use when it first asked; at least 1. */
unsigned host_processors(void);

#endif
