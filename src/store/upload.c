#include "store/upload.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#define UPLOAD_FILE "upload"
#define UPLOAD_MAX (1 << 20)

void cst_upload_close(struct cst_upload *u)
{
	if (u->dir >= 0)
		close(u->dir);
	u->dir = -1;
	cst_buf_fini(&u->key);
	cst_record_fini(&u->record);
}

pthread_rwlock_t *cst_upload_stripe(struct cst_store_backend *b, const struct cst_upload *u)
{
	return &b->uploads_stripes[((unsigned char)u->id[0] * 31u + (unsigned char)u->id[1]) %
				   CST_BACKEND_UPLOAD_STRIPES];
}

static bool is_id(struct cst_slice id)
{
	for (size_t i = 0; i < id.len; i++) {
		if (!strchr("0123456789ABCDEF", id.data[i]) || !id.data[i])
			return false;
	}
	return id.len == CST_UPLOAD_ID_LEN;
}

/* "KEYLEN STARTED\nKEY" and the record. */
static int write_upload(int dir, struct cst_slice key, const struct cst_record *record)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd =
		openat(dir, UPLOAD_FILE ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0)
		return -errno;
	cst_buf_printf(&text, "%zu %" PRId64 "\n", key.len, cst_wall() / CST_NS_PER_S);
	cst_buf_add_slice(&text, key);
	cst_record_encode(record, &text);
	rc = cst_tree_write_all(fd, text.data, text.len);
	if (rc == 0 && (fsync(fd) != 0 || renameat(dir, UPLOAD_FILE ".new", dir, UPLOAD_FILE) != 0 || fsync(dir) != 0))
		rc = -errno;
	return rc;
}

int cst_upload_begin(struct cst_store_backend *b, const char *bucket, struct cst_slice key,
		     const struct cst_record *record, char id[CST_UPLOAD_ID_LEN + 1])
{
	CST_AUTO_CLOSE int parent = cst_tree_make_dir(b->uploads, bucket);
	CST_AUTO_CLOSE int dir = -1;
	uint64_t random[2];
	int rc;

	if (parent < 0)
		return cst_steal_fd(&parent);
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	snprintf(id, CST_UPLOAD_ID_LEN + 1, "%016" PRIX64 "%016" PRIX64, random[0], random[1]);
	if (mkdirat(parent, id, 0700) != 0)
		return -errno;
	dir = cst_tree_open(parent, id, O_RDONLY | O_DIRECTORY);
	rc = dir < 0 ? dir : write_upload(dir, key, record);
	if (rc == 0 && fsync(parent) != 0)
		rc = -errno;
	if (rc)
		cst_tree_remove(parent, id);
	return rc;
}

static int parse_upload(struct cst_slice text, struct cst_upload *u)
{
	struct cst_slice rest = text;
	struct cst_slice line = cst_slice_cut(&rest, '\n');
	char head[64];
	size_t key_len;

	if (line.len >= sizeof(head) || !rest.data)
		return -EBADMSG;
	memcpy(head, line.data, line.len);
	head[line.len] = '\0';
	if (sscanf(head, "%zu %" SCNd64, &key_len, &u->started) != 2 || key_len > rest.len)
		return -EBADMSG;
	cst_buf_clear(&u->key);
	cst_buf_add(&u->key, rest.data, key_len);
	return cst_record_decode((struct cst_slice){rest.data + key_len, rest.len - key_len}, &u->record);
}

static int read_upload(int dir, struct cst_upload *u)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct stat st;
	CST_AUTO_CLOSE int fd = cst_tree_open_file(dir, UPLOAD_FILE, &st);
	ssize_t n;

	if (fd < 0)
		return cst_steal_fd(&fd);
	if (st.st_size > UPLOAD_MAX)
		return -EBADMSG;
	n = read(fd, cst_buf_room(&text, (size_t)st.st_size + 1), (size_t)st.st_size);
	if (n < 0)
		return -errno;
	text.len = (size_t)n;
	return parse_upload(cst_buf_slice(&text), u);
}

int cst_upload_open(struct cst_store_backend *b, const char *bucket, struct cst_slice id, struct cst_slice key,
		    struct cst_upload *u)
{
	CST_AUTO_FREE char *path = NULL;
	int rc;

	cst_upload_close(u);
	if (!is_id(id))
		return -ENOENT;
	memcpy(u->id, id.data, id.len);
	u->id[id.len] = '\0';
	path = cst_xasprintf("%s/%s", bucket, u->id);
	u->dir = cst_tree_open(b->uploads, path, O_RDONLY | O_DIRECTORY);
	if (u->dir < 0)
		return u->dir;
	rc = read_upload(u->dir, u);
	if (rc == 0 && key.data && !cst_slice_eq(key, cst_buf_slice(&u->key)))
		rc = -ENOENT;
	if (rc)
		cst_upload_close(u);
	return rc == -EBADMSG ? -ENOENT : rc;
}

int cst_upload_add_part(struct cst_store_backend *b, struct cst_upload *u, unsigned number, struct cst_staged *s)
{
	char name[16];
	CST_AUTO_CLOSE int old = -1;

	snprintf(name, sizeof(name), "%05u", number);
	old = cst_backend_hold(b, u->dir, name);
	/* Renaming into a removed directory fails, so a part can't outlive its upload. */
	if (renameat(b->tmp, s->name, u->dir, name) != 0)
		return -errno;
	s->name[0] = '\0';
	cst_backend_forget(b, old);
	return fsync(u->dir) == 0 ? 0 : -errno;
}

struct part_list {
	struct cst_store_backend *b;
	struct cst_upload_part *parts;
	size_t count, room;
};

