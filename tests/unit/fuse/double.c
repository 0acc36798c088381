#include "double.h"
#include "double_write.h"

#include "fuse/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define SERVER_LIFE_S 90
#define PATTERN_LEN (1u << 20) /* the pattern of double_byte() repeats after this */

enum {
	HELLO = 2,
	BIG,
	LINK,
	MANY,
	SLOW,
	HANG,
	MANY_BASE = DOUBLE_MANY_INO,
	SLOW_BASE = 200000,
	STALL_BASE = 300000,
	THROUGH_BASE = 400000
};
static const char hello[] = "hello, world\n";

struct parked {
	struct cst_fs_call *call;
	uint64_t node;
	bool lookup;
};
struct cst_fs {
	const struct cst_fs_host *host;
	struct double_board *board;
	pthread_mutex_t lock;
	struct parked parked[4096]; /* under lock */
	unsigned count;
	unsigned char *pattern; /* pattern_len bytes */
	size_t pattern_len;
	bool seen[64]; /* atomic: stalled files */
	unsigned through_version;
	struct {
		int backing;
		unsigned opens;
	} through[64]; /* under lock: versions of /through that are passed through */
};
static struct cst_fs the_fs;

static void add(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

void cst_fs_call_lock(struct cst_fs_call *call)
{
	while (__atomic_exchange_n(&call->lock, 1, __ATOMIC_ACQUIRE))
		;
}
void cst_fs_call_unlock(struct cst_fs_call *call)
{
	__atomic_store_n(&call->lock, 0, __ATOMIC_RELEASE);
}
void cst_fs_call_interrupt(struct cst_fs_call *call)
{
	void (*cancel)(struct cst_fs_call *);

	cst_fs_call_lock(call);
	cancel = call->cancel;
	call->cancel = NULL;
	cst_fs_call_unlock(call);
	if (cancel)
		cancel(call);
}

static bool unpark(struct cst_fs *fs, struct cst_fs_call *call)
{
	bool found = false;

	pthread_mutex_lock(&fs->lock);
	for (unsigned i = 0; i < fs->count && !found; i++) {
		if (fs->parked[i].call == call) {
			fs->parked[i] = fs->parked[--fs->count];
			found = true;
		}
	}
	__atomic_store_n(&fs->board->parked, fs->count, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&fs->lock);
	return found;
}

static void cancel_parked(struct cst_fs_call *call)
{
	if (!unpark(&the_fs, call))
		return;
	add(&the_fs.board->cancels);
	the_fs.host->error(call, -EINTR);
}

static void park(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, bool lookup)
{
	cst_fs_call_lock(call);
	call->cancel = cancel_parked;
	cst_fs_call_unlock(call);
	pthread_mutex_lock(&fs->lock);
	fs->parked[fs->count++] = (struct parked){call, node, lookup};
	__atomic_store_n(&fs->board->parked, fs->count, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&fs->lock);
}

static mode_t mode_of(uint64_t node)
{
	if (node == CST_FS_ROOT || node == MANY || node == SLOW || node == DOUBLE_NEW_DIR)
		return S_IFDIR | 0755;
	return node == LINK || node == DOUBLE_NEW_LINK ? S_IFLNK | 0777 : S_IFREG | 0644;
}

static uint64_t size_of(const struct cst_fs *fs, uint64_t node)
{
	if (node == HELLO)
		return sizeof(hello) - 1;
	if (node == BIG)
		return fs->board->big_size ? fs->board->big_size : DOUBLE_BIG;
	if (node == LINK)
		return 5;
	if (node >= DOUBLE_OUT)
		return fs->board->out_size;
	if (node >= THROUGH_BASE)
		return DOUBLE_THROUGH;
	return node >= STALL_BASE ? 1 << 30 : node == HANG ? 1 << 20 : 0;
}

static void fill_attr(const struct cst_fs *fs, uint64_t node, struct cst_fs_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->st.st_ino = node;
	a->st.st_mode = mode_of(node);
	a->st.st_nlink = 1;
	a->st.st_size = (off_t)size_of(fs, node);
	a->st.st_blocks = (a->st.st_size + 511) / 512;
	a->st.st_blksize = 4096;
	a->st.st_mtim = (struct timespec){1700000000, 123456789};
	a->ttl = INT64_C(3600) * 1000000000;
}

static void fill_entry(const struct cst_fs *fs, uint64_t node, struct cst_fs_entry *e)
{
	memset(e, 0, sizeof(*e));
	e->node = node;
	e->generation = 1;
	e->entry_ttl = INT64_C(3600) * 1000000000;
	fill_attr(fs, node, &e->attr);
}

static uint64_t find(uint64_t parent, const char *name)
{
	static const struct {
		const char *name;
		uint64_t node;
	} names[] = {{"hello", HELLO}, {"big", BIG}, {"link", LINK}, {"many", MANY}, {"slow", SLOW}, {"hang", HANG}};
	int n;

	if (parent == MANY && sscanf(name, "file-%d", &n) == 1 && n >= 0 && n < DOUBLE_MANY)
		return MANY_BASE + (uint64_t)n;
	if (parent == SLOW && sscanf(name, "name-%d", &n) == 1)
		return SLOW_BASE + (uint64_t)n;
	if (parent != CST_FS_ROOT)
		return 0;
	if (strcmp(name, "out") == 0)
		return DOUBLE_OUT;
	if (strcmp(name, "through") == 0)
		return THROUGH_BASE + __atomic_load_n(&the_fs.through_version, __ATOMIC_SEQ_CST);
	if (sscanf(name, "stall-%d", &n) == 1 && n >= 0 && n < 64)
		return STALL_BASE + (uint64_t)n;
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++)
		if (strcmp(name, names[i].name) == 0)
			return names[i].node;
	return 0;
}

