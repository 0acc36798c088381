#include "fuse/init.h"

#include <errno.h>
#include <string.h>

#define READ_PAGE 4096u
/* The largest READ a kernel without a raised fs.fuse.max_pages_limit accepts: 256 pages. */
#define PAGES_MAX 256u
/* The smallest the kernel allows; nothing is written on a read-only mount, and a reader's buffer must hold a whole WRITE. */
#define WRITE_MIN 4096u
#define BACKGROUND_MAX 256u
/* A file that opens are passed through to lies on no stacked file system, so that ours may be stacked upon. */
#define STACK_DEPTH 1u
/* Readers that the store stalls may hold this many windows of read-ahead, of two requests each; what others then still have. */
#define STALLED_READERS 64u
#define BACKGROUND_SPARE 32u

/* A background READ (all buffered reading is of that kind) asks for up to 1 MiB. More than the budget can serve at once only make the
 * queue longer; but a request that waits holds none of it, and at the limit every buffered reader of the mount waits, so the limit never
 * falls below what 64 stalled readers hold. */
uint32_t cst_fuse_init_background(unsigned wanted, uint64_t memory, uint32_t read_ahead_kb)
{
	uint64_t windows = read_ahead_kb <= 1024 ? 2 : read_ahead_kb <= 2048 ? 3 : 4;
	uint64_t least = cst_min(STALLED_READERS * windows + BACKGROUND_SPARE, (uint64_t)BACKGROUND_MAX);
	uint64_t n = memory / (UINT64_C(1) << 20);

	n = wanted ? wanted : cst_min(cst_max(n, least), (uint64_t)BACKGROUND_MAX);
	return (uint32_t)cst_min(n, (uint64_t)UINT16_MAX);
}

static uint64_t wanted_flags(const struct cst_fuse_init_wish *wish)
{
	/* Not asked for: POSIX_LOCKS and FLOCK_LOCKS (kernel-local locks outlive a restart), WRITEBACK_CACHE (it excludes passthrough
	 * and hides write errors), READDIRPLUS_AUTO (it instantiates only some entries), EXPORT_SUPPORT, NO_OPEN_SUPPORT, CACHE_SYMLINKS (for ever, and nothing
	 * tells the kernel that a symlink object points elsewhere now). */
	uint64_t flags = CST_KFUSE_ASYNC_READ | CST_KFUSE_ATOMIC_O_TRUNC | CST_KFUSE_BIG_WRITES | CST_KFUSE_ASYNC_DIO |
			 CST_KFUSE_PARALLEL_DIROPS | CST_KFUSE_ABORT_ERROR | CST_KFUSE_MAX_PAGES |
			 CST_KFUSE_HANDLE_KILLPRIV_V2 | CST_KFUSE_INIT_EXT | CST_KFUSE_HAS_EXPIRE_ONLY |
			 CST_KFUSE_DIRECT_IO_ALLOW_MMAP | CST_KFUSE_HAS_RESEND;

	if (wish->readdirplus)
		flags |= CST_KFUSE_DO_READDIRPLUS;
	if (wish->passthrough)
		flags |= CST_KFUSE_PASSTHROUGH;
	/* A changed object gets a new node, so pages of a node never go stale and are dropped on request only. */
	flags |= wish->auto_cache ? CST_KFUSE_AUTO_INVAL_DATA : CST_KFUSE_EXPLICIT_INVAL_DATA;
	return flags;
}

int cst_fuse_init_answer(const struct cst_kfuse_init_in *in, const struct cst_fuse_init_wish *wish,
			 struct cst_kfuse_init_out *out, struct cst_fuse_init_result *result, struct cst_error *err)
{
	uint64_t offered = in->flags;
	uint32_t pages = cst_max(wish->max_read, wish->max_write) / READ_PAGE;

	memset(out, 0, sizeof(*out));
	memset(result, 0, sizeof(*result));
	out->major = CST_KFUSE_MAJOR;
	out->minor = CST_KFUSE_MINOR;
	if (in->major > CST_KFUSE_MAJOR)
		return -EAGAIN;
	if (in->major < CST_KFUSE_MAJOR || in->minor < CST_KFUSE_MINOR_MIN) {
		int rc = cst_error_set(err, EPROTO, "can't serve a file system to this kernel");

		cst_error_why(err, "it speaks FUSE %u.%u; at least %u.%u is needed", in->major, in->minor,
			      CST_KFUSE_MAJOR, CST_KFUSE_MINOR_MIN);
		cst_error_hint(err, "run Linux 5.4 or newer");
		return rc;
	}
	if (offered & CST_KFUSE_INIT_EXT)
		offered |= (uint64_t)in->flags2 << 32;
	result->minor = in->minor < CST_KFUSE_MINOR ? in->minor : CST_KFUSE_MINOR;
	result->flags = offered & wanted_flags(wish);
	result->max_background = cst_fuse_init_background(wish->max_background, wish->memory, wish->read_ahead_kb);
	/* Without MAX_PAGES the kernel sends 32 pages at most. */
	result->max_write = cst_max(wish->max_write & ~(READ_PAGE - 1), WRITE_MIN);

	out->minor = result->minor;
	out->flags = (uint32_t)result->flags;
	out->flags2 = (uint32_t)(result->flags >> 32);
	out->max_readahead = in->max_readahead < wish->max_readahead ? in->max_readahead : wish->max_readahead;
	out->max_background = (uint16_t)result->max_background;
	out->congestion_threshold = (uint16_t)(result->max_background * 3 / 4);
	out->max_write = result->max_write;
	out->time_gran = 1;
	if (result->flags & CST_KFUSE_PASSTHROUGH)
		out->max_stack_depth = STACK_DEPTH;
	if (result->flags & CST_KFUSE_MAX_PAGES)
		out->max_pages = (uint16_t)(pages < 1 ? 1 : pages > PAGES_MAX ? PAGES_MAX : pages);
	return 0;
}
