/* Messages to the kernel. Threads of their own send them: an INVAL_ENTRY waits for lookups in its directory and an INVAL_INODE of a
 * range for reads, which readers and loop threads must be free to answer meanwhile. There are some, so that one that waits holds up nobody else.
 *
 * What waits is kept by node: the names that are to be expired in it, each once, and what of itself is to be dropped. So it is small (a name's length and
 * some ten bytes), and grows up to a bound that only a kernel that takes nothing for long lets it reach; who has many messages lets them settle now and
 * then. What finds it full is told in the log: those changes show when the timeouts end. (An INC_EPOCH would make that good, but it drops every name
 * that isn't in use, and what is mounted on it.)
 *
 * One node's messages are sent by one thread at a time, in no particular order. */
#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define SETTLE_NS (1 * CST_NS_PER_S)
#define STUCK_NS (200 * CST_NS_PER_MS) /* then the kernel waits for a request that is not answered */
#define BYTES_MAX ((size_t)64 << 20)
#define FIRST_BUCKETS 64u
#define FIRST_SEEN 16u
#define BATCH 32u
#define NAME_MOST 255u

/* What the kernel is to hear of one node. */
struct cst_fuse_news {
	TAILQ_ENTRY(cst_fuse_news) link; /* in the queue, or among those being sent */
	struct cst_fuse_news *next;	 /* of its bucket */
	uint64_t node, since;		 /* since: number of its first message */
	int64_t given;			 /* to the kernel, when: those being sent */
	bool drop;			 /* the node itself: */
	int64_t offset, length;
	char *names; /* each after a byte with its length */
	uint32_t names_sent, names_len, names_cap;
	uint32_t *seen; /* places of names, + 1; a hash table */
	uint32_t seen_size, seen_count;
};

static int send_message(const struct cst_fuse *fuse, enum cst_kfuse_notify code, struct iovec *iov, int count)
{
	struct cst_kfuse_out_header h = {.error = code};

	iov[0] = (struct iovec){&h, sizeof(h)};
	for (int i = 0; i < count; i++)
		h.len += (uint32_t)iov[i].iov_len;
	/* ENOENT is normal: the kernel does not know the node or name (any more). */
	return writev(fuse->channels[0].fd, iov, count) < 0 && errno != ENOENT ? -errno : 0;
}

static void complain(int rc, enum cst_kfuse_notify code, uint64_t node)
{
	if (rc < 0 && rc != -ENODEV && rc != -ENOTCONN && rc != -ECONNABORTED && rc != -EBADF)
		cst_log_warn("the kernel refused notification %d for node %llu: %s", (int)code,
			     (unsigned long long)node, strerror(-rc));
}

static void send_node(const struct cst_fuse *fuse, uint64_t node, int64_t offset, int64_t length)
{
	struct cst_kfuse_inval_inode_out out = {node, offset, length};
	struct iovec iov[2] = {[1] = {&out, sizeof(out)}};

	complain(send_message(fuse, CST_KFUSE_NOTIFY_INVAL_INODE, iov, 2), CST_KFUSE_NOTIFY_INVAL_INODE, node);
}

static void send_name(const struct cst_fuse *fuse, uint64_t node, const char *name, size_t len)
{
	struct cst_kfuse_inval_entry_out out = {node, (uint32_t)len, CST_KFUSE_EXPIRE_ONLY};
	char text[NAME_MOST + 1];
	struct iovec iov[3] = {[1] = {&out, sizeof(out)}, [2] = {text, len + 1}};

	memcpy(text, name, len);
	text[len] = '\0';
	complain(send_message(fuse, CST_KFUSE_NOTIFY_INVAL_ENTRY, iov, 3), CST_KFUSE_NOTIFY_INVAL_ENTRY, node);
}

static void send_epoch(const struct cst_fuse *fuse)
{
	struct iovec iov[1];

	complain(send_message(fuse, CST_KFUSE_NOTIFY_INC_EPOCH, iov, 1), CST_KFUSE_NOTIFY_INC_EPOCH, 0);
}

/* ---- what waits; the lock is held ---- */

static struct cst_fuse_news **bucket_of(struct cst_fuse_notify *q, uint64_t node)
{
	return &q->buckets[(node * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (q->bucket_count - 1)];
}

static void grow_buckets(struct cst_fuse_notify *q)
{
	struct cst_fuse_news **old = q->buckets, *next;
	size_t count = q->bucket_count;

	q->bucket_count = count ? count * 2 : FIRST_BUCKETS;
	q->buckets = cst_xcalloc(q->bucket_count, sizeof(struct cst_fuse_news *));
	for (size_t i = 0; i < count; i++) {
		for (struct cst_fuse_news *n = old[i]; n; n = next) {
			next = n->next;
			n->next = *bucket_of(q, n->node);
			*bucket_of(q, n->node) = n;
		}
	}
	free(old);
}

static struct cst_fuse_news *find_news(struct cst_fuse_notify *q, uint64_t node)
{
	struct cst_fuse_news *n = q->bucket_count ? *bucket_of(q, node) : NULL;

