#include "fake_host.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/queue.h>

static int64_t fake_time = 1000 * CST_NS_PER_S; /* atomic */
uint64_t fake_invalidated;
struct cst_buf fake_expired;

static int64_t fake_clock(void)
{
	return __atomic_load_n(&fake_time, __ATOMIC_RELAXED);
}

void fake_pass(int64_t ns)
{
	__atomic_fetch_add(&fake_time, ns, __ATOMIC_RELAXED);
}

struct fake_call *call_new(void)
{
	struct fake_call *c = CST_NEW(struct fake_call);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	c->room = 100;
	return c;
}

void call_free(struct fake_call *c)
{
	cst_buf_fini(&c->data);
	free(c->entries);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->cond);
	free(c);
}

static int finish(struct cst_fs_call *call, int rc)
{
	struct fake_call *c = (struct fake_call *)call;
	pthread_mutex_lock(&c->lock);
	if (c->done)
		cst_panic(__FILE__, __LINE__, "two replies to one call");
	bool refuse = c->refuse;
	c->rc = rc;
	c->done = true;
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	return refuse ? -ENOENT : 0;
}

int call_wait(struct fake_call *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->done)
		pthread_cond_wait(&c->cond, &c->lock);
	int rc = c->rc;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

static void host_error(struct cst_fs_call *call, int rc)
{
	finish(call, rc);
}
static int host_entry(struct cst_fs_call *call, const struct cst_fs_entry *entry)
{
	((struct fake_call *)call)->entry = *entry;
	return finish(call, 0);
}
static void host_attr(struct cst_fs_call *call, const struct cst_fs_attr *attr)
{
	((struct fake_call *)call)->attr = *attr;
	finish(call, 0);
}

/* What the kernel has open. Files alone: directories are answered with their flags, and have no mode. */
struct open_file {
	LIST_ENTRY(open_file) link;
	uint64_t node, fh;
	int backing; /* 0: through the page cache */
};
static LIST_HEAD(, open_file) open_files = LIST_HEAD_INITIALIZER(open_files);
static pthread_mutex_t model_lock = PTHREAD_MUTEX_INITIALIZER;
struct fake_backing fake_backing;
static bool backing_live[1 << 20];

static void must(bool holds, const char *rule)
{
	if (!holds)
		cst_panic(rule, 0, "the kernel would refuse it");
}

static int backing_open(void *arg, int fd)
{
	(void)arg;
	must(fd >= 0, "a backing file is a file");
	pthread_mutex_lock(&model_lock);
	int id = fake_backing.fail;
	if (!id) {
		fake_backing.opened++;
		fake_backing.live++;
		id = ++fake_backing.last;
		backing_live[id] = true;
	}
	pthread_mutex_unlock(&model_lock);
	return id;
}

static void backing_close(void *arg, int id)
{
	const struct open_file *f;
	(void)arg;
	pthread_mutex_lock(&model_lock);
	must(backing_live[id], "an id is closed once");
	LIST_FOREACH (f, &open_files, link)
		must(f->backing != id, "an id is closed after its last release");
	backing_live[id] = false;
	fake_backing.closed++;
	fake_backing.live--;
	pthread_mutex_unlock(&model_lock);
}

static void host_open_files(void *arg, uint64_t count)
{
	(void)arg;
	__atomic_store_n(&fake_backing.open_files, count, __ATOMIC_RELAXED);
}

static void model_open(uint64_t node, uint64_t fh, int backing)
{
	struct open_file *mine = CST_NEW(struct open_file), *f;
	*mine = (struct open_file){.node = node, .fh = fh, .backing = backing};
	pthread_mutex_lock(&model_lock);
	must(!backing || backing_live[backing], "a backing file is registered");
	LIST_FOREACH (f, &open_files, link)
		must(f->node != node || f->backing == backing, "one node is open in one mode");
	LIST_INSERT_HEAD(&open_files, mine, link);
	pthread_mutex_unlock(&model_lock);
}

static void model_release(uint64_t node, uint64_t fh)
{
	struct open_file *f;
	pthread_mutex_lock(&model_lock);
	LIST_FOREACH (f, &open_files, link)
		if (f->node == node && f->fh == fh)
			break;
	if (f)
		LIST_REMOVE(f, link);
	pthread_mutex_unlock(&model_lock);
	free(f);
}