static void answer_lookup(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	struct cst_fs_entry e;

	fill_entry(fs, node, &e);
	(void)fs->host->entry(call, &e);
}

/* Answers all that waits (lookups or reads), as one reply lets the next request in. */
static void release_parked(struct cst_fs *fs, bool lookups)
{
	for (;;) {
		struct parked p = {0};

		pthread_mutex_lock(&fs->lock);
		for (unsigned i = 0; i < fs->count; i++) {
			if (fs->parked[i].lookup == lookups && fs->parked[i].node != HANG) {
				p = fs->parked[i];
				fs->parked[i] = fs->parked[--fs->count];
				break;
			}
		}
		__atomic_store_n(&fs->board->parked, fs->count, __ATOMIC_SEQ_CST);
		pthread_mutex_unlock(&fs->lock);
		if (!p.call)
			return;
		cst_fs_call_lock(p.call);
		p.call->cancel = NULL;
		cst_fs_call_unlock(p.call);
		if (lookups)
			answer_lookup(fs, p.call, p.node);
		else
			fs->host->error(p.call, -EIO);
	}
}

void cst_fs_lookup(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	uint64_t node = find(parent, name);

	add(&fs->board->lookups);
	if (!node) {
		fs->host->error(call, -ENOENT);
	} else if (node >= SLOW_BASE && node < STALL_BASE && fs->board->lookup_gate) {
		park(fs, call, node, true);
		if (__atomic_load_n(&fs->board->parked, __ATOMIC_SEQ_CST) >= (uint64_t)fs->board->lookup_gate)
			release_parked(fs, true);
	} else {
		answer_lookup(fs, call, node);
	}
}
void cst_fs_forget(struct cst_fs *fs, uint64_t node, uint64_t count)
{
	(void)node;
	__atomic_fetch_add(&fs->board->forgets, count, __ATOMIC_SEQ_CST);
}
void cst_fs_getattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	struct cst_fs_attr a;

	add(&fs->board->getattrs);
	fill_attr(fs, node, &a);
	fs->host->attr(call, &a);
}
void cst_fs_readlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	(void)node;
	fs->host->text(call, CST_SLICE("hello"));
}

/* The first open of a node decides, as in the file system; one that wants another mode is answered ESTALE and finds another node. */
static void open_through(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	unsigned v = (unsigned)(node - THROUGH_BASE);
	bool wanted = __atomic_load_n(&fs->board->through, __ATOMIC_SEQ_CST);
	int backing = 0;

	pthread_mutex_lock(&fs->lock);
	if (fs->through[v].opens > 0 && !wanted) {
		pthread_mutex_unlock(&fs->lock);
		__atomic_fetch_add(&fs->through_version, 1, __ATOMIC_SEQ_CST);
		add(&fs->board->stale_opens);
		fs->host->error(call, -ESTALE);
		return;
	}
	if (wanted && fs->through[v].opens == 0) {
		CST_AUTO_CLOSE int fd = open(fs->board->through_path, O_RDONLY | O_CLOEXEC);

		backing = fs->host->backing_open(fs->host->host, fd);
		if (backing > 0)
			add(&fs->board->backing_ids);
		else
			fs->board->backing_error = (uint64_t)-backing;
		fs->through[v].backing = backing;
	}
	backing = wanted && fs->through[v].backing > 0 ? fs->through[v].backing : 0;
	fs->through[v].opens += backing > 0;
	pthread_mutex_unlock(&fs->lock);
	(void)fs->host->opened(call, backing > 0 ? 7 : 8, backing > 0 ? CST_FS_PASSTHROUGH : CST_FS_KEEP_CACHE,
			       backing);
}

