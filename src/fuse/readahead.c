/* The kernel's read-ahead, which falls as the number of open files grows: what all of them together may have asked for ahead of need
 * stays within a quarter of the budget. It holds for files opened afterwards: the kernel copies it at open. */
#include "fuse/internal.h"

#define LEAST_KB 128u

static uint64_t share_kb(uint64_t open_files, uint64_t memory)
{
	return memory / 4 / 1024 / cst_max(open_files, UINT64_C(1));
}

static uint32_t step_for(uint64_t share, uint32_t most)
{
	uint32_t kb = LEAST_KB;

	if (share >= most)
		return most;
	while (kb * 2 <= share)
		kb *= 2;
	return cst_min(kb, most);
}

/* Up only when half as many files more would still allow it: a number that goes back and forth across a border changes nothing. */
uint32_t cst_fuse_read_ahead_step(uint64_t open_files, uint64_t memory, uint32_t most, uint32_t now)
{
	uint32_t kb = step_for(share_kb(open_files, memory), most);

	if (kb > now)
		kb = cst_max(step_for(share_kb(open_files + open_files / 2, memory), most), now);
	return kb;
}

void cst_fuse_read_ahead_for(void *host, uint64_t open_files)
{
	struct cst_fuse *fuse = host;
	uint32_t now, kb;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	/* Less than the least is somebody's choice. */
	if (fuse->read_ahead_most <= LEAST_KB || !fuse->wish.memory)
		return;
	now = __atomic_load_n(&fuse->read_ahead_wanted, __ATOMIC_RELAXED);
	kb = cst_fuse_read_ahead_step(open_files, fuse->wish.memory, fuse->read_ahead_most, now);
	if (kb != now && __atomic_exchange_n(&fuse->read_ahead_wanted, kb, __ATOMIC_RELAXED) != kb)
		cst_fuse_notify_read_ahead(fuse);
}

void cst_fuse_read_ahead_write(struct cst_fuse *fuse)
{
	uint32_t kb = __atomic_load_n(&fuse->read_ahead_wanted, __ATOMIC_RELAXED);

	if (kb != __atomic_load_n(&fuse->read_ahead_kb, __ATOMIC_RELAXED))
		__atomic_store_n(&fuse->read_ahead_kb, cst_fuse_mountpoint_read_ahead(&fuse->where, kb),
				 __ATOMIC_RELAXED);
}
