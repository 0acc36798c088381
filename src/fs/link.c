/* What one more request about an object tells: targets of symbolic links, extended attributes.
 *
 * Extended attributes: user.oss.etag, user.oss.storage-class, user.oss.type, user.oss.crc64, user.oss.meta.NAME for each x-oss-meta-NAME;
 * with attributes=object also those that ossfs 1.0 put into x-oss-meta-xattr, under the names they had. */
#define CST_LOG_AREA "fs"
#include "fs/internal.h"

#include "base/text.h"

#include <inttypes.h>

#define TARGET_MAX 4096 /* PATH_MAX */
#define PREFIX "user.oss."
#define META PREFIX "meta."

/* One request to the store on behalf of a call. */
struct object_call {
	struct fs_wait w;
	struct cst_inode *inode; /* counted */
	struct cst_object_op *op;
	struct cst_buf key;
	struct iovec into;
	int64_t started; /* readlink */
	char *name;	 /* getxattr; NULL: list */
	char target[TARGET_MAX];
};

static bool object_call_leave(struct fs_wait *w)
{
	struct object_call *o = cst_container_of(w, struct object_call, w);
	cst_object_cancel(o->op);
	return false; /* its callback still comes */
}

static void object_call_free(struct fs_wait *w)
{
	struct object_call *o = cst_container_of(w, struct object_call, w);
	cst_object_release(o->op);
	cst_inode_unref(w->fs->table, o->inode);
	cst_buf_fini(&o->key);
	free(o->name);
	free(o);
}

static struct object_call *object_call_new(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode)
{
	struct object_call *o = CST_NEW(struct object_call);
	o->inode = cst_inode_ref(fs->table, inode);
	fs_key(fs, inode, &o->key);
	fs_wait_arm(&o->w, fs, call, object_call_leave, object_call_free);
	return o;
}

static void object_call_fail(struct object_call *o, int rc, const char *what, const struct cst_error *err)
{
	struct cst_fs_call *call = fs_wait_end(&o->w);
	if (rc == -ECANCELED)
		rc = -EINTR;
	if (rc == -ENOENT || rc == -ESTALE) { /* gone, or another one */
		fs_doubt(o->w.fs, o->inode);
		rc = -ESTALE;
	}
	o->w.fs->host->error(call, fs_errno(o->w.fs, rc, what, cst_buf_slice(&o->key), err));
	fs_wait_unref(&o->w);
}

/* A symlink object names a key of the bucket; a link holds a path. Keys below the mount become relative to the link's place. What
 * starts like a path ("/", "./", "../") was written by a program that meant a path. */
static void relative_target(const struct object_call *o, struct cst_slice key, struct cst_buf *out)
{
	struct cst_slice prefix = cst_slice_of(o->w.fs->prefix), own = cst_buf_slice(&o->key);
	bool is_path = cst_slice_starts(key, CST_SLICE("/")) || cst_slice_starts(key, CST_SLICE("./")) ||
		       cst_slice_starts(key, CST_SLICE("../"));
	if (is_path || !cst_slice_starts(key, prefix)) {
		cst_buf_add_slice(out, key);
		return;
	}
	size_t common = prefix.len; /* of whole parts */
	for (size_t i = prefix.len; i < own.len && i < key.len && own.data[i] == key.data[i]; i++) {
		if (own.data[i] == '/')
			common = i + 1;
	}
	for (size_t i = common; i < own.len; i++) {
		if (own.data[i] == '/')
			cst_buf_add_str(out, "../");
	}
	cst_buf_add(out, key.data + common, key.len - common);
	if (out->len == 0)
		cst_buf_add_char(out, '.');
}

static void keep_target(struct object_call *o, struct cst_slice target)
{
	struct cst_inode_table *table = o->w.fs->table;
	char *made = cst_xstrndup(target.data, target.len), *unused = made;
	cst_inode_lock(table, o->inode);
	struct cst_inode_more *more = cst_inode_more(o->inode);
	if (!more->link || o->started >= more->link_at) {
		unused = more->link;
		more->link = made;
		more->link_at = o->started;
	}
	cst_inode_unlock(table, o->inode);
	free(unused);
}

/* The target as it is known, or NULL when the store must be asked. The kernel doesn't keep targets: it would for ever, and a symlink object
 * that points elsewhere now is still the same node. One whose target is its content has versions. */