static void release_through(struct cst_fs *fs, uint64_t node, uint64_t fh)
{
	unsigned v = (unsigned)(node - THROUGH_BASE);

	pthread_mutex_lock(&fs->lock);
	if (fh == 7 && --fs->through[v].opens == 0) {
		fs->host->backing_close(fs->host->host, fs->through[v].backing);
		__atomic_fetch_sub(&fs->board->backing_ids, 1, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&fs->lock);
}

void cst_fs_open(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint32_t flags)
{
	add(&fs->board->opens);
	if (node == DOUBLE_OUT) {
		double_log(fs, "open %s%s", (flags & O_ACCMODE) == O_RDONLY ? "r" : "w",
			   flags & O_TRUNC ? " trunc" : "");
		(void)fs->host->opened(call, 77, (unsigned)fs->board->open_flags, 0);
		return;
	}
	if (node >= THROUGH_BASE && node < THROUGH_BASE + 64) {
		open_through(fs, call, node);
		return;
	}
	(void)fs->host->opened(
		call, node,
		(fs->board->direct_io ? CST_FS_DIRECT_IO : 0) | (fs->board->keep_cache ? CST_FS_KEEP_CACHE : 0), 0);
}

static void read_big(struct cst_fs *fs, struct cst_fs_call *call, uint64_t offset, uint32_t size)
{
	struct iovec iov[8];
	uint64_t all = size_of(fs, BIG);
	int n = 0;

	for (uint64_t left = offset < all ? cst_min((uint64_t)size, all - offset) : 0; left > 0;) {
		uint64_t at = offset % fs->pattern_len, len = cst_min(left, PATTERN_LEN - at % PATTERN_LEN);

		iov[n++] = (struct iovec){fs->pattern + at, len};
		offset += len;
		left -= len;
	}
	fs->host->data(call, iov, n);
}

static void read_stalling(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t offset, uint32_t size)
{
	static char zeroes[1 << 20];
	struct iovec iov = {zeroes, size};

	if (offset + size <= fs->board->stall_from || __atomic_load_n(&fs->board->stall_open, __ATOMIC_SEQ_CST)) {
		fs->host->data(call, &iov, 1);
		return;
	}
	park(fs, call, node, false);
	if (!__atomic_exchange_n(&fs->seen[node - STALL_BASE], true, __ATOMIC_SEQ_CST))
		add(&fs->board->stalled_files);
}

void cst_fs_read(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		 uint32_t size)
{
	uint64_t max = __atomic_load_n(&fs->board->max_size, __ATOMIC_SEQ_CST);

	add(&fs->board->reads);
	while (size > max && !__atomic_compare_exchange_n(&fs->board->max_size, &max, size, false, __ATOMIC_SEQ_CST,
							  __ATOMIC_SEQ_CST))
		;
	(void)fh;
	if (node >= DOUBLE_OUT) {
		uint64_t all = fs->board->out_size;
		struct iovec iov = {fs->board->out + offset, offset < all ? cst_min((uint64_t)size, all - offset) : 0};

		fs->host->data(call, &iov, 1);
	} else if (node >= THROUGH_BASE) {
		static char bytes[1 << 20];
		struct iovec iov = {bytes,
				    offset < DOUBLE_THROUGH ? cst_min((uint64_t)size, DOUBLE_THROUGH - offset) : 0};

		memset(bytes, 'r', sizeof(bytes));
		fs->host->data(call, &iov, 1);
	} else if (node == BIG) {
		read_big(fs, call, offset, size);
	} else if (node == HANG) {
		park(fs, call, node, false);
	} else if (node >= STALL_BASE) {
		read_stalling(fs, call, node, offset, size);
	} else if (node == HELLO && offset < sizeof(hello) - 1) {
		struct iovec iov = {(void *)(uintptr_t)(hello + offset),
				    cst_min((size_t)size, sizeof(hello) - 1 - offset)};

		fs->host->data(call, &iov, 1);
	} else {
		fs->host->data(call, NULL, 0);
	}
}
void cst_fs_release(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	if (node >= THROUGH_BASE && node < DOUBLE_OUT)
		release_through(fs, node, fh);
	fs->host->error(call, 0);
}
void cst_fs_opendir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	(void)fs->host->opened(call, node, 0, 0);
}
void cst_fs_readdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset, bool plus)
{
	uint64_t count = node == MANY ? DOUBLE_MANY : 0;

	(void)fh;
	add(&fs->board->readdirs);
	for (uint64_t i = offset; i < count; i++) {
		char name[32];
		struct cst_fs_entry e;
		struct cst_fs_dirent d = {.ino = MANY_BASE + i, .next = i + 1, .type = DT_REG};

		snprintf(name, sizeof(name), "file-%llu", (unsigned long long)i);
		d.name = cst_slice_of(name);
		fill_entry(fs, MANY_BASE + i, &e);
		d.entry = plus ? &e : NULL;
		if (fs->host->dirent(call, &d) < 0)
			break;
	}
	(void)fs->host->dirents_end(call);
}
void cst_fs_releasedir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	cst_fs_release(fs, call, node, fh);
}
void cst_fs_statfs(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	struct statvfs st = {.f_bsize = 1 << 20,
			     .f_frsize = 4096,
			     .f_blocks = 1000,
			     .f_bfree = 500,
			     .f_bavail = 400,
			     .f_namemax = 255};

	(void)node;
	fs->host->statfs(call, &st);
}
void cst_fs_access(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint32_t mask)
{
	(void)node;
	fs->host->error(call, mask & 2 ? -EROFS : 0);
}
void cst_fs_getxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name)
{
	(void)node;
	if (strcmp(name, "user.color") != 0)
		fs->host->error(call, -ENODATA);
	else
		fs->host->xattr(call, CST_SLICE("blue"));
}
void cst_fs_listxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	(void)node;
	fs->host->xattr(call, (struct cst_slice){"user.color", 11});
}
const struct cst_fs_host *double_host(const struct cst_fs *fs)
{
	return fs->host;
}
struct double_board *double_board_of(const struct cst_fs *fs)
{
	return fs->board;
}
void double_fill_entry(const struct cst_fs *fs, uint64_t node, struct cst_fs_entry *e)
{
	fill_entry(fs, node, e);
}
void cst_fs_refuse_write(struct cst_fs *fs, struct cst_fs_call *call, const char *what)
{
	double_log(fs, "refused %s", what);
	add(&fs->board->refused);
	fs->host->error(call, -EROFS);
}

