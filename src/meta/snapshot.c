/* Saved listings: see snapshot.h.
 *
 * A block is its length and its CRC32C (4 bytes each, little-endian) and its bytes, which begin with a letter: H (version, when it was written,
 * identity), D (a directory begins: when the store was asked, whether it has a marker, prefix; then entries), C (more entries of it), E (how many
 * directories and names there are; the last one). An entry: flags, type, suffix, size, Last-Modified, ETag. Numbers are varints. */
#include "meta/snapshot.h"

#include "base/digest.h"
#include "base/text.h"
#include "meta/preload_private.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION 1
#define BLOCK_NAMES 1000
#define BLOCK_MAX (16u << 20)
#define FILE_MAX (INT64_C(4) << 30)
#define FLUSH_AT (1u << 20)
#define LOCK_NS (5 * CST_NS_PER_S) /* that another mount's saving is waited for */

enum { ENTRY_PREFIX = 1, ENTRY_DOUBTFUL = 2 };

/* ---- writing ---- */

static void put_number(struct cst_buf *b, uint64_t v)
{
	for (; v >= 128; v >>= 7)
		cst_buf_add_char(b, (char)(v | 128));
	cst_buf_add_char(b, (char)v);
}

static void put_text(struct cst_buf *b, struct cst_slice text)
{
	put_number(b, text.len);
	cst_buf_add_slice(b, text);
}

static void put_block(struct cst_buf *out, const struct cst_buf *block)
{
	uint32_t head[2] = {htole32((uint32_t)block->len), htole32(cst_crc32c(0, block->data, block->len))};
	cst_buf_add(out, head, sizeof(head));
	cst_buf_add_slice(out, cst_buf_slice(block));
}

static void put_entry_locked(struct cst_buf *b, const struct cst_names *names, size_t i)
{
	struct cst_name_view view;
	cst_names_get(names, i, &view);
	bool prefix = view.flags & CST_NAME_PREFIX;
	cst_buf_add_char(b,
			 (char)((prefix ? ENTRY_PREFIX : 0) | (view.flags & CST_NAME_DOUBTFUL ? ENTRY_DOUBTFUL : 0)));
	put_text(b, cst_names_suffix(names, i));
	if (prefix)
		return;
	cst_buf_add_char(b, (char)view.type);
	put_number(b, view.size);
	put_number(b, (uint64_t)cst_max(view.mtime, INT64_C(0)));
	put_text(b, cst_slice_of(view.etag));
}

struct writer {
	int fd;
	int rc;
	struct cst_buf out, block;
	struct cst_snapshot_counts counts;
	int64_t wall_of_clock; /* what to add to meta's clock */
};

static void flush(struct writer *w)
{
	for (size_t at = 0; w->rc == 0 && at < w->out.len;) {
		ssize_t n = write(w->fd, w->out.data + at, w->out.len - at);
		if (n > 0)
			at += (size_t)n;
		else if (n == 0 || errno != EINTR)
			w->rc = n == 0 ? -EIO : -errno;
	}
	w->counts.bytes += w->out.len;
	cst_buf_clear(&w->out);
}

/* May the listing be saved? What this mount changed itself lies over it, and is not saved. */
static bool is_good_locked(const struct cst_dir *dir, const struct cst_listing *l, int64_t now, int64_t max_age)
{
	return l && !dir->owns && !l->running && !l->joined && l->rc == 0 && l->names.complete && !l->names.unsorted &&
	       now - l->started < max_age;
}

