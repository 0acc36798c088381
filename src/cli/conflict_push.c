#include "cli/conflict_push.h"

#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART (UINT64_C(64) << 20)
#define META_MAX 64u
#define WRITE_ID "cistern-write-id"

/* ---- waiting for one operation ---- */

struct answer {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	int rc;
	bool repeated, ours;
	const char *write_id; /* what a HEAD compares with */
	uint64_t size;
	char etag[CST_ETAG_MAX];
	struct cst_object_part part; /* as completing wants it */
	struct cst_error err;
};
#define ANSWER_INIT                                                                                           \
	{                                                                                                     \
		.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .err = CST_ERROR_INIT \
	}

static void finish_locked(struct answer *a, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	a->done = true;
	a->rc = rc;
	if (info) {
		a->size = info->size;
		snprintf(a->etag, sizeof(a->etag), "%s", info->etag);
	}
	if (rc != 0 && err)
		a->err = *err;
	pthread_cond_signal(&a->changed);
}

static void written(void *arg, const struct cst_object_written *w)
{
	struct answer *a = arg;
	pthread_mutex_lock(&a->lock);
	a->repeated = w->repeated;
	if (w->rc == 0 && w->part)
		a->part = *w->part;
	finish_locked(a, w->rc, w->info, w->err);
	pthread_mutex_unlock(&a->lock);
}

static void headed(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct answer *a = arg;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; rc == 0 && a->write_id && i < info->meta_count; i++)
		a->ours |= cst_slice_is(info->meta[i].name, WRITE_ID) && cst_slice_is(info->meta[i].value, a->write_id);
	finish_locked(a, rc, rc == 0 ? info : NULL, err);
	pthread_mutex_unlock(&a->lock);
}

static int await(struct answer *a, struct cst_object_op *op, struct cst_error *err)
{
	pthread_mutex_lock(&a->lock);
	while (!a->done)
		pthread_cond_wait(&a->changed, &a->lock);
	pthread_mutex_unlock(&a->lock);
	if (op)
		cst_object_release(op);
	if (a->rc != 0 && err)
		*err = a->err;
	return a->rc;
}

/* ---- the kept bytes ---- */

uint64_t cst_conflict_in_store(const struct cst_keep_record *record)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < record->part_count; i++)
		bytes += record->parts[i].etag[0] ? record->parts[i].size : 0;
	return bytes;
}

static int data_error(struct cst_error *err, const char *path, int code)
{
	cst_error_set(err, code, "can't read %s", path);
	cst_error_why(err, "%s", code == EBADMSG ? "it is not as long as its record says" : strerror(code));
	return -code;
}

/* The sum of all bytes, those in the store by what it told of them: a data file that has rotted is found before it is anybody's content. */
static int check_sum(const struct cst_keep_record *r, const struct cst_conflict_data *data, struct cst_error *err)
{
	uint64_t crc = 0, offset = 0;
	if (r->crc64 == 0)
		return 0; /* not known */
	for (size_t i = 0; i < r->part_count; i++) {
		const struct cst_object_part *part = &r->parts[i];
		if (part->etag[0] && !part->has_crc64)
			return 0;
		if (part->etag[0])
			crc = cst_crc64_combine(crc, part->crc64, part->size);
		else if (offset < r->tail_from || part->size > data->size - cst_min(data->size, offset - r->tail_from))
			return 0; /* a damaged record: that is told when the part is to be sent */
		else
			crc = cst_crc64(crc, (char *)data->data + (offset - r->tail_from), part->size);
		offset += part->size;
	}
	if (offset < r->tail_from || offset - r->tail_from > data->size)
		return 0;
	crc = cst_crc64(crc, (char *)data->data + (offset - r->tail_from), data->size - (offset - r->tail_from));
	if (crc == r->crc64)
		return 0;
	cst_error_set(err, EBADMSG, "the kept version %s is damaged", r->id);
	cst_error_why(err, "its bytes have another CRC64 than its record says");
	return -EBADMSG;
}

int cst_conflict_map(const char *dir, const struct cst_keep_record *record, struct cst_conflict_data *data,
		     struct cst_error *err)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	struct stat st;
	*data = (struct cst_conflict_data){0};
	uint64_t expected = record->size - cst_min(record->tail_from, record->size);
	if (!record->has_data)
		return expected == 0
			       ? 0
			       : cst_error_set(err, EBADMSG, "the record %s names no bytes for its end", record->id);
	cst_keep_data_path(dir, record->id, &path);
	CST_AUTO_CLOSE int fd = open(path.data, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return data_error(err, path.data, errno);
	if ((uint64_t)st.st_size != expected)
		return data_error(err, path.data, EBADMSG);
	if (expected == 0)
		return 0;
	data->data = mmap(NULL, expected, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data->data == MAP_FAILED) {
		data->data = NULL;
		return data_error(err, path.data, errno);
	}
	data->size = expected;
	int rc = check_sum(record, data, err);
	if (rc < 0)
		cst_conflict_unmap(data);
	return rc;
}

