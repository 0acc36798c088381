#include "disk.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/queue.h>

#define FILES_MAX 512

enum change { WRITE, PUNCH, TRUNCATE };
struct unsynced {
	enum change change;
	uint64_t offset, length;
	char *data;
	STAILQ_ENTRY(unsynced) link;
};
struct bytes {
	char *data;
	uint64_t size, room;
};
struct file {
	char name[24];
	bool used, named, name_synced_as; /* is there a name now, was there one at the last sync of the directory */
	struct bytes now, stable;
	STAILQ_HEAD(, unsynced) changes;
	uint64_t reserved;
};
struct disk {
	struct cst_stage_io io;
	struct file files[FILES_MAX];
	uint64_t changes, cut_at, calls, fail_at, space;
	int fail_rc;
	bool cut;
};

/* ---- bytes ---- */

static void resize(struct bytes *b, uint64_t size)
{
	if (size > b->room) {
		b->room = cst_max(size, 2 * b->room);
		b->data = cst_xrealloc(b->data, (size_t)b->room);
	}
	if (size > b->size)
		memset(b->data + b->size, 0, (size_t)(size - b->size));
	b->size = size;
}

static void put(struct bytes *b, uint64_t offset, const char *data, uint64_t length)
{
	if (offset + length > b->size)
		resize(b, offset + length);
	if (length)
		memcpy(b->data + offset, data, (size_t)length);
}

static void zero(struct bytes *b, uint64_t offset, uint64_t length)
{
	if (offset < b->size)
		memset(b->data + offset, 0, (size_t)cst_min(length, b->size - offset));
}

static void forget_changes(struct file *f)
{
	struct unsynced *u;
	while ((u = STAILQ_FIRST(&f->changes))) {
		STAILQ_REMOVE_HEAD(&f->changes, link);
		free(u->data);
		free(u);
	}
}

static void note(struct file *f, enum change change, uint64_t offset, uint64_t length, const char *data)
{
	struct unsynced *u = CST_NEW(struct unsynced);
	*u = (struct unsynced){.change = change, .offset = offset, .length = length};
	if (data) {
		u->data = cst_xmalloc((size_t)length);
		memcpy(u->data, data, (size_t)length);
	}
	STAILQ_INSERT_TAIL(&f->changes, u, link);
}

static void file_fini(struct file *f)
{
	if (f->used)
		forget_changes(f);
	free(f->now.data);
	free(f->stable.data);
	*f = (struct file){0};
}

/* ---- failures ---- */

/* 0, or why the call fails. */
static int enter(struct disk *d, bool changes)
{
	d->calls++;
	if (d->cut)
		return -EIO;
	if (d->fail_at && d->calls >= d->fail_at) {
		d->fail_at = 0;
		return d->fail_rc;
	}
	if (changes) {
		d->changes++;
		if (d->cut_at && d->changes >= d->cut_at)
			d->cut = true; /* this one still begins */
	}
	return 0;
}

/* ---- the calls ---- */

static struct file *find(struct disk *d, const char *name)
{
	for (int i = 0; i < FILES_MAX; i++)
		if (d->files[i].used && d->files[i].named && strcmp(d->files[i].name, name) == 0)
			return &d->files[i];
	return NULL;
}

static int io_open(void *ctx, int dir, const char *name, int flags)
{
	struct disk *d = ctx;
	(void)dir;
	struct file *f = find(d, name);
	int rc = enter(d, !f && flags & O_CREAT);
	if (rc < 0)
		return rc;
	if (f)
		return flags & O_EXCL ? -EEXIST : (int)(f - d->files);
	if (!(flags & O_CREAT))
		return -ENOENT;
	for (int i = 0; i < FILES_MAX; i++) {
		f = &d->files[i];
		if (f->used)
			continue;
		*f = (struct file){.used = true, .named = true};
		STAILQ_INIT(&f->changes);
		snprintf(f->name, sizeof(f->name), "%s", name);
		return i;
	}
	return -ENOSPC;
}

static void io_close(void *ctx, int fd)
{
	(void)ctx;
	(void)fd;
}

