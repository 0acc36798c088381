#include "object/retry.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

#define MALFORMED_ATTEMPTS 3
#define TLS_ATTEMPTS 2

static const struct code {
	const char *name;
	int error;
	enum cst_retry_action action;
} codes[] = {
	{"NoSuchKey", ENOENT, CST_RETRY_FAIL},
	{"NoSuchVersion", ENOENT, CST_RETRY_FAIL},
	{"SymlinkTargetNotExist", ENOENT, CST_RETRY_FAIL},
	{"NoSuchBucket", ENXIO, CST_RETRY_FAIL},
	{"AccessDenied", EACCES, CST_RETRY_FAIL},
	{"UserDisable", EACCES, CST_RETRY_FAIL},
	{"InvalidAccessKeyId", EACCES, CST_RETRY_RENEW},
	{"InvalidAccessKeyId.NotFound", EACCES, CST_RETRY_RENEW},
	{"SignatureDoesNotMatch", EACCES, CST_RETRY_RENEW},
	{"SecurityTokenExpired", EACCES, CST_RETRY_RENEW},
	{"InvalidSecurityToken", EACCES, CST_RETRY_RENEW},
	{"InvalidSecurityToken.Expired", EACCES, CST_RETRY_RENEW},
	{"ExpiredToken", EACCES, CST_RETRY_RENEW},
	{"InvalidToken", EACCES, CST_RETRY_RENEW},
	{"TokenRefreshRequired", EACCES, CST_RETRY_RENEW},
	{"RequestTimeTooSkewed", EACCES, CST_RETRY_SKEW},
	{"PreconditionFailed", ESTALE, CST_RETRY_FAIL},
	{"InvalidRange", ERANGE, CST_RETRY_FAIL},
	{"InvalidObjectState", EIO, CST_RETRY_FAIL},
	{"NotSymlink", EINVAL, CST_RETRY_FAIL},
	{"NotImplemented", ENOTSUP, CST_RETRY_FAIL},
	{"PermanentRedirect", EINVAL, CST_RETRY_FAIL},
	{"AuthorizationHeaderMalformed", EINVAL, CST_RETRY_FAIL},
	{"RequestTimeout", EIO, CST_RETRY_AGAIN},
	{"OperationAborted", EIO, CST_RETRY_AGAIN},
	{"InternalError", EIO, CST_RETRY_AGAIN},
	{"ServiceUnavailable", EIO, CST_RETRY_AGAIN},
	{"SlowDown", EIO, CST_RETRY_THROTTLE},
	{"SlowDownRead", EIO, CST_RETRY_THROTTLE},
	{"RequestLimitExceeded", EIO, CST_RETRY_THROTTLE},
	{"BandwidthLimitExceeded", EIO, CST_RETRY_THROTTLE},
	{"TooManyRequests", EIO, CST_RETRY_THROTTLE},
	{"CpuLimitExceeded", EIO, CST_RETRY_THROTTLE},
	{"ActiveRequestLimitExceeded", EIO, CST_RETRY_THROTTLE},
};

static bool ends_with(const char *s, const char *tail)
{
	size_t n = strlen(s), m = strlen(tail);
	return n >= m && strcmp(s + n - m, tail) == 0;
}

static struct cst_retry_verdict by_status(int status, bool no_code)
{
	switch (status) {
	case 400:
		return (struct cst_retry_verdict){EINVAL, CST_RETRY_FAIL, 0};
	case 401:
		return (struct cst_retry_verdict){EACCES, CST_RETRY_RENEW, 0};
	case 403:
		/* Without a code (HEAD on S3) it may be an expired token. */
		return (struct cst_retry_verdict){EACCES, no_code ? CST_RETRY_RENEW : CST_RETRY_FAIL, 0};
	case 404:
	case 405: /* a delete marker */
		return (struct cst_retry_verdict){ENOENT, CST_RETRY_FAIL, 0};
	case 408:
		return (struct cst_retry_verdict){EIO, CST_RETRY_AGAIN, 0};
	case 412:
		return (struct cst_retry_verdict){ESTALE, CST_RETRY_FAIL, 0};
	case 416:
		return (struct cst_retry_verdict){ERANGE, CST_RETRY_FAIL, 0};
	case 429:
		return (struct cst_retry_verdict){EIO, CST_RETRY_THROTTLE, 0};
	case 501:
		return (struct cst_retry_verdict){ENOTSUP, CST_RETRY_FAIL, 0};
	default:
		if (status >= 500)
			return (struct cst_retry_verdict){EIO, CST_RETRY_AGAIN, 0};
		return (struct cst_retry_verdict){status >= 300 && status < 400 ? EINVAL : EIO, CST_RETRY_FAIL, 0};
	}
}

struct cst_retry_verdict cst_retry_status(int status, const char *code)
{
	for (size_t i = 0; i < CST_ARRAY_LEN(codes); i++)
		if (strcmp(codes[i].name, code) == 0)
			return (struct cst_retry_verdict){codes[i].error, codes[i].action, 0};
	if (ends_with(code, "QpsLimitExceeded") || ends_with(code, "RateLimitExceeded") ||
	    strncmp(code, "Throttling", 10) == 0)
		return (struct cst_retry_verdict){EIO, CST_RETRY_THROTTLE, 0};
	return by_status(status, code[0] == '\0');
}

struct cst_retry_verdict cst_retry_transport(int rc)
{
	switch (rc) {
	case -ECANCELED:
		return (struct cst_retry_verdict){ECANCELED, CST_RETRY_FAIL, 0};
	case -EINVAL:
	case -ENOMEM:
		return (struct cst_retry_verdict){-rc, CST_RETRY_FAIL, 0};
	case -EPROTO: /* mostly certificates, which don't mend themselves */
		return (struct cst_retry_verdict){EIO, CST_RETRY_AGAIN, TLS_ATTEMPTS};
	case -EBADMSG:
	case -EMSGSIZE:
		return (struct cst_retry_verdict){EIO, CST_RETRY_AGAIN, MALFORMED_ATTEMPTS};
	default:
		return (struct cst_retry_verdict){EIO, CST_RETRY_AGAIN, 0};
	}
}

int64_t cst_retry_delay(unsigned attempt, int64_t base, int64_t cap, uint64_t random)
{
	int64_t top = base;
	for (unsigned i = 1; i < attempt && top < cap; i++)
		top *= 2;
	top = cst_min(top, cap);
	return top > 0 ? (int64_t)(random % (uint64_t)(top + 1)) : 0;
}

bool cst_limiter_may_start(const struct cst_limiter *l)
{
	return l->limit <= 0 || (double)l->in_flight < l->limit;
}

bool cst_limiter_throttled(struct cst_limiter *l, int64_t started, int64_t now)
{
	if (l->last_cut && started < l->last_cut)
		return false;
	unsigned running = cst_max(l->in_flight, 1U);
	double from = l->limit > 0 ? cst_min(l->limit, (double)running) : (double)running;
	l->peak = cst_max(l->peak, running);
	l->limit = cst_max(from / 2, 1.0);
	l->last_cut = now;
	return true;
}

void cst_limiter_succeeded(struct cst_limiter *l)
{
	if (l->limit <= 0)
		return;
	/* One more for each round of `limit` answers; free again when well above what made the store complain. */
	l->limit += 1 / l->limit;
	if (l->limit > 2.0 * l->peak + 8) {
		l->limit = 0;
		l->peak = 0;
	}
}
