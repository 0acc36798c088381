#include "publish/verdict.h"

#include "base/text.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

void cst_write_id_new(char id[WRITE_ID_MAX])
{
	unsigned char random[16];
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_ASSERT(getrandom(random, sizeof(random), 0) == sizeof(random));
	cst_text_hex(&text, random, sizeof(random));
	memcpy(id, text.data, WRITE_ID_MAX);
}

/* A refusal is looked at even when no attempt came before it: a connection that broke may have carried the request once already, unseen by anybody
 * but the store. */
enum cst_publish_verdict cst_publish_judge(int rc)
{
	switch (rc) {
	case 0:
		return CST_VERDICT_PUBLISHED;
	case -EEXIST:
	case -ESTALE:
	case -ENOENT:
		return CST_VERDICT_LOOK;
	default:
		return CST_VERDICT_FAILED;
	}
}

enum cst_publish_verdict cst_publish_judge_before(enum cst_publish_seen seen)
{
	switch (seen) {
	case CST_SEEN_OURS:
		return CST_VERDICT_PUBLISHED;
	case CST_SEEN_BASE:
	case CST_SEEN_BEFORE:
		return CST_VERDICT_AGAIN;
	default:
		return CST_VERDICT_CONFLICT;
	}
}

enum cst_publish_verdict cst_publish_judge_seen(enum cst_publish_request request, bool upload_gone,
						enum cst_publish_seen seen)
{
	if (seen == CST_SEEN_OURS)
		return CST_VERDICT_PUBLISHED;
	if (request == CST_PUBLISH_COMPLETE && upload_gone)
		return CST_VERDICT_LOST;
	if (seen == CST_SEEN_OTHER || seen == CST_SEEN_GONE)
		return CST_VERDICT_CONFLICT;
	/* The base is there, or an earlier one of ours: whoever stood in the way has gone. */
	return CST_VERDICT_AGAIN;
}

enum cst_publish_seen cst_publish_classify(const struct cst_publish_looked *looked, bool found, const char *etag,
					   const char *id, uint64_t size, bool has_crc64, uint64_t crc64, bool before)
{
	if (!found)
		return looked->base_exists ? CST_SEEN_GONE : CST_SEEN_BASE;
	if (looked->id[0] && strcmp(id, looked->id) == 0 && size == looked->size) {
		/* Of ours, but not the bytes that were meant: to be replaced. */
		bool broken = has_crc64 && looked->has_crc64 && crc64 != looked->crc64;
		return broken ? CST_SEEN_BEFORE : CST_SEEN_OURS;
	}
	if (looked->base_exists && (!looked->base_etag[0] || strcmp(etag, looked->base_etag) == 0))
		return CST_SEEN_BASE;
	return before ? CST_SEEN_BEFORE : CST_SEEN_OTHER;
}
