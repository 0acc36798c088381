#include "net/http_server_pace.h"

#include "base/cleanup.h"
#include "base/clock.h"

size_t cst_http_pace_slice(uint64_t rate)
{
	uint64_t slice = rate / 50;
	if (slice < 1024)
		return 1024;
	return slice > 256 * 1024 ? 256 * 1024 : (size_t)slice;
}

void cst_http_pace_begin(struct cst_http_pace *pace, int64_t now)
{
	if (pace->next < now)
		pace->next = now;
}

int64_t cst_http_pace_reserve(struct cst_http_pace *pace, int64_t now, uint64_t bytes, int64_t catch_up)
{
	if (pace->rate == 0)
		return now;
	int64_t start = cst_max(pace->next, now - catch_up);
	/* A slice is small, so this neither overflows nor loses more than a nanosecond each time. */
	pace->next = start + (int64_t)(((unsigned __int128)bytes * CST_NS_PER_S + pace->rate - 1) / pace->rate);
	return start;
}
