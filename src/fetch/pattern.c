/* Access patterns.
 *
 * A handle is read at up to four places at once (threads that share it, pages of a mapping), each a lane. A read belongs to the lane
 * it is close to; any other takes the place of the lane that was not read for longest. The kernel's own readahead sends several READs
 * at once and threads may swap them, so close means within four lengths of the lane's end, 64 KiB at least, not exactly after it; within
 * 32 lengths of the end of a lane that has come far.
 *
 *              at 0, or ≥ 64 KiB of a model                second read, upwards
 *   FREE ─────────────────────────────────▶ FORWARD ◀─────────────────────────── ONE ◀── any other first read
 *                                              ▲ │                                 │
 *                          upwards, past `hi`  │ └── two reads in a row below `lo` │ two reads in a row below `lo`
 *                                              └──────────── BACKWARD ◀────────────┴─────────────────────────
 *
 * Independent of lanes, records (reads without a gap between them) whose starts are the same distance apart three times are strided; once
 * they are, some may be swapped or left out. While that holds the lanes say nothing; but reads in a lane that leaves little out never are. Whatever is neither is random. */
#include "fetch/pattern.h"

#include "base/cleanup.h"

#include <string.h>
#include <strings.h>

#define NEAR_LEAST (64u << 10)
#define RECORD_GAP (128u << 10)
#define RECORDS_SWAPPED 8

static bool near_end(const struct lane *l, uint64_t offset, uint64_t close)
{
	return offset + close >= l->hi && offset <= l->hi + close;
}

static bool near_start(const struct lane *l, uint64_t offset, uint32_t length, uint64_t close)
{
	return offset < l->lo && offset + length + close >= l->lo;
}

/* How far from a lane's end a read may be and belong to it. Swapped READs come from the kernel's readahead, which makes them large;
 * small random reads must not look close. The longer a lane, the more a thread may have been late with its READ. */
static uint64_t reach_of(const struct lane *l, uint32_t length)
{
	uint64_t least = cst_max(4 * (uint64_t)length, (uint64_t)NEAR_LEAST);
	return cst_max(least, cst_min(l->bytes / 2, 32 * (uint64_t)length));
}

static struct lane *find(struct pattern *p, uint64_t offset, uint32_t length)
{
	struct lane *best = NULL;
	for (struct lane *l = p->lanes; l < p->lanes + LANES; l++) {
		uint64_t reach = reach_of(l, length);
		if (l->kind != LANE_FREE && (near_end(l, offset, reach) || near_start(l, offset, length, reach)) &&
		    (!best || l->used > best->used))
			best = l;
	}
	return best;
}

static struct lane *replace(struct pattern *p, struct lane *left)
{
	struct lane *oldest = p->lanes;
	for (struct lane *l = p->lanes; l < p->lanes + LANES; l++)
		if (l->used < oldest->used)
			oldest = l;
	*left = *oldest;
	return oldest;
}

static void extend(struct lane *l, uint64_t offset, uint64_t end)
{
	bool up = end > l->hi, down = offset < l->lo;
	l->below = down && !up ? l->below + 1 : up ? 0 : l->below;
	l->lo = cst_min(l->lo, offset);
	l->hi = cst_max(l->hi, end);
	l->bytes += end - offset;
	enum lane_kind before = l->kind;
	if (l->below >= 2)
		l->kind = LANE_BACKWARD;
	else if (up || l->lo == 0)
		l->kind = LANE_FORWARD;
	if (l->kind != before && before != LANE_ONE) /* turned round */
		l->bytes = end - offset;
}

static void note_record(struct pattern *p, uint64_t offset, uint64_t end)
{
	if (p->reads > 1 && offset == p->record_end) {
		p->record_end = end;
		return;
	}
	int64_t distance = (int64_t)offset - (int64_t)p->record;
	if (p->reads <= 1) {
		p->strides = 0;
	} else if (p->strides && distance == p->stride) {
		p->strides++;
	} else if (pattern_is_strided(p) && distance % p->stride == 0 && distance / p->stride <= RECORDS_SWAPPED &&
		   distance / p->stride >= -RECORDS_SWAPPED) {
		if (distance / p->stride <= 0) /* a late one */
			return;
	} else {
		p->stride = distance;
		p->strides = 1;
	}
	p->record_length = p->record_end - p->record;
	p->record = offset;
	p->record_end = end;
}

/* Has a lane been read without leaving much out? Late READs of one make distances that look like strides. */
static bool is_dense(const struct lane *l)
{
	return l->kind == LANE_FORWARD && l->bytes >= (l->hi - l->lo) / 4 * 3;
}

bool pattern_is_strided(const struct pattern *p)
{
	uint64_t distance = (uint64_t)(p->stride < 0 ? -p->stride : p->stride);
	uint64_t length = cst_max(p->record_length, p->record_end - p->record);
	return p->strides >= 2 && distance >= length + RECORD_GAP;
}

struct lane *pattern_note(struct pattern *p, uint64_t offset, uint32_t length, enum pattern_hint hint,
			  struct lane *left)
{
	uint64_t end = offset + length;
	left->kind = LANE_FREE;
	p->reads++;
	note_record(p, offset, end);
	struct lane *l = find(p, offset, length);
	if (l) {
		extend(l, offset, end);
	} else {
		l = replace(p, left);
		bool sure = offset == 0 || (hint == HINT_WHOLE && length >= NEAR_LEAST);
		*l = (struct lane){.kind = sure ? LANE_FORWARD : LANE_ONE, .lo = offset, .hi = end, .bytes = length};
	}
	l->used = p->reads;
	if (is_dense(l) && l->bytes >= 8 * (uint64_t)length)
		p->strides = 0;
	return l;
}

static bool ends_with(struct cst_slice key, const char *suffix)
{
	size_t n = strlen(suffix);
	return key.len > n && strncasecmp(key.data + key.len - n, suffix, n) == 0;
}

enum pattern_hint pattern_hint_of(struct cst_slice key)
{
	static const char *const whole[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ckpt", ".onnx"};
	static const char *const tail[] = {".parquet", ".orc", ".zip", ".npz", ".jar", ".arrow", ".feather"};
	for (size_t i = 0; i < CST_ARRAY_LEN(whole); i++)
		if (ends_with(key, whole[i]))
			return HINT_WHOLE;
	for (size_t i = 0; i < CST_ARRAY_LEN(tail); i++)
		if (ends_with(key, tail[i]))
			return HINT_TAIL;
	return HINT_NONE;
}
