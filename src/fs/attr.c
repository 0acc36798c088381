/* What stat(2) shows: modes, owners, times. */
#include "fs/internal.h"

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

void fs_fill_stat(const struct cst_fs *fs, struct cst_inode *inode, struct stat *st)
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
	set_time(&st->st_ctim, has & CST_ATTR_CTIME ? attr->ctime : mtime);
	set_time(&st->st_atim, has & CST_ATTR_ATIME ? attr->atime : mtime);
	cst_entry_fini(&known);
}

void fs_fill_entry(const struct cst_fs *fs, struct cst_inode *inode, struct cst_fs_entry *entry)
{
	*entry = (struct cst_fs_entry){
		.node = inode->node,
		.generation = cst_inode_table_generation(fs->table),
		.entry_ttl = fs->config.entry_ttl,
		.attr.ttl = fs->config.attr_ttl,
	};
	fs_fill_stat(fs, inode, &entry->attr.st);
}