static ssize_t io_pread(void *ctx, int fd, void *data, size_t len, uint64_t offset)
{
	struct disk *d = ctx;
	const struct bytes *b = &d->files[fd].now;
	int rc = enter(d, false);
	if (rc < 0)
		return rc;
	if (offset >= b->size)
		return 0;
	len = (size_t)cst_min((uint64_t)len, b->size - offset);
	memcpy(data, b->data + offset, len);
	return (ssize_t)len;
}

static ssize_t io_pwrite(void *ctx, int fd, const void *data, size_t len, uint64_t offset)
{
	struct disk *d = ctx;
	struct file *f = &d->files[fd];
	bool half = d->fail_at && d->calls + 1 >= d->fail_at;
	int rc = enter(d, true);
	if (rc < 0 && (!half || len < 2))
		return rc;
	size_t done = rc < 0 ? len / 2 : len;
	put(&f->now, offset, data, done);
	note(f, WRITE, offset, done, data);
	return rc < 0 ? rc : (ssize_t)len;
}

static int io_datasync(void *ctx, int fd)
{
	struct disk *d = ctx;
	struct file *f = &d->files[fd];
	int rc = enter(d, true);
	if (rc < 0 || d->cut)
		return rc < 0 ? rc : -EIO;
	forget_changes(f);
	f->stable.size = 0;
	put(&f->stable, 0, f->now.data, f->now.size);
	return 0;
}

static int io_dirsync(void *ctx, int dir)
{
	struct disk *d = ctx;
	(void)dir;
	int rc = enter(d, true);
	if (rc < 0 || d->cut)
		return rc < 0 ? rc : -EIO;
	for (int i = 0; i < FILES_MAX; i++) {
		struct file *f = &d->files[i];
		f->name_synced_as = f->named;
		if (f->used && !f->named)
			file_fini(f);
	}
	return 0;
}

static int io_reserve(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	struct disk *d = ctx;
	(void)offset;
	int rc = enter(d, false);
	if (rc == 0 && d->space != UINT64_MAX && d->space < len)
		rc = -ENOSPC;
	if (rc == 0 && d->space != UINT64_MAX) {
		d->space -= len;
		d->files[fd].reserved += len;
	}
	return rc;
}

static void give_back(struct disk *d, struct file *f, uint64_t bytes)
{
	bytes = cst_min(bytes, f->reserved);
	f->reserved -= bytes;
	if (d->space != UINT64_MAX)
		d->space += bytes;
}

static int io_punch(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	struct disk *d = ctx;
	int rc = enter(d, true);
	if (rc < 0)
		return rc;
	give_back(d, &d->files[fd], len);
	zero(&d->files[fd].now, offset, len);
	note(&d->files[fd], PUNCH, offset, len, NULL);
	return 0;
}

static int io_truncate(void *ctx, int fd, uint64_t size)
{
	struct disk *d = ctx;
	int rc = enter(d, true);
	if (rc < 0)
		return rc;
	if (size == 0)
		give_back(d, &d->files[fd], UINT64_MAX);
	resize(&d->files[fd].now, size);
	note(&d->files[fd], TRUNCATE, size, 0, NULL);
	return 0;
}

static int io_size(void *ctx, int fd, uint64_t *size)
{
	struct disk *d = ctx;
	int rc = enter(d, false);
	*size = d->files[fd].now.size;
	return rc;
}

static int io_unlink(void *ctx, int dir, const char *name)
{
	struct disk *d = ctx;
	(void)dir;
	struct file *f = find(d, name);
	int rc = enter(d, true);
	if (rc < 0)
		return rc;
	if (!f)
		return -ENOENT;
	f->named = false;
	return 0;
}

static int io_space(void *ctx, int dir, uint64_t *bytes)
{
	struct disk *d = ctx;
	(void)dir;
	*bytes = d->space;
	return enter(d, false);
}

static int io_each(void *ctx, int dir, void (*each)(void *arg, const char *name), void *arg)
{
	struct disk *d = ctx;
	(void)dir;
	int rc = enter(d, false);
	for (int i = 0; i < FILES_MAX && rc == 0; i++)
		if (d->files[i].used && d->files[i].named)
			each(arg, d->files[i].name);
	return rc;
}

/* ---- what tests say ---- */

