/* Writing object bytes to the origin: the counterpart of fetch.h.
 *
 * A cst_publish_stream writes one object from its front to its end with bounded memory: bytes gather in blocks of a hard budget that all streams share,
 * parts go to the store as they fill, several at once, and a publication makes all bytes so far the object's content, in one step that readers of the
 * bucket see whole or not at all. How it does that:
 *
 *	bytes in all at the publication              requests
 *	none (a new or truncated file)               PutObject of nothing
 *	up to one part                               PutObject
 *	more                                         InitiateMultipartUpload, UploadPart…, CompleteMultipartUpload; parts grow with the file, up to a
 *	                                             quarter of the memory: 10,000 of them hold some 270 GiB with 128 MiB (doc/publish.md)
 *	appended to an object of at least part_min   the same, its bytes by UploadPartCopy (many ranges at once above copy_max)
 *	appended to a smaller one                    its bytes are read (If-Match) and sent again with the new ones
 *	mode APPENDABLE                              AppendObject of what is new; the object must be appendable, or not there
 *
 * After a publication the stream goes on: more bytes are appended to what it published. So an fsync in the middle of a file costs what
 * an append costs, not the whole file again; the bytes of an upload that is completed are not sent twice.
 *
 * Versions. A stream knows which version (or none) it builds on: its base. A publication is conditional on the base: IF_ABSENT where there was none; where the
 * store checks If-Match, that; else a HEAD just before, which leaves a window of one round trip. Each publication carries a fresh write id in
 * the metadata (cistern-write-id) and, when an answer was lost, a HEAD decides by it whether the object is ours: what was a success is never
 * reported as a conflict, nor the other way round. After it the base is what was published.
 *
 * Conflict: -ESTALE. Nothing was overwritten. The bytes are kept: an upload stays uncompleted in the store, what is only in memory goes to a file in
 * `keep_dir`; a record there tells the two (publish/keep.h; `cistern conflicts`). The stream takes no more bytes.
 * Other failures (after the retries of src/object, which go on until the deadline): the publication ends with the error, the bytes stay where they are
 * and the next publication tries again. abandon() then keeps them as a conflict does, if the caller wants it.
 *
 * Integrity: the CRC64 of all bytes is carried along (parts combined) and compared with the store's; a difference is -EBADMSG and the publication fails.
 *
 * Any thread; no function blocks. Callbacks come on a loop thread or, when all is there, on the caller's before the call returns. */
#pragma once

#include "fetch/fetch.h"
#include "object/write.h"

struct cst_publish;
struct cst_publish_stream;

/* In brackets: the option of `cistern mount` that sets it. */
struct cst_publish_config {
	struct cst_bucket *bucket; /* borrowed */
	uint64_t memory;	   /* bytes of all buffers, hard; at least two parts [upload_memory]; 0: 128 MiB */
	uint64_t
		part_size; /* bytes of the first parts; 0: 8 MiB [upload_part_size; ossfs 2: upload_buffer_size, ossfs 1: multipart_size] */
	unsigned parallel;	  /* requests under way over all streams; 0: 64 [upload_concurrency] */
	unsigned stream_parallel; /* of one stream; 0: 16 */
	bool verify_crc64;	  /* [enable_crc64] */
	bool background;	  /* uploads yield to reads where the origin is rate limited */
	const char *keep_dir;	  /* where what can't be published is kept; made when needed, mode 0700 */
	const char *writer;	  /* who writes, for the keep records: "host:mountpoint" */
};
struct cst_publish *cst_publish_new(const struct cst_publish_config *config, struct cst_error *err);
/* Nothing waits for the store any more: requests under way are cancelled, later ones end at once, publications fail with -ECANCELED, and what streams hold is
 * kept when they are closed. Uploads that were to be aborted may stay behind. For an end that can't wait for a store that is down; any thread. */
void cst_publish_stop(struct cst_publish *p);
/* All streams must have been closed. */
void cst_publish_free(struct cst_publish *p);