/* What a supervisor does after a restart of the server. */
static void resend(const struct cst_fuse *fuse)
{
	struct cst_kfuse_out_header h = {sizeof(h), CST_KFUSE_NOTIFY_RESEND, 0};

	if (write(fuse->channels[0].fd, &h, sizeof(h)) != sizeof(h))
		abort();
}

static void obey(struct cst_fuse *fuse, struct cst_fs *fs)
{
	switch (__atomic_load_n(&fs->board->order, __ATOMIC_SEQ_CST)) {
	case ORDER_EXPIRE_HELLO:
		fs->host->expire_name(fs->host->host, CST_FS_ROOT, CST_SLICE("hello"));
		break;
	case ORDER_EXPIRE_SLOW:
		fs->host->expire_name(fs->host->host, SLOW, CST_SLICE("name-1"));
		break;
	case ORDER_EXPIRE_FLOOD:
		for (int i = 0; i < 2 * FLOOD; i++) {
			char name[32];

			snprintf(name, sizeof(name), "name-%d", i % FLOOD);
			fs->host->expire_name(fs->host->host, SLOW, cst_slice_of(name));
		}
		break;
	case ORDER_INVALIDATE_HELLO:
		fs->host->invalidate_node(fs->host->host, HELLO, -1, 0);
		break;
	case ORDER_EPOCH:
		(void)cst_fuse_expire_all(fuse);
		break;
	case ORDER_RESEND:
		resend(fuse);
		break;
	case ORDER_RELEASE_STALLED:
		release_parked(fs, false);
		break;
	case ORDER_OPEN_FILES:
		fs->host->open_files(fs->host->host, fs->board->open_files);
		break;
	default:
		break;
	}
	cst_fuse_stats(fuse, &fs->board->stats);
	snprintf(fs->board->passthrough, sizeof(fs->board->passthrough), "%s", fs->board->stats.passthrough);
	pthread_mutex_lock(&fuse->buffers.lock);
	fs->board->buffers = fuse->buffers.count;
	pthread_mutex_unlock(&fuse->buffers.lock);
	pthread_mutex_lock(&fuse->notify.lock);
	__atomic_store_n(&fs->board->notices, fuse->notify.count, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&fuse->notify.lock);
	add(&fs->board->orders_done);
}