static int host_opened(struct cst_fs_call *call, uint64_t fh, unsigned flags, int backing)
{
	struct fake_call *c = (struct fake_call *)call;
	c->fh = fh;
	c->flags = flags;
	c->backing = backing;
	must(!!backing == !!(flags & CST_FS_PASSTHROUGH), "an id comes with the flag");
	if (c->node && !c->refuse)
		model_open(c->node, fh, backing);
	return finish(call, 0);
}
static int host_created(struct cst_fs_call *call, const struct cst_fs_entry *entry, uint64_t fh, unsigned flags,
			int backing)
{
	struct fake_call *c = (struct fake_call *)call;
	c->entry = *entry;
	c->fh = fh;
	c->flags = flags;
	must(flags == CST_FS_DIRECT_IO && !backing, "a new file is written without pages");
	if (!c->refuse)
		model_open(entry->node, fh, 0);
	return finish(call, 0);
}
static void host_written(struct cst_fs_call *call, uint32_t size)
{
	((struct fake_call *)call)->written = size;
	finish(call, 0);
}
static void host_data(struct cst_fs_call *call, const struct iovec *iov, int count)
{
	struct fake_call *c = (struct fake_call *)call;
	for (int i = 0; i < count; i++)
		cst_buf_add(&c->data, iov[i].iov_base, iov[i].iov_len);
	finish(call, 0);
}
static void host_text(struct cst_fs_call *call, struct cst_slice text)
{
	cst_buf_add_slice(&((struct fake_call *)call)->data, text);
	finish(call, 0);
}
static void host_statfs(struct cst_fs_call *call, const struct statvfs *st)
{
	finish(call, st->f_namemax == CST_NAME_MAX ? 0 : -EIO);
}
static int host_dirent(struct cst_fs_call *call, const struct cst_fs_dirent *d)
{
	struct fake_call *c = (struct fake_call *)call;
	if (c->count == c->room)
		return -ENOSPC;
	c->entries = cst_xrealloc(c->entries, (c->count + 1) * sizeof(*c->entries));
	struct fake_dirent *e = &c->entries[c->count++];
	memset(e, 0, sizeof(*e));
	memcpy(e->name, d->name.data, d->name.len);
	e->ino = d->ino;
	e->next = d->next;
	e->type = d->type;
	e->node = d->entry ? d->entry->node : 0;
	return 0;
}
static int host_dirents_end(struct cst_fs_call *call)
{
	return finish(call, 0);
}
static void host_invalidate(void *host, uint64_t node, int64_t offset, int64_t length)
{
	(void)host;
	(void)offset;
	(void)length;
	__atomic_store_n(&fake_invalidated, node, __ATOMIC_RELAXED);
}
static void host_expire(void *host, uint64_t parent, struct cst_slice name)
{
	(void)host;
	pthread_mutex_lock(&model_lock);
	cst_buf_printf(&fake_expired, "%llu/%.*s ", (unsigned long long)parent, (int)name.len, name.data);
	pthread_mutex_unlock(&model_lock);
}

bool fake_was_expired(uint64_t parent, const char *name)
{
	CST_AUTO_FREE char *wanted = cst_xasprintf("%llu/%s ", (unsigned long long)parent, name);
	pthread_mutex_lock(&model_lock);
	bool was = fake_expired.len > 0 && strstr(fake_expired.data, wanted);
	pthread_mutex_unlock(&model_lock);
	return was;
}

static const struct cst_fs_host host = {
	.error = host_error,
	.entry = host_entry,
	.attr = host_attr,
	.opened = host_opened,
	.created = host_created,
	.written = host_written,
	.data = host_data,
	.text = host_text,
	.statfs = host_statfs,
	.xattr = host_text,
	.dirent = host_dirent,
	.dirents_end = host_dirents_end,
	.invalidate_node = host_invalidate,
	.expire_name = host_expire,
	.open_files = host_open_files,
	.backing_open = backing_open,
	.backing_close = backing_close,
};

void fake_config(struct fake_mount *m)
{
	*m = (struct fake_mount){.bucket = fake_bucket_new()};
	m->fetch = fake_fetch_new(m->bucket);
	m->config = (struct cst_fs_config){
		.bucket = m->bucket,
		.fetch = m->fetch,
		.prefix = "",
		.uid = 1000,
		.gid = 1001,
		.file_mode = 0644,
		.dir_mode = 0755,
		.attr_ttl = CST_NS_PER_S,
		.entry_ttl = CST_NS_PER_S,
		.list_ttl = 60 * CST_NS_PER_S,
		.symlinks = true,
		.clock = fake_clock,
	};
}

void fake_with_cache(struct fake_mount *m)
{
	m->cache = m->config.cache = fake_cache_new();
	m->config.passthrough = true;
}

