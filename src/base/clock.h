/* Clocks and the time formats of HTTP and of the stores. Times are nanoseconds in int64_t; any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CST_NS_PER_S INT64_C(1000000000)
#define CST_NS_PER_MS INT64_C(1000000)
#define CST_NS_PER_US INT64_C(1000)

int64_t cst_now(void);	/* CLOCK_MONOTONIC, ns: for intervals and deadlines */
int64_t cst_wall(void); /* CLOCK_REALTIME, ns since 1970 */
void cst_sleep(int64_t ns);

/* Formats take seconds since 1970, UTC, and write at most 32 bytes with the NUL. */
#define CST_TIME_TEXT 32
void cst_time_http(int64_t s, char out[CST_TIME_TEXT]);	   /* "Wed, 28 Dec 2022 10:27:41 GMT" (RFC 9110) */
void cst_time_iso(int64_t s, char out[CST_TIME_TEXT]);	   /* "2022-12-28T10:27:41.000Z" */
void cst_time_compact(int64_t s, char out[CST_TIME_TEXT]); /* "20221228T102741Z" */
/* Accepts the three forms above, and ISO with or without fraction and with Z or +hh:mm. 0 and *s, or -EINVAL. */
int cst_time_parse(const char *text, size_t len, int64_t *s);