enum cst_publish_mode {
	CST_PUBLISH_WHOLE,	/* PutObject and multipart uploads */
	CST_PUBLISH_APPENDABLE, /* AppendObject */
};
/* The version a stream builds on. */
struct cst_publish_base {
	bool exists;
	enum cst_object_type type;
	uint64_t size;
	char etag[CST_ETAG_MAX];
};
struct cst_publish_open {
	struct cst_slice key;
	enum cst_publish_mode mode;
	struct cst_publish_base base;
	bool keep_content;			 /* begin at the end of the base's bytes; false: they are replaced */
	struct cst_object_properties properties; /* copied; the write id is added */
};
struct cst_publish_stream *cst_publish_stream_open(struct cst_publish *p, const struct cst_publish_open *open);
/* What goes along with the next publication; copied. An upload that has begun keeps what it began with. */
void cst_publish_stream_set_properties(struct cst_publish_stream *s, const struct cst_object_properties *properties);
/* The object has another key now (a rename of a file that is being written): later publications go there, onto the base given, which is what was published of
 * the stream, copied there, if anything was. -EBUSY: a publication or parts of one are under way (sync, copy, then move); -EINVAL: the base
 * is not as long as what was published. */
int cst_publish_stream_move(struct cst_publish_stream *s, struct cst_slice key, const struct cst_publish_base *base);

/* Embedded in the caller's; offset, data, done and arg are the caller's. */
struct cst_publish_write {
	uint64_t offset;
	struct cst_slice data; /* stays valid until done */
	/* rc 0: all of it is taken. -EINVAL: offset is not the stream's end; -EFBIG; -EIO, …: the stream has failed for good; -EINTR: cancelled, nothing taken. */
	void (*done)(struct cst_publish_write *w, int rc, const struct cst_error *err);
	void *arg;
	TAILQ_ENTRY(cst_publish_write) link; /* private, as all below */
	struct cst_publish_stream *stream;
	size_t taken;
	bool queued;
	int result;
	struct cst_error *error;
};
/* Copies the data into blocks; waits, in order over all streams, until there is room. One at a time per stream is usual; several are taken in the
 * order of their offsets if they are contiguous. */
void cst_publish_write(struct cst_publish_stream *s, struct cst_publish_write *w);
/* True: withdrawn, nothing was taken, done does not come. */
bool cst_publish_write_leave(struct cst_publish_write *w);

/* Publishes what came before this call. Nothing to publish: done at once with the last version. Concurrent ones join. */
struct cst_publish_sync {
	/* rc 0: *version is what the store has now (mtime too). -ESTALE: conflict, err->hint names the kept copy. */
	void (*done)(struct cst_publish_sync *sync, int rc, const struct cst_object_info *version,
		     const struct cst_error *err);
	void *arg;
	TAILQ_ENTRY(cst_publish_sync) link; /* private */
	uint64_t upto;
};
void cst_publish_sync(struct cst_publish_stream *s, struct cst_publish_sync *sync);
/* True: done does not come; the publication goes on. */
bool cst_publish_sync_leave(struct cst_publish_stream *s, struct cst_publish_sync *sync);

/* Bytes taken (the size the file has for its writer); those published; is there something that no publication has made visible: bytes, or a create or
 * truncate. */
struct cst_publish_state {
	uint64_t size, published;
	bool pending;
	int failed; /* 0, or why it takes no more */
};
struct cst_publish_state cst_publish_stream_state(struct cst_publish_stream *s);
/* A new, empty content is to be published even if no byte is written: a file created or truncated. */
void cst_publish_stream_touch(struct cst_publish_stream *s);
/* Drops everything (a file that was removed, or truncated to nothing): the upload is aborted, and size 0 begins anew on the base. A publication under way
 * goes on to its end first, writes wait for that; when it succeeds, what it published is the base instead. */
void cst_publish_stream_reset(struct cst_publish_stream *s, const struct cst_publish_base *base);
/* Gives it up; what is unpublished is kept (keep_dir) when `keep`, else dropped and its upload aborted. Requests under way end by themselves. */
void cst_publish_stream_close(struct cst_publish_stream *s, bool keep);

struct cst_publish_stats {
	uint64_t memory_limit, memory_used, memory_peak;
	uint64_t bytes_written, bytes_sent, bytes_published,
		bytes_pending;	/* taken; on the wire; visible; taken and not visible */
	uint64_t bytes_spilled; /* that had to wait on the disk, for want of memory */
	uint64_t puts, parts, part_copies, appends, publications, conflicts, failures;
	unsigned streams, requests_in_flight, writes_waiting;
};
void cst_publish_stats(struct cst_publish *p, struct cst_publish_stats *stats);
