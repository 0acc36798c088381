#include "base/units.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A decimal number with an optional fraction; no sign, exponent, hex, inf or nan (which strtod would take). */
static int decimal(const char **p, double *value)
{
	const char *start = *p, *c = start;
	size_t digits = 0;
	for (; *c >= '0' && *c <= '9'; c++)
		digits++;
	if (*c == '.') {
		for (c++; *c >= '0' && *c <= '9'; c++)
			digits++;
	}
	if (digits == 0 || c - start > 30)
		return -EINVAL;
	char copy[32];
	memcpy(copy, start, (size_t)(c - start));
	copy[c - start] = '\0';
	*value = strtod(copy, NULL);
	*p = c;
	return 0;
}

/* Whole numbers keep all 64 bits; only fractions go through a double. */
static int scale(const char *number, const char *end, double value, uint64_t factor, uint64_t *out)
{
	if (!memchr(number, '.', (size_t)(end - number))) {
		errno = 0;
		uint64_t whole = strtoull(number, NULL, 10);
		if (errno == ERANGE || __builtin_mul_overflow(whole, factor, out))
			return -ERANGE;
		return 0;
	}
	double product = value * (double)factor;
	if (product >= 18446744073709549568.0)
		return -ERANGE;
	*out = (uint64_t)(product + 0.5);
	return 0;
}

int cst_parse_size(const char *text, uint64_t *bytes)
{
	const char *p = text;
	double value;
	if (decimal(&p, &value) < 0)
		return -EINVAL;
	const char *end = p;
	static const char letters[] = "KMGTPE";
	uint64_t factor = 1;
	char upper = (char)(*p & ~0x20);
	const char *at = upper ? strchr(letters, upper) : NULL; /* a blank becomes 0 */
	if (at) {
		factor = UINT64_C(1) << (10 * (at - letters + 1));
		p++;
		if (*p == 'i')
			p++;
	}
	if (*p == 'B' || *p == 'b')
		p++;
	if (*p != '\0')
		return -EINVAL;
	return scale(text, end, value, factor, bytes);
}

int cst_parse_rate(const char *text, uint64_t *bytes_per_s)
{
	char copy[48];
	size_t len = strlen(text);
	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len + 1);
	if (len > 2 && strcmp(copy + len - 2, "/s") == 0)
		copy[len - 2] = '\0';
	return cst_parse_size(copy, bytes_per_s);
}

static int64_t duration_unit(const char **p)
{
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = {{"ns", 1},
		     {"us", CST_NS_PER_US},
		     {"ms", CST_NS_PER_MS},
		     {"s", CST_NS_PER_S},
		     {"m", 60 * CST_NS_PER_S},
		     {"h", 3600 * CST_NS_PER_S},
		     {"d", 86400 * CST_NS_PER_S}};
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t len = strlen(units[i].name);
		if (strncmp(*p, units[i].name, len) == 0) {
			*p += len;
			return units[i].ns;
		}
	}
	return 0;
}

int cst_parse_duration(const char *text, int64_t unit_ns, int64_t *ns)
{
	const char *p = text;
	uint64_t total = 0;
	if (*p == '\0')
		return -EINVAL;
	for (bool first = true; *p; first = false) {
		const char *number = p;
		double value;
		if (decimal(&p, &value) < 0)
			return -EINVAL;
		const char *end = p;
		int64_t unit = 0;
		if (*p == '\0') {
			if (!first)
				return -EINVAL; /* "1m30": which unit? */
			unit = unit_ns;
		} else {
			unit = duration_unit(&p);
			if (unit == 0)
				return -EINVAL;
		}
		uint64_t part;
		int rc = scale(number, end, value, (uint64_t)unit, &part);
		if (rc < 0)
			return rc;
		if (__builtin_add_overflow(total, part, &total) || total > INT64_MAX)
			return -ERANGE;
	}
	*ns = (int64_t)total;
	return 0;
}

int cst_parse_bool(const char *text, bool *value)
{
	static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
	for (size_t i = 0; i < 4; i++) {
		if (strcasecmp(text, yes[i]) == 0) {
			*value = true;
			return 0;
		}
		if (strcasecmp(text, no[i]) == 0) {
			*value = false;
			return 0;
		}
	}
	return -EINVAL;
}

int cst_parse_int(const char *text, int base, int64_t *value)
{
	char *end;
	if (*text == '\0' || *text == ' ' || *text == '\t')
		return -EINVAL;
	errno = 0;
	*value = strtoll(text, &end, base);
	if (errno == ERANGE)
		return -ERANGE;
	return *end == '\0' ? 0 : -EINVAL;
}

void cst_format_size(uint64_t bytes, char out[CST_SIZE_TEXT])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;
	while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1024;
		unit++;
	}
	snprintf(out, CST_SIZE_TEXT, "%.2f%s", value, units[unit]);
}