struct disk *disk_new(void)
{
	struct disk *d = CST_NEW(struct disk);
	d->space = UINT64_MAX;
	d->io = (struct cst_stage_io){.open = io_open,
				      .close = io_close,
				      .pread = io_pread,
				      .pwrite = io_pwrite,
				      .datasync = io_datasync,
				      .dirsync = io_dirsync,
				      .reserve = io_reserve,
				      .punch = io_punch,
				      .truncate = io_truncate,
				      .size = io_size,
				      .unlink = io_unlink,
				      .space = io_space,
				      .each = io_each,
				      .ctx = d};
	return d;
}

void disk_free(struct disk *d)
{
	for (int i = 0; i < FILES_MAX; i++)
		file_fini(&d->files[i]);
	free(d);
}

const struct cst_stage_io *disk_io(struct disk *d)
{
	return &d->io;
}

uint64_t disk_changes(const struct disk *d)
{
	return d->changes;
}

void disk_cut_after(struct disk *d, uint64_t calls)
{
	d->cut_at = calls ? d->changes + calls : 0;
}

bool disk_is_cut(const struct disk *d)
{
	return d->cut;
}

void disk_fail_after(struct disk *d, uint64_t calls, int rc)
{
	d->fail_at = calls ? d->calls + calls : 0;
	d->fail_rc = rc;
}

uint64_t disk_calls(const struct disk *d)
{
	return d->calls;
}

void disk_set_space(struct disk *d, uint64_t bytes)
{
	d->space = bytes;
}

char *disk_bytes(struct disk *d, const char *name, size_t *size)
{
	struct file *f = find(d, name);
	*size = f ? (size_t)f->now.size : 0;
	return f ? f->now.data : NULL;
}

/* Goes over all units; with `keep`, makes what is left. */
struct walk {
	uint64_t unit;
	bool (*keep)(void *arg, uint64_t unit);
	void *arg;
};

static bool next_unit(struct walk *w)
{
	uint64_t unit = w->unit++;
	return w->keep && w->keep(w->arg, unit);
}

static void walk_change(struct walk *w, struct bytes *b, const struct unsynced *u)
{
	if (u->change == TRUNCATE) {
		if (next_unit(w))
			resize(b, u->offset);
		return;
	}
	for (uint64_t at = u->offset, end; at < u->offset + u->length; at = end) {
		end = u->change == PUNCH ? u->offset + u->length
					 : cst_min((at / SECTOR + 1) * SECTOR, u->offset + u->length);
		if (!next_unit(w))
			continue;
		if (u->change == WRITE)
			put(b, at, u->data + (at - u->offset), end - at);
		else
			zero(b, at, end - at);
	}
}

static void walk(struct disk *d, struct walk *w)
{
	for (int i = 0; i < FILES_MAX; i++) {
		struct file *f = &d->files[i];
		const struct unsynced *u;
		if (!f->used)
			continue;
		STAILQ_FOREACH (u, &f->changes, link)
			walk_change(w, &f->stable, u);
		bool there = f->named;
		if (f->named != f->name_synced_as)
			there = next_unit(w) ? f->named : f->name_synced_as;
		if (!w->keep)
			continue;
		forget_changes(f);
		f->named = f->name_synced_as = there;
		f->now.size = 0;
		put(&f->now, 0, f->stable.data ? f->stable.data : "", f->stable.size);
		if (!there)
			file_fini(f);
	}
}

static bool keep_none(void *arg, uint64_t unit)
{
	(void)arg;
	(void)unit;
	return false;
}

uint64_t disk_units(const struct disk *d)
{
	uint64_t units = 0;
	for (int i = 0; i < FILES_MAX; i++) {
		const struct file *f = &d->files[i];
		const struct unsynced *u;
		if (!f->used)
			continue;
		STAILQ_FOREACH (u, &f->changes, link) {
			if (u->change == WRITE)
				units += u->length ? (u->offset + u->length - 1) / SECTOR - u->offset / SECTOR + 1 : 0;
			else
				units++;
		}
		units += f->named != f->name_synced_as;
	}
	return units;
}

void disk_restart(struct disk *d, bool (*keep)(void *arg, uint64_t unit), void *arg)
{
	struct walk w = {.keep = keep ? keep : keep_none, .arg = arg};
	walk(d, &w);
	d->cut = false;
	d->cut_at = d->fail_at = 0;
}
