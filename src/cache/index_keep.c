/* The keeper: the thread that unlinks what was dropped, writes the log, looks at the file system each second, and after an unclean stop looks
 * at the files, a few at a time: those of entries (are they there, how much of them), and those that the log doesn't know.
 *
 * The order that a power cut must not undo: the removal of a complete entry is on the disk before its files go. Else a later file of the same
 * name, half full, could be taken for the complete one. */
#define CST_LOG_AREA "cache"
#include "cache/index_private.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define REAP_MOST 256u /* extents at a time */
#define CHECK_MOST 32u /* entries, or unlogged files, looked at in one go */
#define CHECK_STEPS 8192u
#define FOLDERS 256u
#define FLUSH_AFTER (5 * CST_NS_PER_MS) /* what is appended meanwhile is written together */
#define PACE (10 * CST_NS_PER_MS)	/* between two goes of background work */
#define LOOK_EACH CST_NS_PER_S

/* ---- what was dropped ---- */

struct reaped {
	uint32_t n;
	uint64_t name, version;
};

struct reaping {
	struct reaped extents[REAP_MOST];
	unsigned count;
	bool complete; /* one of them was */
	struct slab *slabs;
};

static void reap_take_locked(struct cst_index *x, struct reaping *r)
{
	r->count = 0;
	r->complete = false;
	while (x->leaving && r->count < REAP_MOST) {
		struct entry *e = at(x, x->leaving);
		r->extents[r->count++] = (struct reaped){x->leaving, e->name, e->version};
		r->complete |= !!(e->flags & F_COMPLETE);
		x->leaving = e->next;
		e->next = NIL;
	}
	r->slabs = cst_steal(x->dead);
	r->complete |= x->uncompleting != 0;
	x->reaping = r->count + !!r->slabs;
}

static void reap_done_locked(struct cst_index *x, struct reaping *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		struct entry *e = at(x, r->extents[i].n);
		e->flags = (uint16_t)(e->flags & ~F_LEAVING);
		if (e->uses)
			continue; /* the last one who uses it frees it */
		x->leaving_bytes -= extent_bytes(e);
		index_free_locked(x, r->extents[i].n);
	}
	while (r->slabs) {
		struct slab *s = r->slabs;
		r->slabs = s->next;
		x->dead_slabs -= s->length;
		free(s);
	}
	x->reaping = 0;
	room_wake_locked(x);
	pthread_cond_broadcast(&x->room);
}

static void unlinked(struct cst_index *x, int rc, const char *what)
{
	if (rc == 0 || rc == -ENOENT)
		return;
	if (index_is_disk_failure(rc))
		index_fail(x, rc, what);
	else
		cst_log_warn("%s: %s", what, strerror(-rc));
}

void keep_reap(struct cst_index *x)
{
	struct reaping r;
	pthread_mutex_lock(&x->lock);
	if (!x->leaving && !x->dead) {
		pthread_mutex_unlock(&x->lock);
		return;
	}
	reap_take_locked(x, &r);
	int rc = x->rc;
	pthread_mutex_unlock(&x->lock);

	if (r.complete && !rc) {
		rc = log_sync(x);
		if (rc == -ENOSPC) /* a log that claims nothing will do, too */
			rc = log_forget(x);
		if (rc < 0)
			index_fail(x, rc, "writing the log of the cache");
	}
	for (unsigned i = 0; i < r.count && !rc; i++)
		unlinked(x, cst_extent_unlink(x->dir, r.extents[i].name, r.extents[i].version),
			 "removing files from the cache");
	for (struct slab *s = r.slabs; s && !rc; s = s->next)
		unlinked(x, cst_slab_unlink(x->dir, s->number), "removing a slab from the cache");
	room_look(x);
	pthread_mutex_lock(&x->lock);
	reap_done_locked(x, &r);
	pthread_mutex_unlock(&x->lock);
}

/* ---- files of entries ---- */

int keep_count(struct cst_index *x, uint64_t name, uint64_t version, uint64_t *size, uint64_t *bytes)
{
	struct cst_extent e = {-1, -1, name, version, 0};
	int rc = cst_extent_open(x->dir, NULL, false, &e);
	if (rc < 0)
		return rc;
	*size = e.size;
	rc = cst_extent_count(&e, bytes);
	cst_extent_close(&e);
	return rc;
}