void cst_conflict_unmap(struct cst_conflict_data *data)
{
	if (data->data)
		munmap(data->data, data->size);
	*data = (struct cst_conflict_data){0};
}

/* ---- publishing ---- */

struct job {
	struct cst_bucket *bucket;
	const struct cst_keep_record *record;
	struct cst_slice key;
	struct cst_conflict_data data;
	struct cst_object_properties properties;
	struct cst_http_header meta[META_MAX + 1];
	enum cst_object_condition condition;
	char etag[CST_ETAG_MAX]; /* of IF_MATCH */
};

static void fill_properties(struct job *j)
{
	const struct cst_keep_record *r = j->record;
	bool has_id = false;
	size_t count = 0;
	for (; count < cst_min(r->meta_count, (size_t)META_MAX); count++) {
		j->meta[count] = r->meta[count];
		has_id |= cst_slice_is(r->meta[count].name, WRITE_ID);
	}
	if (!has_id && r->write_id)
		j->meta[count++] = (struct cst_http_header){CST_SLICE(WRITE_ID), cst_slice_of(r->write_id)};
	j->properties =
		(struct cst_object_properties){.meta = j->meta,
					       .meta_count = count,
					       .content_type = cst_slice_of(r->content_type ? r->content_type : "")};
}

/* An answer was lost, and the next attempt finds what the first one did. */
static bool is_ours(const struct job *j)
{
	struct answer a = ANSWER_INIT;
	a.write_id = j->record->write_id;
	return a.write_id && await(&a, cst_object_head(j->bucket, j->key, false, headed, &a), NULL) == 0 && a.ours;
}

static int settle(const struct job *j, struct answer *a, struct cst_object_op *op, struct cst_error *err)
{
	int rc = await(a, op, err);
	bool perhaps = a->repeated && (rc == -EEXIST || rc == -ESTALE || rc == -ENOENT);
	return perhaps && is_ours(j) ? 0 : rc;
}

static int put_whole(struct job *j, struct cst_error *err)
{
	struct answer a = ANSWER_INIT;
	struct iovec iov = {j->data.data, j->data.size};
	struct cst_object_put put = {.key = j->key,
				     .body = {.iov = &iov, .iov_count = j->data.size ? 1 : 0, .length = j->data.size},
				     .condition = j->condition,
				     .if_match = j->condition == CST_OBJECT_IF_MATCH ? j->etag : NULL,
				     .properties = &j->properties};
	return settle(j, &a, cst_object_put(j->bucket, &put, written, &a), err);
}

/* One part out of the data file, which begins at the offset tail_from. */
static int put_part(struct job *j, struct cst_object_part *part, uint64_t offset, struct cst_error *err)
{
	struct answer a = ANSWER_INIT;
	uint64_t from = j->record->tail_from;
	if (offset < from || offset - from > j->data.size || part->size > j->data.size - (offset - from)) {
		cst_error_set(err, EBADMSG, "the record %s is damaged", j->record->id);
		cst_error_why(err, "part %u is neither in the store nor in its data file", part->number);
		return -EBADMSG;
	}
	struct iovec iov = {(char *)j->data.data + (offset - from), part->size};
	uint64_t crc = cst_crc64(0, iov.iov_base, iov.iov_len);
	struct cst_object_part_put put = {
		.key = j->key,
		.upload_id = cst_slice_of(j->record->upload_id),
		.number = part->number,
		.body = {.iov = &iov, .iov_count = 1, .length = iov.iov_len, .crc64 = crc, .has_crc64 = true}};
	int rc = await(&a, cst_object_part_put(j->bucket, &put, written, &a), err);
	if (rc == 0)
		*part = a.part;
	return rc;
}

/* Parts that have not arrived, and what comes after the last one. */
static int put_missing(struct job *j, struct cst_object_part *parts, size_t *count, struct cst_error *err)
{
	uint64_t offset = 0;
	int rc = 0;
	for (size_t i = 0; i < *count && rc == 0; i++) {
		if (!parts[i].etag[0])
			rc = put_part(j, &parts[i], offset, err);
		offset += parts[i].size;
	}
	while (rc == 0 && offset < j->record->size) {
		struct cst_object_part *part = &parts[*count];
		*part = (struct cst_object_part){.number = *count ? part[-1].number + 1 : 1,
						 .size = cst_min(PART, j->record->size - offset)};
		rc = put_part(j, part, offset, err);
		offset += part->size;
		(*count)++;
	}
	return rc;
}

