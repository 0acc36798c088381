/* Parsing of quantities as people write them on command lines and in configuration files. Any thread.
 * All return 0, -EINVAL (not a quantity) or -ERANGE (does not fit). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes: 512MiB, 10Gi, 64k, 8M, 1.5GiB, 100. K/M/G/T/P with or without i and B are powers of 1024 (as in ossfs,
 * ossutil and Kubernetes' Ki), KB/MB/GB likewise. */
int cst_parse_size(const char *text, uint64_t *bytes);
/* Bytes per second: a size with an optional "/s". */
int cst_parse_rate(const char *text, uint64_t *bytes_per_s);
/* Nanoseconds: 20ms, 5s, 2h, 1m30s, 250us, 1d; a bare number counts in `unit_ns`. */
int cst_parse_duration(const char *text, int64_t unit_ns, int64_t *ns);
int cst_parse_bool(const char *text, bool *value); /* true/false, yes/no, on/off, 1/0 */
int cst_parse_int(const char *text, int base, int64_t *value);

/* "588.90KiB": two digits after the point, binary units. Writes at most 32 bytes. */
#define CST_SIZE_TEXT 32
void cst_format_size(uint64_t bytes, char out[CST_SIZE_TEXT]);
