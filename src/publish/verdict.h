/* What an answer to a publishing request means: pure decisions, no state. Any thread.
 *
 * The table (doc/publish.md has it with its reasons): an answer is either plain, or somebody has to look at the object that is
 * there now (HEAD), and what is seen decides together with why the request was refused. */
#pragma once

#include "object/write.h"

#define WRITE_ID_HEADER "cistern-write-id"
#define WRITE_ID_MAX 33 /* 32 hex digits */
void cst_write_id_new(char id[WRITE_ID_MAX]);

enum cst_publish_request { CST_PUBLISH_PUT, CST_PUBLISH_COMPLETE };
enum cst_publish_verdict {
	CST_VERDICT_PUBLISHED, /* it is there, and ours */
	CST_VERDICT_LOOK,      /* a HEAD decides */
	CST_VERDICT_CONFLICT,  /* somebody else's version is there, or ours is not */
	CST_VERDICT_AGAIN,     /* nothing stands against it: ask once more, on the base that was seen */
	CST_VERDICT_LOST,      /* the upload is gone, and its bytes with it */
	CST_VERDICT_FAILED,    /* by itself: the request's error */
};
/* What a HEAD has shown. */
enum cst_publish_seen {
	CST_SEEN_BASE,	 /* the version that we build on; or nothing, and we build on nothing */
	CST_SEEN_OURS,	 /* this publication */
	CST_SEEN_BEFORE, /* an earlier one of ours whose outcome was not known */
	CST_SEEN_OTHER,	 /* another's */
	CST_SEEN_GONE,	 /* nothing, and we build on a version */
};

/* The answer alone. */
enum cst_publish_verdict cst_publish_judge(int rc);
/* Before an overwrite that the store itself does not check. */
enum cst_publish_verdict cst_publish_judge_before(enum cst_publish_seen seen);
/* After a refusal of those that are to be looked at. upload_gone: it was NoSuchUpload. */
enum cst_publish_verdict cst_publish_judge_seen(enum cst_publish_request request, bool upload_gone,
						enum cst_publish_seen seen);

/* What is looked for. */
struct cst_publish_looked {
	bool base_exists;
	const char *base_etag; /* "": not known, every one is the base */
	const char *id;	       /* of this publication; "": none has been sent */
	uint64_t size, crc64;  /* of it */
	bool has_crc64;
};
/* What is there: found, and then its version. `before`: its id is one of ours from before. */
enum cst_publish_seen cst_publish_classify(const struct cst_publish_looked *looked, bool found, const char *etag,
					   const char *id, uint64_t size, bool has_crc64, uint64_t crc64, bool before);