static void save_dir(struct writer *w, struct cst_dir *dir, int64_t now, int64_t max_age)
{
	size_t i = 0, count = 0;
	uint64_t number = 0;
	do {
		pthread_mutex_lock(&dir->lock);
		const struct cst_listing *l = dir->listing;
		bool good = is_good_locked(dir, l, now, max_age) && (i == 0 || l->number == number);
		if (!good) { /* it is another one by now: without it, if nothing of it is written yet */
			pthread_mutex_unlock(&dir->lock);
			if (i > 0)
				w->rc = -EAGAIN;
			return;
		}
		cst_buf_clear(&w->block);
		cst_buf_add_char(&w->block, i == 0 ? 'D' : 'C');
		if (i == 0) {
			number = l->number;
			count = l->names.sealed;
			put_number(&w->block, (uint64_t)cst_max(l->started + w->wall_of_clock, INT64_C(0)));
			cst_buf_add_char(&w->block, l->names.has_marker ? 1 : 0);
			put_text(&w->block, cst_dir_prefix(dir));
		}
		size_t end = cst_min(count, i + BLOCK_NAMES);
		for (; i < end; i++)
			put_entry_locked(&w->block, &l->names, i);
		pthread_mutex_unlock(&dir->lock);
		put_block(&w->out, &w->block);
		if (w->out.len >= FLUSH_AT)
			flush(w);
	} while (i < count && w->rc == 0);
	w->counts.directories++;
	w->counts.names += count;
}

/* The directories with a listing, the one used last first; referenced. */
static struct cst_dir **collect(struct cst_meta *meta, size_t *count)
{
	struct cst_listing *l;
	pthread_mutex_lock(&meta->lock);
	struct cst_dir **dirs = cst_xcalloc(meta->lru_count + 1, sizeof(struct cst_dir *));
	*count = 0;
	TAILQ_FOREACH_REVERSE(l, &meta->lru, cst_listing_lru, lru)
	{
		struct cst_dir *dir = cst_dir_try_ref(l->dir);
		if (dir)
			dirs[(*count)++] = dir;
	}
	pthread_mutex_unlock(&meta->lock);
	return dirs;
}

static void save_all(struct writer *w, struct cst_meta *meta, const struct cst_snapshot *s)
{
	size_t count;
	int64_t now = cst_meta_now(meta), max_age = cst_max(s->max_age, meta->config.list_ttl);
	struct cst_dir **dirs = collect(meta, &count);
	w->wall_of_clock = cst_wall() - now;
	cst_buf_add_char(&w->block, 'H');
	put_number(&w->block, VERSION);
	put_number(&w->block, (uint64_t)cst_wall());
	put_text(&w->block, s->identity);
	put_block(&w->out, &w->block);
	for (size_t i = 0; i < count; i++) {
		if (w->rc == 0)
			save_dir(w, dirs[i], now, max_age);
		cst_dir_unref(dirs[i]);
	}
	free(dirs);
	cst_buf_clear(&w->block);
	cst_buf_add_char(&w->block, 'E');
	put_number(&w->block, w->counts.directories);
	put_number(&w->block, w->counts.names);
	put_block(&w->out, &w->block);
	flush(w);
}