static char *known_target(struct cst_fs *fs, struct cst_inode *inode, const struct cst_entry *version)
{
	char *target = NULL;
	cst_inode_lock(fs->table, inode);
	const struct cst_inode_more *more = cst_inode_peek(inode);
	if (more->link && (version->etag[0] || fs_is_fresh(fs, more->link_at)))
		target = cst_xstrdup(more->link);
	cst_inode_unlock(fs->table, inode);
	return target;
}

static void reply_target(struct object_call *o, struct cst_slice target)
{
	struct cst_fs_call *call = fs_wait_end(&o->w);
	if (target.len == 0 || target.len >= TARGET_MAX || memchr(target.data, 0, target.len)) {
		o->w.fs->host->error(call, -EIO);
	} else {
		keep_target(o, target);
		o->w.fs->host->text(call, target);
	}
	fs_wait_unref(&o->w);
}

static void symlink_done(void *arg, int rc, struct cst_slice target, const struct cst_error *err)
{
	struct object_call *o = arg;
	CST_AUTO_BUF path = CST_BUF_INIT;
	if (rc < 0) {
		object_call_fail(o, rc, "can't read the link", err);
		return;
	}
	relative_target(o, target, &path);
	reply_target(o, cst_buf_slice(&path));
}

static void body_done(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct object_call *o = arg;
	(void)info;
	if (rc < 0)
		object_call_fail(o, rc, "can't read the link", err);
	else
		reply_target(o, (struct cst_slice){o->target, strnlen(o->target, got)});
}

void cst_fs_readlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	if (!inode || inode->kind != CST_KIND_SYMLINK) {
		cst_inode_unref(fs->table, inode);
		fs->host->error(call, inode ? -EINVAL : -ESTALE);
		return;
	}
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	cst_inode_entry(fs->table, inode, &version);
	CST_AUTO_FREE char *known = known_target(fs, inode, &version);
	if (known) {
		fs->host->text(call, cst_slice_of(known));
		cst_inode_unref(fs->table, inode);
		return;
	}
	struct object_call *o = object_call_new(fs, call, inode);
	o->started = fs->config.clock();
	if (version.type == CST_OBJECT_SYMLINK) {
		o->op = cst_object_get_symlink(fs->config.bucket, cst_buf_slice(&o->key), symlink_done, o);
	} else {
		o->into = (struct iovec){o->target, sizeof(o->target)};
		struct cst_object_get get = {
			.key = cst_buf_slice(&o->key),
			.length = sizeof(o->target),
			.if_match = version.etag[0] ? version.etag : NULL,
			.into = &o->into,
			.into_count = 1,
		};
		o->op = cst_object_get(fs->config.bucket, &get, body_done, o);
	}
	fs_wait_started(&o->w);
	cst_inode_unref(fs->table, inode);
}

static const char *type_name(enum cst_object_type type)
{
	static const char *const names[] = {[CST_OBJECT_NORMAL] = "Normal",
					    [CST_OBJECT_MULTIPART] = "Multipart",
					    [CST_OBJECT_APPENDABLE] = "Appendable",
					    [CST_OBJECT_SYMLINK] = "Symlink"};
	return names[type];
}

/* Each attribute goes to `each` until it returns false. */
typedef bool (*each_fn)(void *arg, struct cst_slice name, struct cst_slice value);

/* ossfs 1.0: percent-encoded {"name":"base64",…}. What doesn't look so ends the list. */
static bool stored_xattrs(struct cst_slice stored, each_fn each, void *arg)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_BUF value = CST_BUF_INIT;
	if (cst_text_url_decode(&text, stored, false) < 0)
		return true;
	struct cst_slice rest = cst_buf_slice(&text);
	cst_slice_cut(&rest, '{');
	while (rest.len > 0) {
		cst_slice_cut(&rest, '"');
		struct cst_slice name = cst_slice_cut(&rest, '"');
		struct cst_slice colon = cst_slice_trim(cst_slice_cut(&rest, '"'));
		struct cst_slice encoded = cst_slice_cut(&rest, '"');
		if (name.len == 0 || name.len > CST_NAME_MAX || !cst_slice_is(colon, ":"))
			return true;
		cst_buf_clear(&value);
		if (cst_text_unbase64(&value, encoded) == 0 && !each(arg, name, cst_buf_slice(&value)))
			return false;
	}
	return true;
}