	while (n && n->node != node)
		n = n->next;
	return n;
}

static size_t bytes_of(const struct cst_fuse_news *n)
{
	return sizeof(*n) + 16 + n->names_cap + n->seen_size * sizeof(*n->seen);
}

static struct cst_fuse_news *news_new(struct cst_fuse_notify *q, uint64_t node)
{
	struct cst_fuse_news *n = CST_NEW(struct cst_fuse_news);

	if (q->nodes >= q->bucket_count)
		grow_buckets(q);
	n->node = node;
	n->since = q->taken + 1;
	n->next = *bucket_of(q, node);
	*bucket_of(q, node) = n;
	TAILQ_INSERT_TAIL(&q->queue, n, link);
	q->nodes++;
	q->bytes += bytes_of(n);
	pthread_cond_signal(&q->wake);
	return n;
}

/* It is in neither list. */
static void news_free(struct cst_fuse_notify *q, struct cst_fuse_news *n)
{
	struct cst_fuse_news **at = bucket_of(q, n->node);

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	q->nodes--;
	q->bytes -= bytes_of(n);
	free(n->names);
	free(n->seen);
	free(n);
}

static uint32_t hash_of(struct cst_slice name)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < name.len; i++)
		h = (h ^ (unsigned char)name.data[i]) * 16777619u;
	return h ^ h >> 15;
}

static uint32_t *seen_place(const struct cst_fuse_news *n, struct cst_slice name)
{
	uint32_t i = hash_of(name) & (n->seen_size - 1);

	for (; n->seen[i]; i = (i + 1) & (n->seen_size - 1)) {
		const char *there = n->names + n->seen[i] - 1;

		/* One that was sent is not what waits. */
		if (n->seen[i] - 1 >= n->names_sent &&
		    cst_slice_eq((struct cst_slice){there + 1, (unsigned char)*there}, name))
			break;
	}
	return &n->seen[i];
}

static void grow_seen(struct cst_fuse_news *n)
{
	uint32_t at = n->names_sent;

	free(n->seen);
	n->seen_size = n->seen_size ? n->seen_size * 2 : FIRST_SEEN;
	n->seen = cst_xcalloc(n->seen_size, sizeof(*n->seen));
	n->seen_count = 0;
	while (at < n->names_len) {
		struct cst_slice name = {n->names + at + 1, (unsigned char)n->names[at]};

		*seen_place(n, name) = at + 1;
		n->seen_count++;
		at += 1 + (uint32_t)name.len;
	}
}

/* False: it waits already. */
static bool add_name(struct cst_fuse_news *n, struct cst_slice name)
{
	if (2 * (n->seen_count + 1) > n->seen_size)
		grow_seen(n);
	uint32_t *place = seen_place(n, name);
	if (*place)
		return false;
	if (n->names_cap - n->names_len < name.len + 1) {
		n->names_cap = cst_max(n->names_cap * 2, 64u + (uint32_t)name.len);
		n->names = cst_xrealloc(n->names, n->names_cap);
	}
	*place = n->names_len + 1;
	n->seen_count++;
	n->names[n->names_len] = (char)(unsigned char)name.len;
	memcpy(n->names + n->names_len + 1, name.data, name.len);
	n->names_len += 1 + (uint32_t)name.len;
	return true;
}

/* False: it waits already. offset -1: attributes alone; length 0: to the end. */
static bool add_drop(struct cst_fuse_news *n, int64_t offset, int64_t length)
{
	bool waits = n->drop;

	if (waits && (offset < 0 || (n->offset == offset && n->length == length)))
		return false;
	if (!n->drop || n->offset < 0) {
		n->offset = offset;
		n->length = length;
	} else {
		int64_t end = cst_max(n->offset + n->length, offset + length), begin = cst_min(n->offset, offset);

		n->length = n->length == 0 || length == 0 ? 0 : end - begin;
		n->offset = begin;
	}
	n->drop = true;
	return !waits;
}

/* ---- sending ---- */

/* The next names, copied; the lock is held. Returns how many. */
static unsigned take_names(struct cst_fuse_news *n, char *out)
{
	uint32_t from = n->names_sent;
	unsigned count = 0;

	for (; count < BATCH && n->names_sent < n->names_len; count++)
		n->names_sent += 1 + (unsigned char)n->names[n->names_sent];
	memcpy(out, n->names ? n->names + from : "", n->names_sent - from);
	return count;
}

