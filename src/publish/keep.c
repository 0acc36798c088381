#define CST_LOG_AREA "publish"
#include "publish/keep.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define ID_MAX 64
#define RECORD_MAX (16u << 20) /* 10,000 parts are 2 MiB */
#define PARTS_MAX 10000

static char **text_at(struct cst_keep_record *r, size_t i)
{
	char **const texts[] = {&r->id,	       &r->bucket,   &r->key,	    &r->reason,	     &r->writer,
				&r->base_etag, &r->write_id, &r->upload_id, &r->content_type};
	return texts[i];
}
static const char *const text_names[] = {"id",	      "bucket",	  "key",       "reason",      "writer",
					 "base_etag", "write_id", "upload_id", "content_type"};

void cst_keep_record_fini(struct cst_keep_record *record)
{
	for (size_t i = 0; i < CST_ARRAY_LEN(text_names); i++)
		free(*text_at(record, i));
	for (size_t i = 0; i < record->meta_count; i++) {
		free((char *)record->meta[i].name.data);
		free((char *)record->meta[i].value.data);
	}
	free(record->parts);
	free(record->meta);
	memset(record, 0, sizeof(*record));
}

static bool is_id(const char *id)
{
	size_t n = strlen(id);
	return n > 0 && n <= ID_MAX &&
	       strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == n;
}

static void path_of(const char *dir, const char *id, const char *ending, struct cst_buf *path)
{
	cst_buf_printf(path, "%s/%s%s", dir, id, ending);
}

void cst_keep_data_path(const char *dir, const char *id, struct cst_buf *path)
{
	path_of(dir, id, ".data", path);
}

/* ---- to JSON ---- */

static void put_text(json_t *object, const char *name, struct cst_slice text)
{
	CST_AUTO_BUF other = CST_BUF_INIT, base64 = CST_BUF_INIT;
	bool plain = cst_text_is_utf8(text) && !(text.len && memchr(text.data, '\0', text.len));
	json_t *value = plain ? json_stringn(text.data ? text.data : "", text.len) : NULL;
	if (value) {
		json_object_set_new(object, name, value);
		return;
	}
	cst_buf_printf(&other, "%s_base64", name);
	cst_text_base64(&base64, text.data, text.len);
	json_object_set_new(object, other.data, json_string(base64.data));
}

static void put_number(json_t *object, const char *name, uint64_t value)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, value);
	json_object_set_new(object, name, json_string(text));
}

static json_t *parts_json(const struct cst_keep_record *r)
{
	json_t *list = json_array();
	for (size_t i = 0; i < r->part_count; i++) {
		const struct cst_object_part *part = &r->parts[i];
		json_t *o = json_object();
		json_object_set_new(o, "number", json_integer(part->number));
		put_number(o, "size", part->size);
		put_text(o, "etag", cst_slice_of(part->etag));
		if (part->has_crc64)
			put_number(o, "crc64", part->crc64);
		if (part->crc32c[0])
			put_text(o, "crc32c", cst_slice_of(part->crc32c));
		json_array_append_new(list, o);
	}
	return list;
}

static char *to_json(const struct cst_keep_record *r)
{
	json_t *o = json_object(), *meta = json_object();
	struct cst_keep_record copy = *r;
	for (size_t i = 0; i < CST_ARRAY_LEN(text_names); i++)
		put_text(o, text_names[i], cst_slice_of(*text_at(&copy, i)));
	json_object_set_new(o, "at", json_integer(r->at));
	put_number(o, "size", r->size);
	put_number(o, "crc64", r->crc64);
	put_number(o, "tail_from", r->tail_from);
	json_object_set_new(o, "has_data", json_boolean(r->has_data));
	json_object_set_new(o, "parts", parts_json(r));
	for (size_t i = 0; i < r->meta_count; i++)
		put_text(meta, r->meta[i].name.data, r->meta[i].value);
	json_object_set_new(o, "meta", meta);
	char *text = json_dumps(o, JSON_INDENT(1));
	json_decref(o);
	return text;
}

/* ---- and back ---- */

/* A text of its own, or NULL. */
static char *get_text(const json_t *object, const char *name, struct cst_slice *slice)
{
	CST_AUTO_BUF other = CST_BUF_INIT, bytes = CST_BUF_INIT;
	const json_t *value = json_object_get(object, name);
	if (json_is_string(value)) {
		*slice = (struct cst_slice){json_string_value(value), json_string_length(value)};
		return cst_xstrndup(slice->data, slice->len);
	}
	cst_buf_printf(&other, "%s_base64", name);
	value = json_object_get(object, other.data);
	if (!json_is_string(value) ||
	    cst_text_unbase64(&bytes, (struct cst_slice){json_string_value(value), json_string_length(value)}) < 0)
		return NULL;
	slice->len = bytes.len;
	return cst_buf_steal(&bytes);
}

static bool get_number(const json_t *object, const char *name, uint64_t *number)
{
	const char *text = json_string_value(json_object_get(object, name));
	char *end;
	if (!text || text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return *end == '\0' && errno == 0;
}

static bool get_short(const json_t *object, const char *name, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(object, name));
	if (!text || strlen(text) >= size)
		return false;
	memcpy(out, text, strlen(text) + 1);
	return true;
}

