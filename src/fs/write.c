/* Operations that change the bucket. */
#define CST_LOG_AREA "fs"
#include "fs/internal.h"

void cst_fs_create(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode,
		   uint32_t flags)
{
	(void)parent, (void)name, (void)mode, (void)flags;
	cst_fs_refuse_write(fs, call, "creating a file was");
}

void cst_fs_mknod(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode)
{
	(void)parent, (void)name, (void)mode;
	cst_fs_refuse_write(fs, call, "creating a file was");
}

void cst_fs_mkdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode)
{
	(void)parent, (void)name, (void)mode;
	cst_fs_refuse_write(fs, call, "making a directory was");
}

void cst_fs_symlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, const char *target)
{
	(void)parent, (void)name, (void)target;
	cst_fs_refuse_write(fs, call, "making a symbolic link was");
}

void cst_fs_unlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	(void)parent, (void)name;
	cst_fs_refuse_write(fs, call, "removing a file was");
}

void cst_fs_rmdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	(void)parent, (void)name;
	cst_fs_refuse_write(fs, call, "removing a directory was");
}

void cst_fs_rename(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint64_t new_parent,
		   const char *new_name, uint32_t flags)
{
	(void)parent, (void)name, (void)new_parent, (void)new_name, (void)flags;
	cst_fs_refuse_write(fs, call, "renaming was");
}

void cst_fs_setattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const struct cst_fs_setattr *set)
{
	(void)node, (void)set;
	cst_fs_refuse_write(fs, call, "changing attributes was");
}

void cst_fs_setxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name,
		     struct cst_slice value, uint32_t flags)
{
	(void)node, (void)name, (void)value, (void)flags;
	cst_fs_refuse_write(fs, call, "setting an extended attribute was");
}

void cst_fs_removexattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name)
{
	(void)node, (void)name;
	cst_fs_refuse_write(fs, call, "removing an extended attribute was");
}

void cst_fs_write(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		  struct cst_slice data)
{
	(void)node, (void)fh, (void)offset, (void)data;
	cst_fs_refuse_write(fs, call, "writing was");
}

/* Nothing was written. */
void cst_fs_flush(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	(void)node, (void)fh;
	fs->host->error(call, 0);
}

void cst_fs_fsync(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, bool data_only)
{
	(void)node, (void)fh, (void)data_only;
	fs->host->error(call, 0);
}

int cst_fs_settle_writes(struct cst_fs *fs, int64_t deadline, struct cst_error *err)
{
	(void)fs, (void)deadline, (void)err;
	return 0;
}