void fake_with_writes(struct fake_mount *m)
{
	m->publish = m->config.publish = fake_publish_new(m->bucket);
	m->config.write = CST_FS_WRITE_APPEND;
}

void fake_start(struct fake_mount *m)
{
	struct cst_error err = CST_ERROR_INIT;
	m->fs = cst_fs_new(&m->config, &host, &err);
	CST_ASSERT(m->fs != NULL);
	fake_backing = (struct fake_backing){.last = fake_backing.last};
}

void fake_end(struct fake_mount *m)
{
	cst_fs_free(m->fs);
	CST_ASSERT(fake_fetch_objects(m->fetch) == 0);
	CST_ASSERT(fake_backing.live == 0);
	cst_buf_fini(&fake_expired);
	if (m->cache)
		fake_cache_free(m->cache);
	fake_fetch_free(m->fetch);
	fake_bucket_free(m->bucket);
	if (m->publish)
		fake_publish_free(m->publish);
}

int do_lookup(struct fake_mount *m, uint64_t parent, const char *name, struct cst_fs_entry *entry)
{
	struct fake_call *c = call_new();
	cst_fs_lookup(m->fs, &c->call, parent, name);
	int rc = call_wait(c);
	*entry = c->entry;
	call_free(c);
	return rc;
}

int do_path(struct fake_mount *m, const char *path, struct cst_fs_entry *entry)
{
	struct cst_slice rest = cst_slice_of(path);
	uint64_t node = CST_FS_ROOT;
	int rc = 0;
	while (rc == 0 && rest.len > 0) {
		struct cst_slice part = cst_slice_cut(&rest, '/');
		char *name = cst_xstrndup(part.data, part.len);
		rc = do_lookup(m, node, name, entry);
		node = entry->node;
		free(name);
	}
	return rc;
}

int do_getattr(struct fake_mount *m, uint64_t node, struct cst_fs_attr *attr)
{
	struct fake_call *c = call_new();
	cst_fs_getattr(m->fs, &c->call, node);
	int rc = call_wait(c);
	*attr = c->attr;
	call_free(c);
	return rc;
}

struct fake_call *do_open_flags(struct fake_mount *m, uint64_t node, uint32_t flags)
{
	struct fake_call *c = call_new();
	c->node = node;
	cst_fs_open(m->fs, &c->call, node, flags);
	call_wait(c);
	return c;
}

int do_open(struct fake_mount *m, uint64_t node, uint64_t *fh)
{
	struct fake_call *c = do_open_flags(m, node, 0);
	int rc = c->rc;
	*fh = c->fh;
	call_free(c);
	return rc;
}

int do_read(struct fake_mount *m, uint64_t node, uint64_t fh, uint64_t offset, uint32_t size, struct cst_buf *data)
{
	struct fake_call *c = call_new();
	cst_fs_read(m->fs, &c->call, node, fh, offset, size);
	int rc = call_wait(c);
	cst_buf_clear(data);
	cst_buf_add_slice(data, cst_buf_slice(&c->data));
	call_free(c);
	return rc;
}

void do_release(struct fake_mount *m, uint64_t node, uint64_t fh)
{
	struct fake_call *c = call_new();
	model_release(node, fh);
	cst_fs_release(m->fs, &c->call, node, fh);
	call_wait(c);
	call_free(c);
}

int do_opendir(struct fake_mount *m, uint64_t node, uint64_t *fh)
{
	struct fake_call *c = call_new();
	cst_fs_opendir(m->fs, &c->call, node);
	int rc = call_wait(c);
	*fh = c->fh;
	call_free(c);
	return rc;
}

void do_releasedir(struct fake_mount *m, uint64_t node, uint64_t fh)
{
	struct fake_call *c = call_new();
	cst_fs_releasedir(m->fs, &c->call, node, fh);
	call_wait(c);
	call_free(c);
}

struct fake_call *do_readdir(struct fake_mount *m, uint64_t node, uint64_t fh, uint64_t offset, bool plus,
			     unsigned room)
{
	struct fake_call *c = call_new();
	c->room = room;
	cst_fs_readdir(m->fs, &c->call, node, fh, offset, plus);
	call_wait(c);
	return c;
}

