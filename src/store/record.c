#include "store/record.h"

#include "base/digest.h"
#include "base/text.h"
#include "store/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/xattr.h>

#define SIGNATURE "Cst1"
/* What extended attributes of the common file systems take in one value; beyond that nobody tries. */
#define XATTR_BYTES 65536

enum field {
	FIELD_SIZE = 1,
	FIELD_MTIME,
	FIELD_MTIME_BEFORE,
	FIELD_TYPE,
	FIELD_CLASS,
	FIELD_MD5, /* an ETag that is 16 bytes in hex, as most are: half as long, so that it fits into the inode */
	FIELD_ETAG,
	FIELD_CRC64,
	FIELD_RESTORED,
	FIELD_CHECKSUM,
	FIELD_HEADERS,
	FIELD_TARGET,
};

void cst_record_fini(struct cst_record *r)
{
	cst_buf_fini(&r->headers);
	cst_buf_fini(&r->target);
	*r = (struct cst_record)CST_RECORD_INIT;
}

static void add_field(struct cst_buf *out, enum field field, const void *data, size_t len)
{
	uint8_t head[4] = {(uint8_t)field, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16)};

	cst_buf_add(out, head, sizeof(head));
	cst_buf_add(out, data, len);
}

static void add_number(struct cst_buf *out, enum field field, uint64_t value)
{
	uint8_t bytes[8];
	size_t len = 0;

	for (; value; value >>= 8)
		bytes[len++] = (uint8_t)value;
	add_field(out, field, bytes, len);
}

void cst_record_encode(const struct cst_record *r, struct cst_buf *out)
{
	uint8_t md5[CST_MD5_LEN];

	cst_buf_add_str(out, SIGNATURE);
	add_number(out, FIELD_SIZE, r->size);
	add_number(out, FIELD_MTIME, (uint64_t)r->mtime);
	if (r->mtime_before)
		add_number(out, FIELD_MTIME_BEFORE, (uint64_t)r->mtime_before);
	if (r->type)
		add_number(out, FIELD_TYPE, r->type);
	if (r->class)
		add_number(out, FIELD_CLASS, r->class);
	if (cst_text_unhex(cst_slice_of(r->etag), md5, sizeof(md5)) == 0)
		add_field(out, FIELD_MD5, md5, sizeof(md5));
	else if (r->etag[0])
		add_field(out, FIELD_ETAG, r->etag, strlen(r->etag));
	if (r->has_crc64)
		add_number(out, FIELD_CRC64, r->crc64);
	if (r->restored_until)
		add_number(out, FIELD_RESTORED, (uint64_t)r->restored_until);
	if (r->checksum[0])
		add_field(out, FIELD_CHECKSUM, r->checksum, strlen(r->checksum));
	if (r->headers.len)
		add_field(out, FIELD_HEADERS, r->headers.data, r->headers.len);
	if (r->target.len)
		add_field(out, FIELD_TARGET, r->target.data, r->target.len);
}

static uint64_t number_of(struct cst_slice value)
{
	uint64_t n = 0;

	for (size_t i = cst_min(value.len, (size_t)8); i > 0; i--)
		n = n << 8 | (uint8_t)value.data[i - 1];
	return n;
}

static void copy_text(char *out, size_t size, struct cst_slice value)
{
	size_t len = cst_min(value.len, size - 1);

	memcpy(out, value.data, len);
	out[len] = '\0';
}

static void decode_field(struct cst_record *r, uint8_t field, struct cst_slice value)
{
	CST_AUTO_BUF hex = CST_BUF_INIT;

	switch (field) {
	case FIELD_SIZE:
		r->size = number_of(value);
		break;
	case FIELD_MTIME:
		r->mtime = (int64_t)number_of(value);
		break;
	case FIELD_MTIME_BEFORE:
		r->mtime_before = (int64_t)number_of(value);
		break;
	case FIELD_TYPE:
		r->type = (enum cst_record_type)(number_of(value) & 3);
		break;
	case FIELD_CLASS:
		r->class = (enum cst_record_class)(number_of(value) % CST_CLASS_COUNT);
		break;
	case FIELD_MD5:
		cst_text_hex(&hex, value.data, cst_min(value.len, (size_t)CST_MD5_LEN));
		copy_text(r->etag, sizeof(r->etag), cst_buf_slice(&hex));
		break;
	case FIELD_ETAG:
		copy_text(r->etag, sizeof(r->etag), value);
		break;
	case FIELD_CRC64:
		r->has_crc64 = true;
		r->crc64 = number_of(value);
		break;
	case FIELD_RESTORED:
		r->restored_until = (int64_t)number_of(value);
		break;
	case FIELD_CHECKSUM:
		copy_text(r->checksum, sizeof(r->checksum), value);
		break;
	case FIELD_HEADERS:
		cst_buf_clear(&r->headers);
		cst_buf_add_slice(&r->headers, value);
		break;
	case FIELD_TARGET:
		cst_buf_clear(&r->target);
		cst_buf_add_slice(&r->target, value);
		break;
	default:
		break;
	}
}

