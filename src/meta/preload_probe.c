/* The first page below a name, without a delimiter: what is in it tells of all levels below at once.
 *
 * Directories that are in the page from their first key to their last get their whole listings, parked. The one that was asked for gets what the page
 * has of it, and goes on from there when more is wanted. */
#include "meta/preload_private.h"

struct flat {
	struct cst_meta_op op;
	struct cst_dir *dir;	     /* counted */
	struct cst_listing *listing; /* counted; waits for this */
	struct cst_buf prefix, keys; /* keys: struct key, key, ETag */
	int64_t started;
};

struct key {
	uint64_t size;
	int64_t mtime;
	enum cst_object_type type;
	size_t len, etag_len;
};

static void flat_free(struct flat *f)
{
	cst_buf_fini(&f->prefix);
	cst_buf_fini(&f->keys);
	free(f);
}

static void flat_key(void *arg, const struct cst_object_list_entry *entry)
{
	struct flat *f = arg;
	const struct cst_object_info *info = &entry->info;
	struct key key = {info->size, info->mtime, info->type, info->key.len, strlen(info->etag)};
	if (entry->is_prefix)
		return;
	cst_buf_add(&f->keys, &key, sizeof(key));
	cst_buf_add_slice(&f->keys, info->key);
	cst_buf_add(&f->keys, info->etag, key.etag_len);
}

static void flat_restart(void *arg)
{
	struct flat *f = arg;
	cst_buf_clear(&f->keys);
}

static void dir_closed(void *arg, struct cst_slice prefix, int64_t started, struct cst_names *names)
{
	struct flat *f = arg;
	struct cst_installed what = {.started = started, .refreshed = started};
	if (prefix.len == f->prefix.len)
		what.dir = f->dir;
	cst_preload_install(f->dir->meta, prefix, names, &what);
}

/* What the page has of the directory itself. */
static void begin_listing(struct flat *f, struct cst_fold *fold)
{
	struct cst_installed what = {.dir = f->dir, .started = f->started, .refreshed = f->started, .partial = true};
	cst_fold_page(fold);
	cst_preload_install(f->dir->meta, cst_buf_slice(&f->prefix), &fold->open[0].names, &what);
}

static void take(struct flat *f, bool truncated)
{
	struct cst_slice rest = cst_buf_slice(&f->keys);
	struct cst_fold fold;
	int rc = 0;
	cst_fold_init(&fold, cst_buf_slice(&f->prefix), f->started);
	fold.close = dir_closed;
	fold.arg = f;
	while (rest.len > 0 && rc == 0) {
		struct key head;
		struct cst_object_info info = {0};
		memcpy(&head, rest.data, sizeof(head));
		info.size = head.size;
		info.mtime = head.mtime;
		info.type = head.type;
		info.key = (struct cst_slice){rest.data + sizeof(head), head.len};
		memcpy(info.etag, info.key.data + head.len, head.etag_len);
		rest.data += sizeof(head) + head.len + head.etag_len;
		rest.len -= sizeof(head) + head.len + head.etag_len;
		rc = cst_fold_key(&fold, info.key, &info, f->started);
	}
	if (rc == 0 && !truncated)
		cst_fold_end(&fold);
	else if (rc == 0 && fold.any)
		begin_listing(f, &fold);
	cst_fold_fini(&fold);
}

static void flat_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct flat *f = arg;
	(void)err;
	if (rc == 0)
		take(f, page->truncated);
	pthread_mutex_lock(&f->dir->lock);
	bool waits = f->listing->joined;
	f->listing->joined = false;
	pthread_mutex_unlock(&f->dir->lock);
	if (waits) /* it failed, or is of another place by now: as without it */
		cst_listing_kick(f->listing);
	cst_listing_unref(f->listing);
	cst_dir_unref(f->dir);
	if (cst_meta_op_end(&f->op))
		flat_free(f);
}

void cst_listing_begin_flat(struct cst_listing *listing)
{
	static const struct cst_object_list_ops ops = {flat_key, flat_restart, flat_done};
	struct cst_dir *dir = listing->dir;
	struct cst_meta *meta = dir->meta;
	struct flat *f = CST_NEW(struct flat);
	f->dir = cst_dir_ref(dir);
	f->listing = listing;
	f->started = cst_meta_now(meta);
	pthread_mutex_lock(&dir->lock);
	cst_listing_ref_locked(listing);
	cst_buf_add_slice(&f->prefix, cst_dir_prefix(dir));
	pthread_mutex_unlock(&dir->lock);
	struct cst_object_list list = {.prefix = cst_buf_slice(&f->prefix), .max_keys = 1000};
	cst_meta_op_begin(meta, &f->op);
	pthread_mutex_lock(&meta->lock);
	meta->lists++;
	pthread_mutex_unlock(&meta->lock);
	struct cst_object_op *op = cst_object_list(meta->config.bucket, &list, &ops, f);
	if (!cst_meta_op_started(&f->op, op))
		flat_free(f);
}