static int complete(struct job *j, struct cst_error *err)
{
	const struct cst_keep_record *r = j->record;
	struct answer a = ANSWER_INIT;
	size_t count = r->part_count;
	CST_AUTO_FREE struct cst_object_part *parts =
		cst_xcalloc(count + j->data.size / PART + 1, sizeof(struct cst_object_part));
	if (count)
		memcpy(parts, r->parts, count * sizeof(*parts));
	int rc = put_missing(j, parts, &count, err);
	if (rc != 0)
		return rc;
	struct cst_object_complete c = {.key = j->key,
					.upload_id = cst_slice_of(r->upload_id),
					.parts = parts,
					.part_count = count,
					.crc64 = r->crc64,
					.has_crc64 = r->crc64 != 0,
					.condition = j->condition,
					.if_match = j->condition == CST_OBJECT_IF_MATCH ? j->etag : NULL};
	rc = settle(j, &a, cst_object_multipart_complete(j->bucket, &c, written, &a), err);
	if (rc == -ENOENT && !is_ours(j)) {
		cst_error_set(err, ENOENT, "can't publish %s", r->key);
		cst_error_why(err, "the store has dropped the upload that held %llu of its %llu bytes",
			      (unsigned long long)cst_conflict_in_store(r), (unsigned long long)r->size);
		cst_error_hint(
			err,
			"a lifecycle rule or another tool has aborted it; cistern conflicts rm %s forgets the rest",
			r->id);
		return -ENOENT;
	}
	return rc == -ENOENT ? 0 : rc;
}

static int refuse_target(const char *key, struct cst_error *err)
{
	cst_error_set(err, EEXIST, "can't copy the current version to %s", key);
	cst_error_why(err, "there is such an object");
	cst_error_hint(err, "choose another key for --current-as");
	return -EEXIST;
}

/* The version that is there gets a name of its own; from here on it is the one that is replaced, where the store can check that. */
static int save_current(struct job *j, const char *current_as, struct cst_error *err)
{
	struct answer head = ANSWER_INIT, target = ANSWER_INIT, a = ANSWER_INIT;
	int rc = await(&head, cst_object_head(j->bucket, j->key, false, headed, &head), err);
	if (rc == -ENOENT)
		return 0;
	if (rc != 0)
		return rc;
	struct cst_object_copy copy = {.source = j->key,
				       .key = cst_slice_of(current_as),
				       .source_if_match = head.etag,
				       .condition = CST_OBJECT_IF_ABSENT};
	/* Not every store checks the condition of a copy. */
	rc = await(&target, cst_object_head(j->bucket, copy.key, true, headed, &target), err);
	if (rc == 0)
		return refuse_target(current_as, err);
	if (rc == -ENOENT)
		rc = await(&a, cst_object_copy(j->bucket, &copy, written, &a), err);
	if (rc == -EEXIST)
		return refuse_target(current_as, err);
	if (rc != 0)
		return rc;
	if (cst_bucket_has_if_match(j->bucket)) {
		j->condition = CST_OBJECT_IF_MATCH;
		snprintf(j->etag, sizeof(j->etag), "%s", head.etag);
	}
	return 0;
}

static int refuse_parts_elsewhere(const struct cst_keep_record *r, struct cst_error *err)
{
	cst_error_set(err, ENOTSUP, "can't publish %s under another key", r->key);
	cst_error_why(
		err,
		"%llu of its %llu bytes lie in parts of an upload to this key, which the store shows to nobody before it is completed",
		(unsigned long long)cst_conflict_in_store(r), (unsigned long long)r->size);
	cst_error_hint(
		err,
		"cistern conflicts push %s --current-as OTHER-KEY keeps both: the version that is there now under OTHER-KEY",
		r->id);
	return -ENOTSUP;
}

int cst_conflict_push(struct cst_bucket *bucket, const struct cst_conflict_push *push, uint64_t *size,
		      struct cst_error *err)
{
	const struct cst_keep_record *r = push->record;
	struct job j = {.bucket = bucket, .record = r, .key = cst_slice_of(push->as ? push->as : r->key)};
	if (push->as && cst_conflict_in_store(r) > 0)
		return refuse_parts_elsewhere(r, err);
	j.condition = push->as ? CST_OBJECT_IF_ABSENT : CST_OBJECT_ANY;
	int rc = cst_conflict_map(push->dir, r, &j.data, err);
	if (rc == 0 && push->current_as && !push->as)
		rc = save_current(&j, push->current_as, err);
	fill_properties(&j);
	if (rc == 0)
		rc = r->part_count > 0 && !push->as ? complete(&j, err) : put_whole(&j, err);
	if (rc == -EEXIST && push->as) {
		cst_error_set(err, EEXIST, "can't publish as %s", push->as);
		cst_error_why(err, "there is such an object");
		cst_error_hint(err, "choose another key for --as");
	}
	cst_conflict_unmap(&j.data);
	*size = r->size;
	return rc;
}

int cst_conflict_abort(struct cst_bucket *bucket, const struct cst_keep_record *record, struct cst_error *err)
{
	struct answer a = ANSWER_INIT;
	if (!record->upload_id || !record->upload_id[0])
		return 0;
	int rc = await(&a,
		       cst_object_multipart_abort(bucket, cst_slice_of(record->key), cst_slice_of(record->upload_id),
						  written, &a),
		       err);
	return rc == -ENOENT ? 0 : rc; /* gone already */
}