static bool get_parts(const json_t *list, struct cst_keep_record *r)
{
	size_t n = json_array_size(list);
	uint64_t all = 0;
	if (!json_is_array(list) || n > PARTS_MAX)
		return false;
	r->parts = cst_xcalloc(n + 1, sizeof(*r->parts));
	for (; r->part_count < n; r->part_count++) {
		const json_t *o = json_array_get(list, r->part_count);
		struct cst_object_part *part = &r->parts[r->part_count];
		json_int_t number = json_integer_value(json_object_get(o, "number"));
		if (number != (json_int_t)r->part_count + 1 || !get_number(o, "size", &part->size) ||
		    !get_short(o, "etag", part->etag, sizeof(part->etag)) ||
		    __builtin_add_overflow(all, part->size, &all) || all > r->size)
			return false;
		part->number = (unsigned)number;
		part->has_crc64 = get_number(o, "crc64", &part->crc64);
		if (json_object_get(o, "crc32c") && !get_short(o, "crc32c", part->crc32c, sizeof(part->crc32c)))
			return false;
	}
	return true;
}

static bool get_meta(json_t *meta, struct cst_keep_record *r)
{
	const char *name;
	json_t *value;
	if (!json_is_object(meta))
		return false;
	r->meta = cst_xcalloc(json_object_size(meta) + 1, sizeof(*r->meta));
	json_object_foreach (meta, name, value) {
		const char *ending = strstr(name, "_base64");
		bool coded = ending && strcmp(ending, "_base64") == 0;
		struct cst_slice text = {0};
		char *own = cst_xstrndup(name, coded ? (size_t)(ending - name) : strlen(name));
		char *data = get_text(meta, own, &text);
		if (!data) {
			free(own);
			return false;
		}
		struct cst_http_header *h = &r->meta[r->meta_count++];
		h->name = (struct cst_slice){own, strlen(own)};
		h->value = (struct cst_slice){data, text.len};
	}
	return true;
}

static const char *fill(json_t *o, struct cst_keep_record *r)
{
	struct cst_slice text;
	if (!json_is_object(o))
		return "it is no JSON object";
	for (size_t i = 0; i < CST_ARRAY_LEN(text_names); i++) {
		text = (struct cst_slice){0};
		char **to = text_at(r, i);
		*to = get_text(o, text_names[i], &text);
		if (!*to)
			return "a text is missing";
		if (strlen(*to) != text.len)
			return "a text has a NUL byte";
	}
	if (!is_id(r->id))
		return "its id is none";
	r->at = json_integer_value(json_object_get(o, "at"));
	r->has_data = json_is_true(json_object_get(o, "has_data"));
	if (!get_number(o, "size", &r->size) || !get_number(o, "crc64", &r->crc64) ||
	    !get_number(o, "tail_from", &r->tail_from) || r->tail_from > r->size)
		return "a number is missing or makes no sense";
	if (!get_parts(json_object_get(o, "parts"), r))
		return "its parts make no sense";
	return get_meta(json_object_get(o, "meta"), r) ? NULL : "its metadata makes no sense";
}

int cst_keep_parse(struct cst_slice text, struct cst_keep_record *record, struct cst_error *err)
{
	json_error_t where;
	memset(record, 0, sizeof(*record));
	json_t *o = json_loadb(text.data ? text.data : "", text.len, JSON_REJECT_DUPLICATES, &where);
	const char *why = o ? fill(o, record) : where.text;
	if (why) {
		cst_error_set(err, EBADMSG, "can't read the record of a kept version");
		cst_error_why(err, "%s", why);
		cst_keep_record_fini(record);
	}
	json_decref(o);
	return why ? -EBADMSG : 0;
}

/* ---- files ---- */

static int write_pieces(int fd, const struct iovec *pieces, int count)
{
	off_t at = 0;
	for (int i = 0; i < count; i++) {
		const char *data = pieces[i].iov_base;
		size_t left = pieces[i].iov_len;
		while (data && left) {
			ssize_t n = pwrite(fd, data, left, at);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return n < 0 ? -errno : -EIO;
			data += n;
			at += n;
			left -= (size_t)n;
		}
		at += (off_t)left;
	}
	return ftruncate(fd, at) < 0 ? -errno : 0;
}