char *do_ls(struct fake_mount *m, uint64_t node, bool plus)
{
	struct cst_buf out = CST_BUF_INIT;
	uint64_t fh, offset = 0;
	int rc = do_opendir(m, node, &fh);
	for (bool more = rc == 0; more;) {
		struct fake_call *c = do_readdir(m, node, fh, offset, plus, 7);
		if (c->rc < 0)
			cst_buf_printf(&out, "error %d ", c->rc);
		for (unsigned i = 0; i < c->count; i++) {
			const struct fake_dirent *e = &c->entries[i];
			offset = e->next;
			if (e->node)
				cst_fs_forget(m->fs, e->node, 1);
			if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
				cst_buf_printf(&out, "%s ", e->name);
		}
		more = c->rc == 0 && c->count > 0;
		call_free(c);
	}
	if (rc == 0)
		do_releasedir(m, node, fh);
	return cst_buf_steal(&out);
}

int do_text(struct fake_mount *m, uint64_t node, const char *xattr, struct cst_buf *out)
{
	struct fake_call *c = call_new();
	if (!xattr)
		cst_fs_readlink(m->fs, &c->call, node);
	else if (!*xattr)
		cst_fs_listxattr(m->fs, &c->call, node);
	else
		cst_fs_getxattr(m->fs, &c->call, node, xattr);
	int rc = call_wait(c);
	cst_buf_clear(out);
	cst_buf_add_slice(out, cst_buf_slice(&c->data));
	call_free(c);
	return rc;
}

struct fake_call *do_create(struct fake_mount *m, uint64_t parent, const char *name, uint32_t flags)
{
	struct fake_call *c = call_new();
	cst_fs_create(m->fs, &c->call, parent, name, 0644, flags);
	call_wait(c);
	return c;
}

static int end_call(struct fake_call *c)
{
	int rc = call_wait(c);
	call_free(c);
	return rc;
}

int do_flush(struct fake_mount *m, uint64_t node, uint64_t fh)
{
	struct fake_call *c = call_new();
	cst_fs_flush(m->fs, &c->call, node, fh);
	return end_call(c);
}

int do_fsync(struct fake_mount *m, uint64_t node, uint64_t fh)
{
	struct fake_call *c = call_new();
	cst_fs_fsync(m->fs, &c->call, node, fh, false);
	return end_call(c);
}

int do_close(struct fake_mount *m, uint64_t node, uint64_t fh)
{
	int rc = do_flush(m, node, fh);
	do_release(m, node, fh);
	return rc;
}

int do_write(struct fake_mount *m, uint64_t node, uint64_t fh, uint64_t offset, const char *text)
{
	struct fake_call *c = call_new();
	cst_fs_write(m->fs, &c->call, node, fh, offset, cst_slice_of(text));
	int rc = call_wait(c);
	if (rc == 0)
		rc = (int)c->written;
	call_free(c);
	return rc;
}

int do_unlink(struct fake_mount *m, uint64_t parent, const char *name)
{
	struct fake_call *c = call_new();
	cst_fs_unlink(m->fs, &c->call, parent, name);
	return end_call(c);
}

int do_rmdir(struct fake_mount *m, uint64_t parent, const char *name)
{
	struct fake_call *c = call_new();
	cst_fs_rmdir(m->fs, &c->call, parent, name);
	return end_call(c);
}

int do_mkdir(struct fake_mount *m, uint64_t parent, const char *name, struct cst_fs_entry *entry)
{
	struct fake_call *c = call_new();
	cst_fs_mkdir(m->fs, &c->call, parent, name, 0755);
	call_wait(c);
	*entry = c->entry;
	return end_call(c);
}

int do_rename(struct fake_mount *m, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
	      uint32_t flags)
{
	struct fake_call *c = call_new();
	cst_fs_rename(m->fs, &c->call, parent, name, new_parent, new_name, flags);
	return end_call(c);
}

int do_truncate(struct fake_mount *m, uint64_t node, uint64_t size, struct cst_fs_attr *attr)
{
	struct fake_call *c = call_new();
	struct cst_fs_setattr set = {.valid = CST_FS_SET_SIZE, .size = size};
	cst_fs_setattr(m->fs, &c->call, node, &set);
	call_wait(c);
	*attr = c->attr;
	return end_call(c);
}

int do_put(struct fake_mount *m, uint64_t parent, const char *name, const char *text)
{
	struct fake_call *c = do_create(m, parent, name, O_WRONLY);
	int rc = c->rc;
	if (rc == 0) {
		rc = do_write(m, c->entry.node, c->fh, 0, text);
		int closed = do_close(m, c->entry.node, c->fh);
		rc = rc < 0 ? rc : closed;
		cst_fs_forget(m->fs, c->entry.node, 1);
	}
	call_free(c);
	return rc;
}