static bool is_lost(int rc)
{
	return rc == -ENOENT || rc == -EBADMSG || rc == -ENOTDIR || rc == -EACCES;
}

void keep_check(struct cst_index *x, uint32_t n)
{
	uint64_t size = 0, bytes = 0;
	bool demoted = false;
	pthread_mutex_lock(&x->lock);
	struct entry *e = at(x, n);
	uint64_t name = e->name, version = e->version;
	pthread_mutex_unlock(&x->lock);
	int rc = keep_count(x, name, version, &size, &bytes);
	pthread_mutex_lock(&x->lock);
	if (e->flags & F_UNSURE && entry_found(e)) {
		if (is_lost(rc) || (rc == 0 && size != entry_size(e))) {
			x->stats.lost++;
			index_drop_locked(x, n);
		} else if (rc == 0) {
			demoted = e->flags & F_COMPLETE && bytes != size;
			e->flags = (uint16_t)(e->flags & ~(F_UNSURE | (demoted ? F_COMPLETE : 0)));
			index_charge_locked(x, n, (int64_t)(bytes - entry_charged(e)));
			if (demoted)
				log_entry_locked(x, n);
			x->uncompleting += demoted;
		}
	}
	pthread_mutex_unlock(&x->lock);
	if (demoted) {
		rc = log_sync(x);
		pthread_mutex_lock(&x->lock);
		x->uncompleting -= rc == 0;
		pthread_mutex_unlock(&x->lock);
	}
	if (index_is_disk_failure(rc))
		index_fail(x, rc, "looking at files of the cache");
}

/* The next few entries that have not been looked at. */
static void check_some(struct cst_index *x)
{
	uint32_t numbers[CHECK_MOST];
	unsigned count = 0;
	pthread_mutex_lock(&x->lock);
	uint32_t n = x->check_at, end = cst_min(x->table.used, n + CHECK_STEPS);
	for (; n && n < end && count < CHECK_MOST; n++) {
		struct entry *e = at(x, n);
		if (!entry_found(e) || !(e->flags & F_UNSURE) || e->uses == UINT16_MAX)
			continue;
		index_use_locked(x, n);
		numbers[count++] = n;
	}
	if (x->check_at)
		x->check_at = n < x->table.used ? n : 0;
	pthread_mutex_unlock(&x->lock);
	for (unsigned i = 0; i < count; i++)
		keep_check(x, numbers[i]);
	pthread_mutex_lock(&x->lock);
	for (unsigned i = 0; i < count; i++)
		index_unuse_locked(x, numbers[i]);
	pthread_mutex_unlock(&x->lock);
}

/* ---- files that the log doesn't know ---- */

/* Takes in an extent with what it holds, or removes its files. */
static void take_in(struct cst_index *x, uint64_t name, uint64_t version)
{
	uint64_t size = 0, bytes = 0;
	pthread_mutex_lock(&x->lock);
	bool known = table_find(&x->table, name, version) || x->stopping;
	uint32_t n = known ? NIL : table_add(&x->table, name, version);
	if (n)
		at(x, n)->flags = F_PENDING; /* so nobody makes or looks for it meanwhile */
	pthread_mutex_unlock(&x->lock);
	if (!n)
		return;
	int rc = keep_count(x, name, version, &size, &bytes);
	if (rc == 0 && (size <= CST_SLOT_MAX || size >= SIZE_LIMIT))
		rc = -EBADMSG;
	pthread_mutex_lock(&x->lock);
	if (rc == 0 && room_used_locked(x) + bytes + extent_overhead(size) > x->high)
		rc = -ENOSPC;
	if (rc == 0) {
		struct entry *e = at(x, n);
		entry_set_size(e, size);
		e->minute = index_minute();
		x->extents += extent_overhead(size);
		index_charge_locked(x, n, (int64_t)bytes);
		index_show_locked(x, n);
		log_entry_locked(x, n);
	}
	pthread_mutex_unlock(&x->lock);
	if (rc == 0)
		return;
	cst_extent_unlink(x->dir, name, version);
	pthread_mutex_lock(&x->lock);
	table_remove(&x->table, n);
	pthread_mutex_unlock(&x->lock);
}