/* Under a temporary name first. */
static int write_file(int dir, const char *name, const struct iovec *pieces, int count)
{
	CST_AUTO_BUF temporary = CST_BUF_INIT;
	cst_buf_printf(&temporary, ".%s.new", name);
	CST_AUTO_CLOSE int fd = openat(dir, temporary.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int rc = write_pieces(fd, pieces, count);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (rc == 0 && renameat(dir, temporary.data, dir, name) < 0)
		rc = -errno;
	if (rc < 0)
		unlinkat(dir, temporary.data, 0);
	return rc;
}

static int open_dir(const char *dir, bool make)
{
	if (make && mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void new_id(struct cst_keep_record *r)
{
	unsigned char random[4];
	char when[CST_TIME_TEXT];
	CST_AUTO_BUF hex = CST_BUF_INIT;
	CST_ASSERT(getrandom(random, sizeof(random), 0) == sizeof(random));
	cst_text_hex(&hex, random, sizeof(random));
	cst_time_compact(r->at, when);
	free(r->id);
	r->id = cst_xasprintf("%s-%s", when, hex.data);
}

static int write_both(int dir, struct cst_keep_record *r, const struct iovec *tail, int tail_count)
{
	CST_AUTO_FREE char *data_name = cst_xasprintf("%s.data", r->id);
	CST_AUTO_FREE char *record_name = cst_xasprintf("%s.json", r->id);
	CST_AUTO_FREE char *text = to_json(r);
	struct iovec record = {text, text ? strlen(text) : 0};
	int rc = !text ? -ENOMEM : r->has_data ? write_file(dir, data_name, tail, tail_count) : 0;
	if (rc == 0)
		rc = write_file(dir, record_name, &record, 1);
	if (rc == 0 && fsync(dir) < 0)
		rc = -errno;
	if (rc < 0) {
		unlinkat(dir, record_name, 0);
		unlinkat(dir, data_name, 0);
	}
	return rc;
}

int cst_keep_write(const char *dir, struct cst_keep_record *record, const struct iovec *tail, int tail_count,
		   struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = open_dir(dir, true);
	int rc = fd < 0 ? fd : 0;
	new_id(record);
	record->has_data = tail && tail_count > 0;
	if (rc == 0)
		rc = write_both(fd, record, tail, tail_count);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't keep a version of %s/%s in %s", record->bucket, record->key, dir);
		cst_error_why(err, "%s", strerror(-rc));
	}
	return rc;
}

static int read_text(const char *path, struct cst_buf *text)
{
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, cst_buf_room(text, 65536), 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		text->len += (size_t)n;
		if (text->len > RECORD_MAX)
			return -EFBIG;
	}
}

static int refuse(const char *dir, const char *id, int rc, struct cst_error *err)
{
	cst_error_set(err, -rc, "can't use the kept version %.*s in %s", ID_MAX, id, dir);
	cst_error_why(err, "%s", rc == -ENOENT ? "there is none of that name" : strerror(-rc));
	return rc;
}

int cst_keep_read(const char *dir, const char *id, struct cst_keep_record *record, struct cst_error *err)
{
	CST_AUTO_BUF path = CST_BUF_INIT, text = CST_BUF_INIT;
	memset(record, 0, sizeof(*record));
	if (!is_id(id))
		return refuse(dir, id, -ENOENT, err);
	path_of(dir, id, ".json", &path);
	int rc = read_text(path.data, &text);
	if (rc < 0)
		return refuse(dir, id, rc, err);
	rc = cst_keep_parse(cst_buf_slice(&text), record, err);
	if (rc == 0 && strcmp(record->id, id) != 0) {
		cst_keep_record_fini(record);
		return refuse(dir, id, -EBADMSG, err);
	}
	return rc;
}

static int is_record(const struct dirent *e)
{
	size_t n = strlen(e->d_name);
	return n > 5 && e->d_name[0] != '.' && strcmp(e->d_name + n - 5, ".json") == 0;
}

/* Ids begin with the time. */
int cst_keep_each(const char *dir, void (*each)(void *arg, const struct cst_keep_record *record), void *arg,
		  struct cst_error *err)
{
	struct dirent **names;
	int n = scandir(dir, &names, is_record, alphasort);
	if (n < 0 && errno == ENOENT)
		return 0;
	if (n < 0) {
		int rc = -errno;
		cst_error_set(err, -rc, "can't read %s", dir);
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	for (int i = 0; i < n; i++) {
		struct cst_keep_record record;
		struct cst_error bad = CST_ERROR_INIT;
		char text[CST_ERROR_TEXT_MAX];
		names[i]->d_name[strlen(names[i]->d_name) - 5] = '\0';
		if (cst_keep_read(dir, names[i]->d_name, &record, &bad) == 0) {
			each(arg, &record);
			cst_keep_record_fini(&record);
		} else {
			cst_log_warn("%s/%s.json: %s", dir, names[i]->d_name, cst_error_text(&bad, text, sizeof(text)));
		}
		free(names[i]);
	}
	free(names);
	return 0;
}

int cst_keep_remove(const char *dir, const char *id, struct cst_error *err)
{
	CST_AUTO_BUF record = CST_BUF_INIT, data = CST_BUF_INIT;
	if (!is_id(id))
		return refuse(dir, id, -ENOENT, err);
	path_of(dir, id, ".json", &record);
	path_of(dir, id, ".data", &data);
	/* The record first: data without one is nothing to anybody. */
	if (unlink(record.data) < 0)
		return refuse(dir, id, -errno, err);
	if (unlink(data.data) < 0 && errno != ENOENT)
		return refuse(dir, id, -errno, err);
	return 0;
}