static int take_part(void *arg, int dir, const char *name, unsigned char type)
{
	struct part_list *list = arg;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	struct cst_upload_part *part;
	char *end;
	unsigned long number = strtoul(name, &end, 10);
	int rc;

	(void)type;
	if (*end || end == name || number == 0 || number > CST_UPLOAD_PARTS_MAX)
		return 0;
	rc = cst_blob_open_path(list->b, dir, name, &blob);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (list->count == list->room) {
		list->room = list->room ? list->room * 2 : 16;
		list->parts = cst_xrealloc(list->parts, list->room * sizeof(*list->parts));
	}
	part = &list->parts[list->count++];
	*part = (struct cst_upload_part){.number = (unsigned)number,
					 .size = (uint64_t)blob.st.st_size,
					 .mtime = blob.st.st_mtim.tv_sec,
					 .has_crc64 = blob.record.has_crc64,
					 .crc64 = blob.record.crc64};
	memcpy(part->etag, blob.record.etag, sizeof(part->etag));
	memcpy(part->checksum, blob.record.checksum, sizeof(part->checksum));
	return 0;
}

static int compare_parts(const void *a, const void *b)
{
	const struct cst_upload_part *x = a;
	const struct cst_upload_part *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

int cst_upload_parts(struct cst_store_backend *b, struct cst_upload *u, struct cst_upload_part **parts, size_t *count)
{
	struct part_list list = {.b = b};
	int rc = cst_tree_each(u->dir, take_part, &list);

	if (rc) {
		free(list.parts);
		return rc;
	}
	if (list.count)
		qsort(list.parts, list.count, sizeof(*list.parts), compare_parts);
	*parts = list.parts;
	*count = list.count;
	return 0;
}

int cst_upload_join(struct cst_store_backend *b, struct cst_upload *u, const struct cst_upload_part *parts,
		    size_t count, struct cst_staged *s)
{
	for (size_t i = 0; i < count; i++) {
		char name[16];
		CST_AUTO_BLOB part = CST_BLOB_INIT;
		int rc;

		snprintf(name, sizeof(name), "%05u", parts[i].number);
		rc = cst_blob_open_path(b, u->dir, name, &part);
		if (rc)
			return rc;
		/* A part put again while the upload is completed: the caller looked at another file. */
		if (part.record.size != parts[i].size || strcmp(part.record.etag, parts[i].etag) != 0)
			return -EAGAIN;
		rc = cst_backend_copy_range(part.fd, 0, parts[i].size, s->fd);
		if (rc)
			return rc;
	}
	return 0;
}

static int forget_part(void *arg, int dir, const char *name, unsigned char type)
{
	struct cst_store_backend *b = arg;
	CST_AUTO_CLOSE int fd = cst_backend_hold(b, dir, name);

	(void)type;
	cst_backend_forget(b, fd);
	return 0;
}

int cst_upload_end(struct cst_store_backend *b, const char *bucket, struct cst_upload *u)
{
	CST_AUTO_FREE char *path = cst_xasprintf("%s/%s", bucket, u->id);

	/* First it is no upload any more, then its files go. */
	if (unlinkat(u->dir, UPLOAD_FILE, 0) != 0)
		return -errno;
	fsync(u->dir);
	cst_tree_each(u->dir, forget_part, b);
	if (renameat(b->uploads, path, b->tmp, u->id) == 0)
		cst_tree_remove(b->tmp, u->id);
	return 0;
}

/* ---- listing ---- */

struct upload_list {
	struct cst_store_backend *b;
	const char *bucket;
	struct cst_upload_info *uploads;
	size_t count, room;
};

static int take_upload(void *arg, int dir, const char *name, unsigned char type)
{
	struct upload_list *list = arg;
	CST_AUTO_UPLOAD u = CST_UPLOAD_INIT;
	struct cst_upload_info *info;

	(void)dir;
	(void)type;
	if (cst_upload_open(list->b, list->bucket, cst_slice_of(name), (struct cst_slice){0}, &u) != 0)
		return 0;
	if (list->count == list->room) {
		list->room = list->room ? list->room * 2 : 16;
		list->uploads = cst_xrealloc(list->uploads, list->room * sizeof(*list->uploads));
	}
	info = &list->uploads[list->count++];
	*info = (struct cst_upload_info){.started = u.started, .class = u.record.class, .key_len = u.key.len};
	info->key = cst_buf_steal(&u.key);
	memcpy(info->id, u.id, sizeof(info->id));
	return 0;
}

static int compare_uploads(const void *a, const void *b)
{
	const struct cst_upload_info *x = a;
	const struct cst_upload_info *y = b;
	int order = memcmp(x->key, y->key, cst_min(x->key_len, y->key_len));

	if (order == 0)
		order = (x->key_len > y->key_len) - (x->key_len < y->key_len);
	return order ? order : strcmp(x->id, y->id);
}

int cst_upload_list(struct cst_store_backend *b, const char *bucket, struct cst_upload_info **uploads, size_t *count)
{
	struct upload_list list = {.b = b, .bucket = bucket};
	CST_AUTO_CLOSE int dir = cst_tree_open(b->uploads, bucket, O_RDONLY | O_DIRECTORY);
	int rc = dir < 0 ? dir : cst_tree_each(dir, take_upload, &list);

	*uploads = NULL;
	*count = 0;
	if (rc) {
		cst_upload_list_free(list.uploads, list.count);
		return rc == -ENOENT ? 0 : rc;
	}
	if (list.count)
		qsort(list.uploads, list.count, sizeof(*list.uploads), compare_uploads);
	*uploads = list.uploads;
	*count = list.count;
	return 0;
}

void cst_upload_list_free(struct cst_upload_info *uploads, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(uploads[i].key);
	free(uploads);
}
