#include "store/fault.h"

#include <errno.h>
#include <string.h>

static const char *const kind_names[CST_STORE_FAULT_COUNT] = {
	[CST_STORE_FAULT_NONE] = "none",   [CST_STORE_FAULT_503] = "503",   [CST_STORE_FAULT_RESET] = "reset",
	[CST_STORE_FAULT_SHORT] = "short", [CST_STORE_FAULT_SLOW] = "slow", [CST_STORE_FAULT_ETAG] = "etag",
	[CST_STORE_FAULT_LOST] = "lost",
};

const char *cst_store_fault_name(enum cst_store_fault_kind kind)
{
	return kind_names[kind];
}

static const char *const operation_names[] = {
#define NAME(id, name) [CST_STORE_OP_##id] = (name),
	CST_STORE_OPERATIONS(NAME)
#undef NAME
};

const char *cst_store_operation_name(enum cst_store_operation op)
{
	return operation_names[op];
}

static int parse_rate(struct cst_slice text, uint64_t *threshold)
{
	char buf[32];
	if (text.len == 0 || text.len >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text.data, text.len);
	buf[text.len] = '\0';
	char *end;
	double rate = strtod(buf, &end);
	if (end != buf && *end == '%') {
		rate /= 100;
		end++;
	}
	if (end == buf || *end || !(rate >= 0 && rate <= 1))
		return -EINVAL;
	*threshold = rate >= 1 ? UINT64_MAX : (uint64_t)(rate * 0x1p64);
	return 0;
}

static int parse_kind(struct cst_slice text, enum cst_store_fault_kind *kind)
{
	for (int i = CST_STORE_FAULT_NONE + 1; i < CST_STORE_FAULT_COUNT; i++) {
		if (cst_slice_is(text, kind_names[i])) {
			*kind = (enum cst_store_fault_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_operation(struct cst_slice text, int *operation)
{
	for (size_t i = 0; i < CST_ARRAY_LEN(operation_names); i++) {
		if (cst_slice_ieq(text, cst_slice_of(operation_names[i]))) {
			*operation = (int)i;
			return 0;
		}
	}
	return -EINVAL;
}

int cst_store_fault_parse(const char *text, struct cst_store_fault *fault, struct cst_error *err)
{
	struct cst_slice rest = cst_slice_of(text);
	struct cst_slice rate = cst_slice_cut(&rest, ':');
	struct cst_slice kind = cst_slice_cut(&rest, ':');
	const char *why = NULL;
	*fault = (struct cst_store_fault){.operation = -1};
	if (parse_rate(rate, &fault->threshold) < 0)
		why = "the rate is not a fraction from 0 to 1";
	else if (parse_kind(kind, &fault->kind) < 0)
		why = "the kind is none of 503, reset, short, slow, etag, lost";
	else if (rest.data && parse_operation(rest, &fault->operation) < 0)
		why = "no operation has that name";
	if (!why)
		return 0;
	cst_error_set(err, EINVAL, "can't use the fault %s", text);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "write RATE:KIND[:OPERATION], for example 0.01:503:GetObject");
	return -EINVAL;
}

/* The finalizer of SplitMix64: every bit of the input reaches every bit of the output. */
static uint64_t mix(uint64_t v)
{
	v += 0x9e3779b97f4a7c15u;
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
	return v ^ (v >> 31);
}

enum cst_store_fault_kind cst_store_fault_decide(const struct cst_store_fault *faults, size_t count, uint64_t seed,
						 enum cst_store_operation op, uint64_t identity, uint32_t attempt,
						 uint64_t *detail)
{
	uint64_t base = mix(mix(mix(mix(seed) ^ (uint64_t)op) ^ identity) ^ attempt);
	*detail = mix(base);
	for (size_t i = 0; i < count; i++) {
		if (faults[i].operation >= 0 && faults[i].operation != (int)op)
			continue;
		if (mix(base ^ (i + 1)) < faults[i].threshold || faults[i].threshold == UINT64_MAX)
			return faults[i].kind;
	}
	return CST_STORE_FAULT_NONE;
}

/* FNV-1a, enough to tell requests apart. */
static uint64_t hash_slice(uint64_t h, struct cst_slice s)
{
	for (size_t i = 0; i < s.len; i++)
		h = (h ^ (uint8_t)s.data[i]) * 0x100000001b3u;
	return (h ^ 0xff) * 0x100000001b3u;
}

/* Parameters that differ between two runs of the same program: signatures, times, identifiers that we made. */
static bool varies(struct cst_slice name)
{
	static const char *const names[] = {"Signature", "Expires",	   "OSSAccessKeyId",	"AWSAccessKeyId",
					    "uploadId",	 "security-token", "continuation-token"};
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++) {
		if (cst_slice_is(name, names[i]))
			return true;
	}
	return cst_slice_starts(name, CST_SLICE("X-Amz-")) || cst_slice_starts(name, CST_SLICE("x-oss-"));
}

uint64_t cst_store_fault_identity(const struct cst_http_head *head)
{
	struct cst_slice query = head->target;
	struct cst_slice path = cst_slice_cut(&query, '?');
	uint64_t h = hash_slice(0xcbf29ce484222325u, head->method);
	h = hash_slice(h, path);
	while (query.len) {
		struct cst_slice parameter = cst_slice_cut(&query, '&');
		struct cst_slice rest = parameter;
		if (!varies(cst_slice_cut(&rest, '=')))
			h = hash_slice(h, parameter);
	}
	return hash_slice(h, cst_http_header_get(head, "range"));
}