static void *signal_main(void *arg)
{
	struct cst_fuse *fuse = arg;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	while (sigwait(&set, &sig) == 0) {
		if (sig == SIGUSR2)
			return NULL;
		if (sig == SIGUSR1)
			obey(fuse, &the_fs);
		else
			cst_fuse_stop(fuse);
	}
	return NULL;
}

static int serve(struct double_board *board, const struct cst_fuse_config *config)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_fuse *fuse = cst_fuse_mount(config, &err);
	pthread_t signals;
	int rc;

	if (!fuse) {
		cst_error_text(&err, board->error, sizeof(board->error));
		__atomic_store_n(&board->mounted, -1, __ATOMIC_SEQ_CST);
		return 1;
	}
	the_fs = (struct cst_fs){.host = cst_fuse_host(fuse), .board = board, .lock = PTHREAD_MUTEX_INITIALIZER};
	the_fs.pattern_len = board->pattern_len ? board->pattern_len : PATTERN_LEN;
	the_fs.pattern = cst_xmalloc(the_fs.pattern_len);
	for (size_t i = 0; i < the_fs.pattern_len; i++)
		the_fs.pattern[i] = double_byte(i % PATTERN_LEN);
	rc = cst_fuse_start(fuse, &the_fs, &err);
	cst_fuse_stats(fuse, &board->stats);
	pthread_create(&signals, NULL, signal_main, fuse);
	__atomic_store_n(&board->mounted, rc < 0 ? -1 : 1, __ATOMIC_SEQ_CST);
	cst_fuse_wait(fuse);
	pthread_kill(signals, SIGUSR2);
	pthread_join(signals, NULL);
	cst_fuse_stats(fuse, &board->stats);
	cst_fuse_free(fuse);
	free(the_fs.pattern);
	return rc < 0;
}

static void child_main(struct double_board *board, const struct cst_fuse_config *config, uid_t uid)
{
	sigset_t set;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(SERVER_LIFE_S);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (uid && (setgid(uid) < 0 || setuid(uid) < 0))
		_exit(99);
	exit(serve(board, config));
}

int double_prepare(struct double_server *s)
{
	if (s->board)
		return 0;
	s->board = mmap(NULL, sizeof(*s->board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s->board != MAP_FAILED)
		return 0;
	s->board = NULL;
	return -1;
}

int double_start(struct double_server *s, const struct cst_fuse_config *config, uid_t uid)
{
	struct cst_fuse_config c = *config;

	memset(s->mnt, 0, sizeof(s->mnt));
	snprintf(s->dir, sizeof(s->dir), "/tmp/cst-fuse-test-XXXXXX");
	if (!mkdtemp(s->dir) || chmod(s->dir, 0755) < 0)
		return -1;
	snprintf(s->mnt, sizeof(s->mnt), "%s/mnt", s->dir);
	if (mkdir(s->mnt, 0755) < 0 || (uid && chown(s->mnt, uid, uid) < 0))
		return -1;
	if (double_prepare(s) < 0)
		return -1;
	s->board->mounted = 0;
	if (!c.mountpoint)
		c.mountpoint = s->mnt;
	fflush(NULL);
	s->pid = fork();
	if (s->pid == 0)
		child_main(s->board, &c, uid);
	while (__atomic_load_n(&s->board->mounted, __ATOMIC_SEQ_CST) == 0) {
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid) { /* died early */
			s->pid = 0;
			return -1;
		}
		usleep(1000);
	}
	return s->board->mounted == 1 ? 0 : -1;
}

int double_wait(struct double_server *s)
{
	int status = 0;

	if (s->pid > 0)
		waitpid(s->pid, &status, 0);
	s->pid = 0;
	rmdir(s->mnt);
	rmdir(s->dir);
	if (s->board)
		munmap(s->board, sizeof(*s->board));
	s->board = NULL;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int double_stop(struct double_server *s)
{
	if (s->pid > 0)
		kill(s->pid, SIGTERM);
	return double_wait(s);
}

void double_order(struct double_server *s, int order)
{
	uint64_t done = __atomic_load_n(&s->board->orders_done, __ATOMIC_SEQ_CST);

	__atomic_store_n(&s->board->order, order, __ATOMIC_SEQ_CST);
	kill(s->pid, SIGUSR1);
	while (__atomic_load_n(&s->board->orders_done, __ATOMIC_SEQ_CST) == done) {
		siginfo_t info = {0};

		if (waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid)
			break; /* it has ended */
		usleep(1000);
	}
}