static int sync_directory(const char *path)
{
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Some file systems have no locks; what is mixed there is seen when it is read. */
static bool is_lockless(int error)
{
	return error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS;
}

/* Several mounts of the same may save at the same time, also of machines or containers that see each other's files alone: one after the other, into a
 * file that is locked until it has its name; what a killed one leaves is the next one's. The descriptor, or -errno. */
static int open_locked(const char *name)
{
	int64_t end = cst_now() + LOCK_NS;
	for (;;) {
		struct stat here, there;
		int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		int rc = fd < 0 ? -errno : 0;
		if (rc == 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
			rc = errno == EWOULDBLOCK ? -EBUSY : is_lockless(errno) ? 0 : -errno;
		/* Who had it may have given it its name meanwhile. */
		if (rc == 0 && fstat(fd, &here) == 0 && lstat(name, &there) == 0 && here.st_ino == there.st_ino &&
		    here.st_dev == there.st_dev)
			return fd;
		if (fd >= 0)
			close(fd);
		if ((rc < 0 && rc != -EBUSY) || cst_now() >= end)
			return rc < 0 ? rc : -EBUSY;
		if (rc == -EBUSY)
			usleep(20000);
	}
}

static int write_file(struct cst_meta *meta, const struct cst_snapshot *s, int fd, struct cst_snapshot_counts *counts)
{
	struct writer w = {.fd = fd};
	if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	save_all(&w, meta, s);
	if (w.rc == 0 && fsync(fd) < 0)
		w.rc = -errno;
	cst_buf_fini(&w.out);
	cst_buf_fini(&w.block);
	*counts = w.counts;
	return w.rc;
}

int cst_snapshot_save(struct cst_meta *meta, const struct cst_snapshot *s, struct cst_snapshot_counts *counts,
		      struct cst_error *err)
{
	const char *slash = strrchr(s->path, '/');
	CST_AUTO_FREE char *dir = slash ? cst_xstrndup(s->path, (size_t)(slash - s->path)) : cst_xstrdup(".");
	CST_AUTO_FREE char *name = cst_xasprintf("%s.new", s->path);
	int rc = mkdir(dir[0] ? dir : "/", 0700) < 0 && errno != EEXIST ? -errno : 0;
	int fd = rc == 0 ? open_locked(name) : -1;
	if (rc == 0 && fd < 0)
		rc = fd;
	for (int tries = 0; rc == 0 && tries < 3; tries++) {
		rc = write_file(meta, s, fd, counts);
		if (rc != -EAGAIN)
			break;
		rc = tries < 2 ? 0 : rc;
	}
	if (rc == 0 && rename(name, s->path) < 0)
		rc = -errno;
	if (rc == 0)
		rc = sync_directory(dir[0] ? dir : "/");
	else if (fd >= 0)
		unlink(name);
	if (fd >= 0)
		close(fd);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't save listings in %s", s->path);
		cst_error_why(err, "%s", strerror(-rc));
	}
	return rc;
}

void cst_snapshot_remove(const struct cst_snapshot *s)
{
	const char *slash = strrchr(s->path, '/');
	CST_AUTO_FREE char *dir = slash ? cst_xstrndup(s->path, (size_t)(slash - s->path)) : cst_xstrdup(".");
	if (unlink(s->path) == 0)
		sync_directory(dir[0] ? dir : "/");
}

/* ---- reading ---- */

struct reader {
	struct cst_slice rest; /* of a block */
	bool bad;
};

static uint64_t get_number(struct reader *r)
{
	uint64_t v = 0;
	for (unsigned shift = 0; r->rest.len > 0 && shift < 64; shift += 7) {
		uint8_t c = (uint8_t)*r->rest.data++;
		r->rest.len--;
		v |= (uint64_t)(c & 127) << shift;
		if (!(c & 128))
			return v;
	}
	r->bad = true;
	return 0;
}

static uint8_t get_byte(struct reader *r)
{
	if (r->rest.len == 0) {
		r->bad = true;
		return 0;
	}
	r->rest.len--;
	return (uint8_t)*r->rest.data++;
}

static struct cst_slice get_text(struct reader *r)
{
	uint64_t len = get_number(r);
	if (r->bad || len > r->rest.len) {
		r->bad = true;
		return (struct cst_slice){0};
	}
	struct cst_slice text = {r->rest.data, (size_t)len};
	r->rest.data += len;
	r->rest.len -= (size_t)len;
	return text;
}

/* The next block of the file; false: it is not as it was written, or there is none. */
static bool get_block(struct cst_slice *file, struct reader *r)
{
	uint32_t head[2];
	if (file->len < sizeof(head))
		return false;
	memcpy(head, file->data, sizeof(head));
	uint32_t len = le32toh(head[0]);
	if (len == 0 || len > BLOCK_MAX || len > file->len - sizeof(head))
		return false;
	*r = (struct reader){.rest = {file->data + sizeof(head), len}};
	file->data += sizeof(head) + len;
	file->len -= sizeof(head) + len;
	return cst_crc32c(0, r->rest.data, len) == le32toh(head[1]);
}

struct loader {
	struct cst_meta *meta; /* NULL: nothing is put in place */
	int64_t max_age;
	bool future; /* it says to have been written later than now: nobody knows how old it is */
	bool any;
	char *prefix;
	size_t prefix_len;
	int64_t asked; /* wall */
	struct cst_names names;
	struct cst_buf doubtful; /* names, each ended by a NUL */
	struct cst_snapshot_counts counts;
	uint64_t directories, names_seen;
};

static void put_dir(struct loader *l)
{
	struct cst_meta *meta = l->meta;
	struct cst_slice rest = cst_buf_slice(&l->doubtful);
	if (!l->any || !meta) {
		cst_names_fini(&l->names);
		return;
	}
	int64_t age = cst_wall() - l->asked, ttl = meta->config.list_ttl;
	uint64_t count = l->names.count;
	bool young = !l->future && age >= 0 && age < cst_max(l->max_age, ttl) &&
		     l->counts.bytes < meta->config.listing_bytes / 4 * 3;
	l->counts.old += !young;
	if (!young) {
		cst_names_fini(&l->names);
		return;
	}
	cst_names_seal(&l->names, true);
	while (rest.len > 0) {
		size_t at;
		struct cst_slice name = cst_slice_cut(&rest, '\0');
		if (cst_names_find(&l->names, name, &at) == CST_NAMES_FOUND)
			cst_names_doubt(&l->names, at);
	}
	struct cst_installed what = {.started = cst_meta_now(meta) - age};
	/* It stays for longer than others, and is asked for anew when it is used. */
	what.unchecked = l->max_age > ttl;
	what.refreshed = what.started + (what.unchecked ? l->max_age - ttl : 0);
	if (cst_preload_install(meta, (struct cst_slice){l->prefix, l->prefix_len}, &l->names, &what)) {
		l->counts.directories++;
		l->counts.names += count;
		l->counts.bytes += what.bytes;
	}
}

static void dir_ends(struct loader *l)
{
	put_dir(l);
	cst_buf_clear(&l->doubtful);
	free(l->prefix);
	l->prefix = NULL;
	l->any = false;
}

static void note_doubtful(struct loader *l, struct cst_slice suffix, bool prefix)
{
	cst_buf_add(&l->doubtful, suffix.data, suffix.len - prefix);
	cst_buf_add_char(&l->doubtful, '\0');
}

static bool read_entries(struct loader *l, struct reader *r)
{
	while (r->rest.len > 0 && !r->bad) {
		struct cst_object_info info = {0};
		uint8_t flags = get_byte(r);
		bool prefix = flags & ENTRY_PREFIX;
		struct cst_slice suffix = get_text(r);
		if (!prefix) {
			info.type = get_byte(r);
			info.size = get_number(r);
			uint64_t mtime = get_number(r);
			struct cst_slice etag = get_text(r);
			if (info.type > CST_OBJECT_SYMLINK || etag.len >= CST_ETAG_MAX || mtime > INT64_MAX ||
			    (etag.len > 0 && memchr(etag.data, 0, etag.len)))
				return false;
			info.mtime = (int64_t)mtime;
			if (etag.len > 0)
				memcpy(info.etag, etag.data, etag.len);
		}
		if (r->bad || flags > (ENTRY_PREFIX | ENTRY_DOUBTFUL) || suffix.len == 0 ||
		    (prefix && suffix.data[suffix.len - 1] != '/'))
			return false;
		if (flags & ENTRY_DOUBTFUL)
			note_doubtful(l, suffix, prefix);
		l->names_seen++;
		if (l->meta)
			cst_names_add(&l->names, suffix, prefix, &info);
	}
	return !r->bad;
}

static bool read_dir(struct loader *l, struct reader *r)
{
	dir_ends(l);
	uint64_t asked = get_number(r);
	bool marker = get_byte(r) != 0;
	struct cst_slice prefix = get_text(r);
	if (r->bad || asked > INT64_MAX || (prefix.len > 0 && prefix.data[prefix.len - 1] != '/'))
		return false;
	l->any = true;
	l->asked = (int64_t)asked;
	l->prefix = cst_xstrndup(prefix.len ? prefix.data : "", prefix.len);
	l->prefix_len = prefix.len;
	l->names.has_marker = marker;
	l->directories++;
	return read_entries(l, r);
}

static int damaged(const struct cst_snapshot *s, struct cst_error *err)
{
	cst_error_set(err, EBADMSG, "the saved listings in %s are not used", s->path);
	cst_error_why(err, "the file is damaged or not of this kind");
	return -EBADMSG;
}

static int read_header(const struct cst_snapshot *s, struct cst_slice *file, uint64_t *written, struct cst_error *err)
{
	struct reader r;
	if (!get_block(file, &r) || get_byte(&r) != 'H')
		return damaged(s, err);
	uint64_t version = get_number(&r);
	*written = get_number(&r);
	struct cst_slice identity = get_text(&r);
	if (!r.bad && version == VERSION && !cst_slice_eq(identity, s->identity)) {
		cst_error_set(err, ESTALE, "the saved listings in %s are not used", s->path);
		cst_error_why(err, "they are of something else");
		return -ESTALE;
	}
	return r.bad || version != VERSION || r.rest.len > 0 ? damaged(s, err) : 0;
}

/* Blocks up to the end. */
static bool read_blocks(struct loader *l, struct cst_slice file)
{
	struct reader r;
	while (get_block(&file, &r)) {
		uint8_t kind = get_byte(&r);
		if (kind == 'E') {
			uint64_t directories = get_number(&r), names = get_number(&r);
			return !r.bad && r.rest.len == 0 && file.len == 0 && directories == l->directories &&
			       names == l->names_seen;
		}
		if (kind == 'D' ? !read_dir(l, &r) : kind != 'C' || !l->any || !read_entries(l, &r))
			return false;
	}
	return false;
}

static bool run(struct loader *l, struct cst_slice file)
{
	bool good = read_blocks(l, file);
	if (good)
		dir_ends(l);
	cst_names_fini(&l->names);
	cst_buf_fini(&l->doubtful);
	free(l->prefix);
	return good;
}

int cst_snapshot_read(struct cst_meta *meta, const struct cst_snapshot *s, struct cst_slice file,
		      struct cst_snapshot_counts *counts, struct cst_error *err)
{
	struct loader check = {0}, load = {.meta = meta, .max_age = s->max_age};
	*counts = (struct cst_snapshot_counts){0};
	uint64_t written;
	int rc = read_header(s, &file, &written, err);
	if (rc != 0)
		return rc;
	load.future = written > (uint64_t)cst_max(cst_wall(), INT64_C(0));
	/* Nothing of it is used before all of it was looked at. */
	if (!run(&check, file))
		return damaged(s, err);
	if (meta)
		run(&load, file);
	*counts = load.counts;
	return 0;
}

int cst_snapshot_load(struct cst_meta *meta, const struct cst_snapshot *s, struct cst_snapshot_counts *counts,
		      struct cst_error *err)
{
	struct stat st;
	CST_AUTO_CLOSE int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	*counts = (struct cst_snapshot_counts){0};
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	int rc = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
	if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > FILE_MAX))
		return damaged(s, err);
	CST_AUTO_BUF file = CST_BUF_INIT;
	char *room = rc == 0 ? cst_buf_room(&file, (size_t)st.st_size) : NULL;
	for (size_t left = rc == 0 ? (size_t)st.st_size : 0; left > 0 && rc == 0;) {
		ssize_t n = read(fd, room + file.len, left);
		if (n > 0) {
			file.len += (size_t)n;
			left -= (size_t)n;
		} else if (n == 0) {
			return damaged(s, err);
		} else if (errno != EINTR) {
			rc = -errno;
		}
	}
	if (rc == 0)
		return cst_snapshot_read(meta, s, cst_buf_slice(&file), counts, err);
	cst_error_set(err, -rc, "can't read the saved listings in %s", s->path);
	cst_error_why(err, "%s", strerror(-rc));
	return rc;
}

bool cst_dir_take_unchecked(struct cst_dir *dir)
{
	pthread_mutex_lock(&dir->lock);
	bool unchecked = dir->listing && dir->listing->unchecked && !dir->listing->told;
	if (unchecked)
		dir->listing->told = true;
	pthread_mutex_unlock(&dir->lock);
	return unchecked;
}

void cst_dir_end_unchecked(struct cst_dir *dir)
{
	pthread_mutex_lock(&dir->lock);
	if (dir->listing && dir->listing->unchecked)
		dir->listing->refreshed = dir->listing->started;
	pthread_mutex_unlock(&dir->lock);
}