static void heard(struct cst_fuse_notify *q, unsigned messages)
{
	q->count -= messages;
	if (q->settling > 0)
		pthread_cond_broadcast(&q->heard);
}

/* All that there is of the node, and comes meanwhile. The lock is held, but while the kernel is spoken to. */
static void send_news(struct cst_fuse *fuse, struct cst_fuse_news *n)
{
	struct cst_fuse_notify *q = &fuse->notify;
	char names[BATCH * (NAME_MOST + 1)];

	while (!q->ending && (n->drop || n->names_sent < n->names_len)) {
		bool drop = n->drop;
		int64_t offset = n->offset, length = n->length;
		unsigned count = take_names(n, names);
		const char *name = names;

		n->drop = false;
		n->given = cst_now();
		pthread_mutex_unlock(&q->lock);
		if (drop)
			send_node(fuse, n->node, offset, length);
		for (unsigned i = 0; i < count; i++) {
			send_name(fuse, n->node, name + 1, (unsigned char)*name);
			name += 1 + (unsigned char)*name;
		}
		pthread_mutex_lock(&q->lock);
		heard(q, count + drop);
	}
}

static void tell_lost(struct cst_fuse_notify *q)
{
	if (q->lost == 0 || !TAILQ_EMPTY(&q->queue) || !TAILQ_EMPTY(&q->sending))
		return;
	cst_log_warn("%llu messages to the kernel found the queue full: those changes show when the timeouts end; "
		     "`cistern refresh` tells of them again",
		     (unsigned long long)q->lost);
	q->lost = 0;
}

static void work(struct cst_fuse *fuse)
{
	struct cst_fuse_notify *q = &fuse->notify;
	struct cst_fuse_news *n = TAILQ_FIRST(&q->queue);

	if (q->read_ahead_due) {
		q->read_ahead_due = false;
		pthread_mutex_unlock(&q->lock);
		cst_fuse_read_ahead_write(fuse);
		pthread_mutex_lock(&q->lock);
	} else if (q->epoch_due) {
		q->epoch_due = false;
		pthread_mutex_unlock(&q->lock);
		send_epoch(fuse);
		pthread_mutex_lock(&q->lock);
	} else if (n) {
		TAILQ_REMOVE(&q->queue, n, link);
		n->given = cst_now();
		TAILQ_INSERT_TAIL(&q->sending, n, link);
		send_news(fuse, n);
		TAILQ_REMOVE(&q->sending, n, link);
		news_free(q, n);
		heard(q, 0);
		tell_lost(q);
	} else {
		pthread_cond_wait(&q->wake, &q->lock);
	}
}

static void *notify_main(void *arg)
{
	struct cst_fuse *fuse = arg;
	struct cst_fuse_notify *q = &fuse->notify;

	pthread_mutex_lock(&q->lock);
	while (!q->ending)
		work(fuse);
	q->running--;
	pthread_cond_broadcast(&q->heard);
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* ---- what others call ---- */

/* With the lock, or NULL and without it: there is nobody to tell, or no room. */
static struct cst_fuse_news *news_of(struct cst_fuse *fuse, uint64_t node)
{
	struct cst_fuse_notify *q = &fuse->notify;
	struct cst_fuse_news *n = NULL;

	pthread_mutex_lock(&q->lock);
	if (q->running > 0 && !q->ending) {
		if (q->bytes >= BYTES_MAX)
			q->lost++;
		else if (!(n = find_news(q, node)))
			n = news_new(q, node);
	}
	if (!n)
		pthread_mutex_unlock(&q->lock);
	return n;
}

static void added(struct cst_fuse_notify *q, bool is_new)
{
	q->taken += is_new;
	q->count += is_new;
	pthread_mutex_unlock(&q->lock);
}

void cst_fuse_notify_read_ahead(struct cst_fuse *fuse)
{
	pthread_mutex_lock(&fuse->notify.lock);
	fuse->notify.read_ahead_due = true;
	pthread_cond_signal(&fuse->notify.wake);
	pthread_mutex_unlock(&fuse->notify.lock);
}

void cst_fuse_notify_node(void *host, uint64_t node, int64_t offset, int64_t length)
{
	struct cst_fuse *fuse = host;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	struct cst_fuse_news *n = news_of(fuse, node);
	if (n)
		added(&fuse->notify, add_drop(n, offset, length));
}

void cst_fuse_notify_name(void *host, uint64_t parent, struct cst_slice name)
{
	struct cst_fuse *fuse = host;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	/* Before 7.38 the kernel would take the message for a plain invalidation, which unmounts what is mounted below; names there get
	 * old by their entry_timeout alone. */
	if (!(fuse->agreed.flags & CST_KFUSE_HAS_EXPIRE_ONLY)) {
		if (!__atomic_exchange_n(&fuse->notify.warned, true, __ATOMIC_RELAXED))
			cst_log_info("this kernel can't expire names on request (Linux 6.2 can): they are refreshed "
				     "after entry_timeout");
		return;
	}
	if (name.len == 0 || name.len > NAME_MOST)
		return;
	struct cst_fuse_news *n = news_of(fuse, parent);
	if (!n)
		return;
	size_t before = bytes_of(n);
	bool is_new = add_name(n, name);
	fuse->notify.bytes += bytes_of(n) - before;
	added(&fuse->notify, is_new);
}

int cst_fuse_expire_all(struct cst_fuse *fuse)
{
	CST_CHECK(fuse, CST_FUSE_MAGIC);
	if (fuse->agreed.minor < 44)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&fuse->notify.lock);
	fuse->notify.epoch_due = true;
	pthread_cond_signal(&fuse->notify.wake);
	pthread_mutex_unlock(&fuse->notify.lock);
	return 0;
}