/* "NAME-VERSION.data" or ".map" of that folder, in our spelling. */
static bool parse_extent(const char *file, unsigned folder, uint64_t *name, uint64_t *version)
{
	char suffix[8], path[CST_FILE_NAME_MAX];
	int end = 0;
	if (sscanf(file, "%16" SCNx64 "-%16" SCNx64 "%6s%n", name, version, suffix, &end) != 3 || file[end] ||
	    (strcmp(suffix, ".data") != 0 && strcmp(suffix, ".map") != 0))
		return false;
	cst_extent_name(*name, *version, suffix, path);
	return *name >> 56 == folder && strcmp(strrchr(path, '/') + 1, file) == 0;
}

static DIR *open_folder(struct cst_index *x, const char *path)
{
	int fd = openat(x->dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d && fd >= 0)
		close(fd);
	return d;
}

/* One folder of objects/. Returns true when it was searched to its end. */
static bool scan_folder(struct cst_index *x, unsigned folder)
{
	char path[CST_FILE_NAME_MAX];
	unsigned strangers = 0;
	const struct dirent *file;
	snprintf(path, sizeof(path), "objects/%02x", folder);
	DIR *d = open_folder(x, path);
	if (!d)
		return true;
	while (strangers < CHECK_MOST && (file = readdir(d))) {
		uint64_t name, version;
		if (!parse_extent(file->d_name, folder, &name, &version))
			continue;
		pthread_mutex_lock(&x->lock);
		bool known = table_find(&x->table, name, version);
		pthread_mutex_unlock(&x->lock);
		if (known)
			continue;
		take_in(x, name, version);
		strangers++;
	}
	closedir(d);
	return strangers < CHECK_MOST;
}

/* Slabs without an entry; with `most` only the largest number is looked for. */
static void scan_slabs(struct cst_index *x, uint32_t *most)
{
	const struct dirent *file;
	DIR *d = open_folder(x, "slabs");
	while (d && (file = readdir(d))) {
		uint32_t number;
		int end = 0;
		if (sscanf(file->d_name, "%8" SCNx32 ".slab%n", &number, &end) != 1 || !end || file->d_name[end] ||
		    number == UINT32_MAX)
			continue;
		if (most) {
			*most = cst_max(*most, number);
			continue;
		}
		pthread_mutex_lock(&x->lock);
		bool keep = number >= x->scan_slabs || slab_find(x, number) || x->dead || x->reaping;
		pthread_mutex_unlock(&x->lock);
		if (!keep)
			cst_slab_unlink(x->dir, number);
	}
	if (d)
		closedir(d);
}

/* New slabs get numbers above those of all files, so none of them is taken for a stranger. */
void keep_prepare(struct cst_index *x)
{
	uint32_t most = 0, seconds = (uint32_t)(cst_wall() / CST_NS_PER_S);
	/* And not those of slabs that are gone, but that other processes still have open. */
	x->slabs.next_number = cst_max(x->slabs.next_number, seconds);
	if (x->scan_folder == SCAN_DONE)
		return;
	if (faccessat(x->dir, "objects", F_OK, 0) < 0 && faccessat(x->dir, "slabs", F_OK, 0) < 0) {
		x->scan_folder = SCAN_DONE; /* a new directory */
		return;
	}
	scan_slabs(x, &most);
	x->slabs.next_number = cst_max(x->slabs.next_number, most + 1);
	x->scan_slabs = x->slabs.next_number;
}

void keep_check_slab(struct cst_index *x, uint32_t number)
{
	pthread_mutex_lock(&x->lock);
	struct slab *s = slab_find(x, number);
	uint32_t length = s ? s->length : 0;
	pthread_mutex_unlock(&x->lock);
	if (!length)
		return;
	int fd = cst_slab_open(x->dir, number, false, length);
	if (fd >= 0) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&x->lock);
	s = is_lost(fd) ? slab_find(x, number) : NULL;
	if (s && !s->closed) {
		slab_close_locked(x, s);
		s->lost = true;
		for (uint32_t slot = 0; slot < s->slots; slot++) {
			if (s->owners[slot] >= OWNER_FREE || !entry_found(at(x, s->owners[slot])))
				continue;
			x->stats.lost++;
			index_drop_locked(x, s->owners[slot]);
		}
		slab_open_locked(x, s);
	}
	pthread_mutex_unlock(&x->lock);
}

