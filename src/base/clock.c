#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return ts.tv_sec * CST_NS_PER_S + ts.tv_nsec;
}

int64_t cst_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t cst_wall(void)
{
	return read_clock(CLOCK_REALTIME);
}

void cst_sleep(int64_t ns)
{
	struct timespec ts = {ns / CST_NS_PER_S, ns % CST_NS_PER_S};
	while (ns > 0 && clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR)
		;
}

static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

/* Years outside 0…9999 would not fit the formats; such times come only from damaged metadata. */
static struct tm split(int64_t s)
{
	const int64_t last = INT64_C(253402300799);
	time_t t = s < 0 ? 0 : s > last ? last : s;
	struct tm tm;
	gmtime_r(&t, &tm);
	return tm;
}

void cst_time_http(int64_t s, char out[CST_TIME_TEXT])
{
	struct tm tm = split(s);
	snprintf(out, CST_TIME_TEXT, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[tm.tm_wday % 7],
		 (unsigned)tm.tm_mday % 100, months[tm.tm_mon % 12], (unsigned)(tm.tm_year + 1900) % 10000,
		 (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

void cst_time_iso(int64_t s, char out[CST_TIME_TEXT])
{
	struct tm tm = split(s);
	snprintf(out, CST_TIME_TEXT, "%04u-%02u-%02uT%02u:%02u:%02u.000Z", (unsigned)(tm.tm_year + 1900) % 10000,
		 (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
		 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

void cst_time_compact(int64_t s, char out[CST_TIME_TEXT])
{
	struct tm tm = split(s);
	snprintf(out, CST_TIME_TEXT, "%04u%02u%02uT%02u%02u%02uZ", (unsigned)(tm.tm_year + 1900) % 10000,
		 (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
		 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

/* Reads exactly `digits` digits. */
static bool number(const char **p, const char *end, int digits, int *value)
{
	*value = 0;
	for (int i = 0; i < digits; i++, (*p)++) {
		if (*p >= end || **p < '0' || **p > '9')
			return false;
		*value = *value * 10 + (**p - '0');
	}
	return true;
}

static bool literal(const char **p, const char *end, const char *text)
{
	size_t len = strlen(text);
	if ((size_t)(end - *p) < len || memcmp(*p, text, len) != 0)
		return false;
	*p += len;
	return true;
}

static bool clock_part(const char **p, const char *end, struct tm *tm)
{
	return number(p, end, 2, &tm->tm_hour) && literal(p, end, ":") && number(p, end, 2, &tm->tm_min) &&
	       literal(p, end, ":") && number(p, end, 2, &tm->tm_sec);
}

static bool parse_http(const char *p, const char *end, struct tm *tm)
{
	if (end - p < 5 || p[3] != ',' || p[4] != ' ')
		return false;
	p += 5;
	if (!number(&p, end, 2, &tm->tm_mday) || !literal(&p, end, " "))
		return false;
	for (tm->tm_mon = 0; tm->tm_mon < 12; tm->tm_mon++)
		if (literal(&p, end, months[tm->tm_mon]))
			break;
	return tm->tm_mon < 12 && literal(&p, end, " ") && number(&p, end, 4, &tm->tm_year) && literal(&p, end, " ") &&
	       clock_part(&p, end, tm) && literal(&p, end, " GMT") && p == end;
}

static bool parse_iso(const char *p, const char *end, struct tm *tm, int64_t *offset)
{
	*offset = 0;
	if (!number(&p, end, 4, &tm->tm_year) || !literal(&p, end, "-") || !number(&p, end, 2, &tm->tm_mon) ||
	    !literal(&p, end, "-") || !number(&p, end, 2, &tm->tm_mday) ||
	    !(literal(&p, end, "T") || literal(&p, end, " ")) || !clock_part(&p, end, tm))
		return false;
	tm->tm_mon--;
	if (literal(&p, end, "."))
		while (p < end && *p >= '0' && *p <= '9')
			p++;
	if (literal(&p, end, "Z"))
		return p == end;
	int sign = literal(&p, end, "+") ? 1 : literal(&p, end, "-") ? -1 : 0;
	int hours, minutes;
	if (sign == 0 || !number(&p, end, 2, &hours))
		return false;
	literal(&p, end, ":");
	if (!number(&p, end, 2, &minutes))
		return false;
	*offset = sign * (hours * 3600 + minutes * 60);
	return p == end;
}

static bool parse_compact(const char *p, const char *end, struct tm *tm)
{
	bool ok = number(&p, end, 4, &tm->tm_year) && number(&p, end, 2, &tm->tm_mon) &&
		  number(&p, end, 2, &tm->tm_mday) && literal(&p, end, "T") && number(&p, end, 2, &tm->tm_hour) &&
		  number(&p, end, 2, &tm->tm_min) && number(&p, end, 2, &tm->tm_sec) && literal(&p, end, "Z") &&
		  p == end;
	tm->tm_mon--;
	return ok;
}

int cst_time_parse(const char *text, size_t len, int64_t *s)
{
	const char *end = text + len;
	struct tm tm = {0};
	int64_t offset = 0;

	if (!parse_http(text, end, &tm)) {
		memset(&tm, 0, sizeof(tm));
		if (!parse_iso(text, end, &tm, &offset)) {
			memset(&tm, 0, sizeof(tm));
			offset = 0;
			if (!parse_compact(text, end, &tm))
				return -EINVAL;
		}
	}
	if (tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 ||
	    tm.tm_sec > 60)
		return -EINVAL;
	tm.tm_year -= 1900;
	*s = timegm(&tm) - offset;
	return 0;
}