enum progress { SETTLED, MOVING, STUCK };

/* How far messages up to that number are. The queue is in the order of first messages. */
static enum progress progress_of(const struct cst_fuse_notify *q, uint64_t wanted)
{
	const struct cst_fuse_news *n = TAILQ_FIRST(&q->queue);
	bool queued = n && n->since <= wanted, moving = false, any = false;
	unsigned stuck = 0;

	TAILQ_FOREACH (n, &q->sending, link) {
		bool is_stuck = cst_now() - n->given >= STUCK_NS;

		stuck += is_stuck;
		any |= n->since <= wanted;
		moving |= n->since <= wanted && !is_stuck;
	}
	if (!queued && !any)
		return SETTLED;
	return moving || (queued && stuck < q->running) ? MOVING : STUCK;
}

/* Who waits isn't held up by what the kernel doesn't take: not for longer than it takes to see that. */
bool cst_fuse_notify_settle(void *host)
{
	struct cst_fuse *fuse = host;
	struct cst_fuse_notify *q = &fuse->notify;
	int64_t end = cst_now() + SETTLE_NS;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	pthread_mutex_lock(&q->lock);
	uint64_t wanted = q->taken;
	q->settling++;
	while (q->running > 0 && !q->ending && cst_now() < end && progress_of(q, wanted) == MOVING) {
		int64_t at = cst_min(end, cst_now() + STUCK_NS);
		struct timespec until = {at / CST_NS_PER_S, at % CST_NS_PER_S};

		pthread_cond_timedwait(&q->heard, &q->lock, &until);
	}
	q->settling--;
	bool settled = progress_of(q, wanted) == SETTLED;
	pthread_mutex_unlock(&q->lock);
	return settled;
}

int cst_fuse_notify_start(struct cst_fuse *fuse)
{
	struct cst_fuse_notify *q = &fuse->notify;
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	while (rc == 0 && q->started < CST_FUSE_NOTIFIERS) {
		rc = cst_thread_start(&q->threads[q->started], "cst-notify", 0, notify_main, fuse);
		q->started += rc == 0;
		q->running += rc == 0;
	}
	rc = q->started > 0 ? 0 : rc;
	pthread_mutex_unlock(&q->lock);
	return rc;
}

bool cst_fuse_notify_stop(struct cst_fuse *fuse, int64_t ns)
{
	struct cst_fuse_notify *q = &fuse->notify;
	int64_t end = cst_now() + ns;
	struct timespec until = {end / CST_NS_PER_S, end % CST_NS_PER_S};
	struct cst_fuse_news *n;

	pthread_mutex_lock(&q->lock);
	q->ending = true;
	pthread_cond_broadcast(&q->wake);
	pthread_cond_broadcast(&q->heard);
	while (q->running > 0)
		if (pthread_cond_timedwait(&q->heard, &q->lock, &until) == ETIMEDOUT)
			break;
	bool left = q->running == 0;
	pthread_mutex_unlock(&q->lock);
	if (!left)
		return false;
	for (; q->started > 0; q->started--)
		pthread_join((pthread_t)q->threads[q->started - 1], NULL);
	while ((n = TAILQ_FIRST(&q->queue))) {
		TAILQ_REMOVE(&q->queue, n, link);
		news_free(q, n);
	}
	free(q->buckets);
	q->buckets = NULL;
	q->bucket_count = 0;
	return true;
}