static void each_xattr(const struct cst_fs *fs, const struct cst_object_info *info, each_fn each, void *arg)
{
	char crc[24];
	struct cst_slice etag = cst_slice_of(info->etag), class = cst_slice_of(info->storage_class);
	if (etag.len > 0 && !each(arg, CST_SLICE(PREFIX "etag"), etag))
		return;
	if (class.len > 0 && !each(arg, CST_SLICE(PREFIX "storage-class"), class))
		return;
	if (!each(arg, CST_SLICE(PREFIX "type"), cst_slice_of(type_name(info->type))))
		return;
	snprintf(crc, sizeof(crc), "%" PRIu64, info->crc64);
	if (info->has_crc64 && !each(arg, CST_SLICE(PREFIX "crc64"), cst_slice_of(crc)))
		return;
	for (size_t i = 0; i < info->meta_count; i++) {
		const struct cst_http_header *m = &info->meta[i];
		CST_AUTO_BUF name = CST_BUF_INIT;
		cst_buf_add_str(&name, META);
		cst_buf_add_slice(&name, m->name);
		if (name.len <= CST_NAME_MAX && !each(arg, cst_buf_slice(&name), m->value))
			return;
		bool stored = fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT && cst_slice_is(m->name, "xattr");
		if (stored && !stored_xattrs(m->value, each, arg))
			return;
	}
}

struct wanted {
	const char *name;
	struct cst_buf value;
	bool found;
};

static bool take_value(void *arg, struct cst_slice name, struct cst_slice value)
{
	struct wanted *w = arg;
	if (!cst_slice_is(name, w->name))
		return true;
	cst_buf_add_slice(&w->value, value);
	w->found = true;
	return false;
}

static bool take_name(void *arg, struct cst_slice name, struct cst_slice value)
{
	struct wanted *w = arg;
	(void)value;
	cst_buf_add_slice(&w->value, name);
	cst_buf_add_char(&w->value, 0);
	return true;
}

static void xattr_done(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct object_call *o = arg;
	struct cst_fs *fs = o->w.fs;
	struct wanted wanted = {.name = o->name};
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	cst_inode_entry(fs->table, o->inode, &version);
	if (rc == 0 && version.etag[0] && strcmp(info->etag, version.etag) != 0)
		rc = -ESTALE;
	if (rc < 0) {
		object_call_fail(o, rc, "can't get the extended attributes of", err);
		return;
	}
	each_xattr(fs, info, o->name ? take_value : take_name, &wanted);
	struct cst_fs_call *call = fs_wait_end(&o->w);
	if (o->name && !wanted.found)
		fs->host->error(call, -ENODATA);
	else
		fs->host->xattr(call, cst_buf_slice(&wanted.value));
	fs_wait_unref(&o->w);
	cst_buf_fini(&wanted.value);
}

static void ask_xattrs(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, const char *name)
{
	struct object_call *o = object_call_new(fs, call, inode);
	o->name = name ? cst_xstrdup(name) : NULL;
	o->op = cst_object_head(fs->config.bucket, cst_buf_slice(&o->key), false, xattr_done, o);
	fs_wait_started(&o->w);
}

/* Could the object have it? Most names programs ask for (ACLs, capabilities, labels) need no request. */
static bool may_have(struct cst_fs *fs, struct cst_inode *inode, const char *name)
{
	if (cst_inode_is_dir(inode))
		return false;
	if (strncmp(name, PREFIX, sizeof(PREFIX) - 1) == 0)
		return true;
	cst_inode_lock(fs->table, inode);
	bool stored =
		fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT && inode->attr && inode->attr->has & CST_ATTR_XATTR;
	cst_inode_unlock(fs->table, inode);
	return stored;
}

void cst_fs_getxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	if (inode)
		cst_inode_entry(fs->table, inode, &version);
	if (!inode)
		fs->host->error(call, -ESTALE);
	else if (!may_have(fs, inode, name))
		fs->host->error(call, -ENODATA);
	else if (strcmp(name, PREFIX "etag") == 0 && version.etag[0])
		fs->host->xattr(call, cst_slice_of(version.etag));
	else
		ask_xattrs(fs, call, inode, name);
	cst_inode_unref(fs->table, inode);
}

void cst_fs_listxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	if (!inode)
		fs->host->error(call, -ESTALE);
	else if (cst_inode_is_dir(inode))
		fs->host->xattr(call, CST_SLICE(""));
	else
		ask_xattrs(fs, call, inode, NULL);
	cst_inode_unref(fs->table, inode);
}
