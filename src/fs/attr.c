/* What stat(2) shows: modes, owners, times. */
#include "fs/writing.h"

static uint32_t permissions(const struct cst_fs_config *c, const struct cst_inode *inode,
			    const struct cst_object_attr *attr)
{
	bool is_dir = cst_inode_is_dir(inode);
	uint32_t mode = is_dir ? c->dir_mode : c->file_mode;
	if (inode->node == CST_NODE_ROOT) /* `umask` is for what is in the mount */
		return c->mountpoint_umask_given ? 0777 & ~c->mountpoint_umask : mode;
	if (inode->kind == CST_KIND_SYMLINK)
		return 0777;
	if (attr && attr->has & CST_ATTR_MODE && !(is_dir ? c->dir_mode_given : c->file_mode_given))
		mode = attr->mode;
	return mode & 07777 & ~c->umask;
}

static void set_time(struct timespec *ts, int64_t ns)
{
	*ts = (struct timespec){ns / CST_NS_PER_S, ns % CST_NS_PER_S};
}

/* While a file is written its size and time are the writer's. */
static bool shown_by_writer(const struct cst_fs *fs, struct cst_inode *inode, uint64_t *size, int64_t *mtime)
{
	if (fs->config.write == CST_FS_WRITE_NONE || inode->kind != CST_KIND_FILE)
		return false;
	cst_inode_lock(fs->table, inode);
	const struct fs_file *file = cst_inode_peek(inode)->file;
	bool writing = file && file->writing;
	if (writing) {
		*size = file->size;
		*mtime = file->mtime;
	}
	cst_inode_unlock(fs->table, inode);
	return writing;
}

int64_t fs_fill_stat(const struct cst_fs *fs, struct cst_inode *inode, struct stat *st)
{
	static const mode_t types[] = {
		[CST_KIND_FILE] = S_IFREG, [CST_KIND_DIR] = S_IFDIR, [CST_KIND_SYMLINK] = S_IFLNK};
	const struct cst_fs_config *c = &fs->config;
	struct cst_entry known = CST_ENTRY_INIT;
	cst_inode_entry(fs->table, inode, &known);
	const struct cst_object_attr *attr = c->attributes == CST_FS_ATTRIBUTES_OBJECT ? known.attr : NULL;
	uint32_t has = attr ? attr->has : 0;
	int64_t changed = known.mtime			? known.mtime * CST_NS_PER_S
			  : attr && attr->last_modified ? attr->last_modified * CST_NS_PER_S
							: fs->mounted;
	int64_t mtime = has & CST_ATTR_MTIME ? attr->mtime : changed;
	int64_t ctime = has & CST_ATTR_CTIME ? attr->ctime : mtime;
	bool writing = shown_by_writer(fs, inode, &known.size, &mtime);
	if (writing)
		ctime = mtime;
	*st = (struct stat){
		.st_ino = inode->ino,
		.st_mode = types[inode->kind] | permissions(c, inode, attr),
		.st_nlink = 1, /* of a directory: the number of subdirectories is not told */
		.st_uid = has & CST_ATTR_UID && !c->uid_given ? attr->uid : c->uid,
		.st_gid = has & CST_ATTR_GID && !c->gid_given ? attr->gid : c->gid,
		.st_blksize = 4096,
	};
	if (inode->kind != CST_KIND_DIR) {
		st->st_size = (off_t)known.size;
		st->st_blocks = (blkcnt_t)((known.size + 511) / 512);
	}
	set_time(&st->st_mtim, mtime);
	set_time(&st->st_ctim, ctime);
	set_time(&st->st_atim, has & CST_ATTR_ATIME ? attr->atime : mtime);
	cst_entry_fini(&known);
	return writing ? 0 : fs->config.attr_ttl;
}

void fs_fill_entry(const struct cst_fs *fs, struct cst_inode *inode, struct cst_fs_entry *entry)
{
	*entry = (struct cst_fs_entry){
		.node = inode->node,
		.generation = cst_inode_table_generation(fs->table),
		.entry_ttl = fs->config.entry_ttl,
	};
	entry->attr.ttl = fs_fill_stat(fs, inode, &entry->attr.st);
}