int cst_record_decode(struct cst_slice data, struct cst_record *r)
{
	const uint8_t *p = (const uint8_t *)data.data;
	size_t left = data.len;

	cst_record_fini(r);
	if (!cst_slice_starts(data, CST_SLICE(SIGNATURE)))
		return -EBADMSG;
	p += sizeof(SIGNATURE) - 1;
	left -= sizeof(SIGNATURE) - 1;
	while (left) {
		size_t len;

		if (left < 4)
			return -EBADMSG;
		len = p[1] | (size_t)p[2] << 8 | (size_t)p[3] << 16;
		if (len > left - 4)
			return -EBADMSG;
		decode_field(r, p[0], (struct cst_slice){(const char *)p + 4, len});
		p += 4 + len;
		left -= 4 + len;
	}
	return 0;
}

static void sidecar_name(ino_t ino, char out[32])
{
	snprintf(out, 32, "%" PRIu64, (uint64_t)ino);
}

static int store_sidecar(struct cst_record_store *s, ino_t ino, struct cst_slice data)
{
	char name[32];
	char staged[40];
	CST_AUTO_CLOSE int fd = -1;
	int rc;

	sidecar_name(ino, name);
	snprintf(staged, sizeof(staged), "%s.new", name);
	fd = openat(s->dir, staged, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = cst_tree_write_all(fd, data.data, data.len);
	if (rc == 0 && (fsync(fd) != 0 || renameat(s->dir, staged, s->dir, name) != 0 || fsync(s->dir) != 0))
		rc = -errno;
	if (rc)
		unlinkat(s->dir, staged, 0);
	else
		__atomic_store_n(&s->in_use, true, __ATOMIC_RELEASE);
	return rc;
}

int cst_record_store(struct cst_record_store *s, int fd, struct cst_record *r, const struct stat *st)
{
	CST_AUTO_BUF data = CST_BUF_INIT;
	int rc;

	r->size = (uint64_t)st->st_size;
	r->mtime = cst_record_time(&st->st_mtim);
	cst_record_encode(r, &data);
	if (data.len <= XATTR_BYTES && fsetxattr(fd, CST_RECORD_XATTR, data.data, data.len, 0) == 0) {
		cst_record_forget(s, st->st_ino);
		return 0;
	}
	if (data.len <= XATTR_BYTES && errno != ENOTSUP && errno != ENOSPC && errno != E2BIG && errno != ERANGE &&
	    errno != EPERM)
		return -errno;
	/* The old record stays until the new one is safe; it is read as long as it is there. */
	rc = store_sidecar(s, st->st_ino, cst_buf_slice(&data));
	if (rc == 0 && fremovexattr(fd, CST_RECORD_XATTR) != 0 && errno != ENODATA && errno != ENOTSUP)
		rc = -errno;
	return rc;
}

void cst_record_forget(struct cst_record_store *s, ino_t ino)
{
	char name[32];

	if (!__atomic_load_n(&s->in_use, __ATOMIC_ACQUIRE))
		return;
	sidecar_name(ino, name);
	unlinkat(s->dir, name, 0);
}

/* 0 with the encoded record, -ENODATA when there is none. */
static int read_xattr(int fd, struct cst_buf *data)
{
	char *room = cst_buf_room(data, 512);
	ssize_t n = fgetxattr(fd, CST_RECORD_XATTR, room, 512);

	if (n < 0 && errno == ERANGE) {
		room = cst_buf_room(data, XATTR_BYTES);
		n = fgetxattr(fd, CST_RECORD_XATTR, room, XATTR_BYTES);
	}
	if (n < 0)
		return errno == ENOTSUP ? -ENODATA : -errno;
	data->len += (size_t)n;
	return 0;
}

static int read_sidecar(struct cst_record_store *s, ino_t ino, struct cst_buf *data)
{
	char name[32];
	struct stat st;
	CST_AUTO_CLOSE int fd = -1;

	if (!__atomic_load_n(&s->in_use, __ATOMIC_ACQUIRE))
		return -ENODATA;
	sidecar_name(ino, name);
	fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -ENODATA;
	if (fstat(fd, &st) != 0 || st.st_size > 1 << 24)
		return -ENODATA;
	cst_buf_clear(data);
	ssize_t n = read(fd, cst_buf_room(data, (size_t)st.st_size + 1), (size_t)st.st_size);
	if (n != st.st_size)
		return -ENODATA;
	data->len = (size_t)n;
	return 0;
}

static void derive_etag(const struct stat *st, char etag[CST_RECORD_ETAG])
{
	CST_AUTO_BUF hex = CST_BUF_INIT;
	uint64_t facts[3] = {(uint64_t)st->st_size, (uint64_t)cst_record_time(&st->st_mtim), (uint64_t)st->st_ino};
	uint8_t md5[CST_MD5_LEN];

	cst_md5(facts, sizeof(facts), md5);
	cst_text_hex(&hex, md5, sizeof(md5));
	cst_buf_add_str(&hex, "-1");
	copy_text(etag, CST_RECORD_ETAG, cst_buf_slice(&hex));
}

static bool is_of(const struct cst_record *r, const struct stat *st)
{
	int64_t mtime = cst_record_time(&st->st_mtim);

	return r->size == (uint64_t)st->st_size && (mtime == r->mtime || mtime == r->mtime_before);
}

int cst_record_peek(struct cst_record_store *s, int fd, const struct stat *st, struct cst_record *r)
{
	CST_AUTO_BUF data = CST_BUF_INIT;
	int rc = read_xattr(fd, &data);

	cst_record_fini(r);
	if (rc == -ENODATA)
		rc = read_sidecar(s, st->st_ino, &data);
	return rc ? rc : cst_record_decode(cst_buf_slice(&data), r);
}

void cst_record_guess(const struct stat *st, struct cst_record *r)
{
	cst_record_fini(r);
	r->size = (uint64_t)st->st_size;
	r->mtime = cst_record_time(&st->st_mtim);
	derive_etag(st, r->etag);
}

int cst_record_load(struct cst_record_store *s, int fd, const struct stat *st, struct cst_record *r)
{
	CST_AUTO_BUF data = CST_BUF_INIT;
	int rc = read_xattr(fd, &data);

	cst_record_fini(r);
	if (rc == 0) {
		if (cst_record_decode(cst_buf_slice(&data), r) != 0)
			cst_record_fini(r);
	} else if (rc == -ENODATA) {
		/* An inode's number is used again: a record beside the file counts only when it fits. */
		if (read_sidecar(s, st->st_ino, &data) == 0 &&
		    (cst_record_decode(cst_buf_slice(&data), r) != 0 || !is_of(r, st)))
			cst_record_fini(r);
	} else {
		return rc;
	}
	if (!is_of(r, st)) {
		r->type = CST_RECORD_NORMAL;
		r->etag[0] = '\0';
		r->has_crc64 = false;
		r->restored_until = 0;
		r->checksum[0] = '\0';
		cst_buf_clear(&r->target);
	}
	r->size = (uint64_t)st->st_size;
	r->mtime = cst_record_time(&st->st_mtim);
	r->mtime_before = 0;
	if (!r->etag[0])
		derive_etag(st, r->etag);
	return 0;
}

bool cst_record_each_header(const struct cst_record *r, size_t *pos, struct cst_slice *name, struct cst_slice *value)
{
	struct cst_slice rest;
	struct cst_slice line;

	if (*pos >= r->headers.len)
		return false;
	rest = (struct cst_slice){r->headers.data + *pos, r->headers.len - *pos};
	line = cst_slice_cut(&rest, '\n');
	*pos += line.len + 1;
	*name = cst_slice_cut(&line, ':');
	*value = line.data ? line : (struct cst_slice){"", 0};
	return true;
}

struct cst_slice cst_record_header(const struct cst_record *r, const char *wanted)
{
	struct cst_slice name;
	struct cst_slice value;
	size_t pos = 0;

	while (cst_record_each_header(r, &pos, &name, &value)) {
		if (cst_slice_is(name, wanted))
			return value;
	}
	return (struct cst_slice){NULL, 0};
}