/* Those that were there before this start. */
static void check_slabs(struct cst_index *x)
{
	for (uint32_t number = 0; number < x->scan_slabs; number++) {
		pthread_mutex_lock(&x->lock);
		const struct slab *s = slab_from(x, number);
		number = s ? s->number : UINT32_MAX;
		pthread_mutex_unlock(&x->lock);
		if (number >= x->scan_slabs)
			return;
		keep_check_slab(x, number);
	}
}

static void scan_some(struct cst_index *x)
{
	if (x->scan_folder < FOLDERS) {
		if (!scan_folder(x, x->scan_folder))
			return;
	} else {
		scan_slabs(x, NULL);
		check_slabs(x);
	}
	pthread_mutex_lock(&x->lock);
	x->scan_folder++;
	if (x->scan_folder == SCAN_DONE)
		cst_log_debug("the files of the cache were looked at: %" PRIu64 " entries were lost", x->stats.lost);
	pthread_mutex_unlock(&x->lock);
}

/* ---- the log ---- */

static bool is_passing(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT || rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -EINTR;
}

/* Returns true when there is more to do. */
static bool keep_log(struct cst_index *x, int64_t *retry)
{
	pthread_mutex_lock(&x->lock);
	x->kick = false;
	bool due = log_due_locked(x) && cst_now() >= *retry, none = x->log_void || x->log.fd < 0;
	pthread_mutex_unlock(&x->lock);
	int rc = none ? 0 : log_flush(x);
	if (rc < 0 && !is_passing(rc))
		index_fail(x, rc, "writing the log of the cache");
	if (!due || (rc < 0 && !is_passing(rc)))
		return false;
	rc = log_rewrite_step(x);
	if (rc >= 0)
		return rc == 1;
	log_rewrite_abort(x);
	*retry = cst_now() + CST_NS_PER_S;
	if (!is_passing(rc))
		index_fail(x, rc, "writing the log of the cache");
	return false;
}

/* Deleted under us: what is open goes on, but nothing can be kept here any more. Its log alone can be written again. */
static void keep_place(struct cst_index *x)
{
	struct stat dir, log;
	if (fstat(x->dir, &dir) == 0 && dir.st_nlink == 0) {
		index_fail(x, -ENOENT, "the directory was deleted");
		return;
	}
	pthread_mutex_lock(&x->log_io);
	pthread_mutex_lock(&x->lock);
	int fd = x->log_void ? -1 : x->log.fd;
	pthread_mutex_unlock(&x->lock);
	bool gone = fd >= 0 && fstat(fd, &log) == 0 && log.st_nlink == 0;
	pthread_mutex_unlock(&x->log_io);
	if (gone) {
		pthread_mutex_lock(&x->lock);
		x->log_void = true;
		pthread_mutex_unlock(&x->lock);
	}
}

/* ---- the thread ---- */

static bool urgent(const struct cst_index *x)
{
	return x->leaving || x->dead || x->look || x->stopping;
}

static void wait_for_work(struct cst_index *x, bool busy)
{
	int64_t now = cst_now(), until = busy ? now + PACE : x->looked + LOOK_EACH;
	pthread_mutex_lock(&x->lock);
	while (!urgent(x) && !x->kick && room_cond_wait_locked(x, &x->keep_wake, until) > 0)
		;
	if (x->kick && !urgent(x)) {
		until = cst_now() + FLUSH_AFTER;
		while (!urgent(x) && room_cond_wait_locked(x, &x->keep_wake, until) > 0)
			;
	}
	pthread_mutex_unlock(&x->lock);
}

void *keep_thread(void *arg)
{
	struct cst_index *x = arg;
	int64_t retry = 0;
	bool busy = false;
	for (;;) {
		wait_for_work(x, busy);
		pthread_mutex_lock(&x->lock);
		bool stopping = x->stopping, failed = x->rc, checks = x->check_at, scans = x->scan_folder != SCAN_DONE;
		bool look = x->look || cst_now() >= x->looked + LOOK_EACH;
		pthread_mutex_unlock(&x->lock);
		if (stopping)
			return NULL;
		keep_reap(x);
		busy = false;
		if (look) {
			room_look(x);
			keep_place(x);
		}
		if (failed)
			continue;
		busy = keep_log(x, &retry);
		if (checks)
			check_some(x);
		else if (scans)
			scan_some(x);
		busy = busy || checks || scans;
	}
}
