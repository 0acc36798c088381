/* Memory for secrets, and the process-wide measures against showing them. */
#define CST_LOG_AREA "credentials"
#include "object/credentials_internal.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static size_t whole_pages(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	return (size + page - 1) / page * page;
}

void *cst_secret_map(size_t size)
{
	size_t len = whole_pages(size);
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		cst_panic(__FILE__, __LINE__, "out of memory (%zu bytes for credentials)", len);
	if (madvise(p, len, MADV_DONTDUMP) < 0)
		cst_log_debug("can't exclude credential memory from core dumps: errno %d", errno);
	/* RLIMIT_MEMLOCK may forbid it; then a secret could reach the swap device, which is no reason not to run. */
	if (mlock(p, len) < 0)
		cst_log_debug("can't lock credential memory: errno %d", errno);
	return p;
}

void cst_secret_unmap(void *p, size_t size)
{
	if (!p)
		return;
	explicit_bzero(p, size);
	munmap(p, whole_pages(size));
}

void cst_secret_buf_init(struct cst_secret_buf *b, size_t cap)
{
	b->data = cst_secret_map(cap + 1);
	b->len = 0;
	b->cap = cap;
}

void cst_secret_buf_fini(struct cst_secret_buf *b)
{
	if (b->data)
		cst_secret_unmap(b->data, b->cap + 1);
	b->data = NULL;
	b->len = b->cap = 0;
}

int cst_secret_buf_add(struct cst_secret_buf *b, const void *data, size_t len)
{
	if (len > b->cap - b->len)
		return -EFBIG;
	if (len > 0)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

void cst_secret_buf_clear(struct cst_secret_buf *b)
{
	explicit_bzero(b->data, b->len + 1);
	b->len = 0;
}

void cst_process_hide_secrets(void)
{
	/* Signing and TLS copy secrets to stacks and to the heap, where they can't be marked one by one; so no anonymous
	 * memory goes into a dump at all. First the filter, whose file a process that isn't dumpable may not open any more
	 * (unless root). It also binds gcore, which root can always use. 0x10: ELF headers of the mapped files, which is
	 * enough to name the build. */
	CST_AUTO_CLOSE int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0x10", 4) != 4)
		cst_log_debug("can't set the core dump filter: errno %d", errno);
	struct rlimit none = {0, 0};
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		cst_log_debug("can't set the core size limit: errno %d", errno);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		cst_log_debug("can't clear the dumpable flag: errno %d", errno);
}
