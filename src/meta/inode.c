/* The inode table: see inode.h for the rules and doc/inode-states.md for the states. */
#include "meta/inode.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <xxhash.h>

#define SHARDS 64u
#define FIRST_BUCKETS 64u
#define RECENT 256u

struct shard {
	pthread_mutex_t lock;
	struct cst_inode **buckets;
	size_t size; /* a power of two */
	size_t count;
} __attribute__((aligned(64)));

struct cst_inode_table {
	struct shard nodes[SHARDS], names[SHARDS];
	uint64_t next_node;    /* atomic */
	uint64_t count;	       /* atomic */
	uint64_t replacements; /* atomic: has any inode an ino that is not the one of first sight? */
	uint64_t generation;
	/* The newest replacements, with references: an open that finds a new version, or sets its inode aside, answers ESTALE, and the
	 * lookup that follows must find the same inode. */
	pthread_mutex_t recent_lock;
	struct cst_inode *recent[RECENT];
	unsigned recent_next;
	void (*drop)(struct cst_inode *inode);
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}

static uint64_t name_hash(uint64_t parent, const char *name, size_t len)
{
	return XXH3_64bits_withSeed(name, len, parent);
}

static uint64_t inode_name_hash(const struct cst_inode *inode)
{
	return name_hash(inode->id->parent, inode->id->text, inode->id->name_len);
}

static struct shard *node_shard(struct cst_inode_table *t, uint64_t node)
{
	return &t->nodes[mix(node) % SHARDS];
}

static struct shard *name_shard(struct cst_inode_table *t, uint64_t hash)
{
	return &t->names[hash % SHARDS];
}

/* The low bits choose the shard, the ones above them the bucket. */
static struct cst_inode **bucket(const struct shard *s, uint64_t hash)
{
	return &s->buckets[(hash / SHARDS) & (s->size - 1)];
}

static void shard_init(struct shard *s)
{
	pthread_mutex_init(&s->lock, NULL);
	s->size = FIRST_BUCKETS;
	s->buckets = cst_xcalloc(s->size, sizeof(*s->buckets));
}

static void shard_grow(struct shard *s, bool by_name)
{
	struct shard old = {.buckets = s->buckets, .size = s->size};
	s->size *= 2;
	s->buckets = cst_xcalloc(s->size, sizeof(*s->buckets));
	for (size_t i = 0; i < old.size; i++) {
		struct cst_inode *next;
		for (struct cst_inode *inode = old.buckets[i]; inode; inode = next) {
			next = by_name ? inode->next_name : inode->next_node;
			struct cst_inode **to = bucket(s, by_name ? inode_name_hash(inode) : mix(inode->id->node));
			*(by_name ? &inode->next_name : &inode->next_node) = *to;
			*to = inode;
		}
	}
	free(old.buckets);
}

static void insert_node(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **to = bucket(s, mix(inode->id->node));
	inode->next_node = *to;
	*to = inode;
	if (++s->count > s->size * 2)
		shard_grow(s, false);
}

static void insert_name(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **to = bucket(s, inode_name_hash(inode));
	inode->next_name = *to;
	*to = inode;
	if (++s->count > s->size * 2)
		shard_grow(s, true);
}

static struct cst_inode *find_node(const struct shard *s, uint64_t node)
{
	struct cst_inode *inode = *bucket(s, mix(node));
	while (inode && inode->id->node != node)
		inode = inode->next_node;
	return inode;
}

static struct cst_inode *find_name(const struct shard *s, uint64_t hash, uint64_t parent, const char *name, size_t len)
{
	struct cst_inode *inode = *bucket(s, hash);
	while (inode &&
	       (inode->id->parent != parent || inode->id->name_len != len || memcmp(inode->id->text, name, len) != 0))
		inode = inode->next_name;
	return inode;
}

static void remove_node(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **at = bucket(s, mix(inode->id->node));
	while (*at != inode)
		at = &(*at)->next_node;
	*at = inode->next_node;
	s->count--;
}

/* Harmless when the inode is not in the index (stale). */
static void remove_name(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **at = bucket(s, inode_name_hash(inode));
	while (*at && *at != inode)
		at = &(*at)->next_name;
	if (!*at)
		return;
	*at = inode->next_name;
	s->count--;
}

uint64_t cst_inode_first_ino(const struct cst_inode *parent, struct cst_slice name)
{
	uint64_t ino = XXH3_64bits_withSeed(name.data, name.len, parent->id->ino);
	return ino > CST_NODE_ROOT ? ino : ino + 2; /* 0 and the root's are taken */
}

static uint64_t renewed_ino(const struct cst_inode *parent, struct cst_slice name, const struct cst_entry *entry)
{
	uint64_t version =
		XXH3_64bits_withSeed(entry->etag, strlen(entry->etag),
				     entry->size + entry->kind + (entry->etag[0] ? 0 : (uint64_t)entry->mtime << 20));
	uint64_t ino = XXH3_64bits_withSeed(name.data, name.len, parent->id->ino ^ version);
	return ino > CST_NODE_ROOT ? ino : ino + 2;
}

static struct cst_identity *identity_new(uint64_t node, uint64_t parent, uint64_t ino, struct cst_slice name,
					 const struct cst_entry *entry)
{
	bool versioned = entry->kind != CST_KIND_DIR;
	size_t etag_len = versioned ? strlen(entry->etag) : 0;
	struct cst_identity *id = cst_xcalloc(1, sizeof(*id) + name.len + etag_len + 2);
	id->node = node;
	id->parent = parent;
	id->ino = ino;
	id->size = versioned ? entry->size : 0;
	id->kind = (uint8_t)entry->kind;
	id->type = (uint8_t)entry->type;
	id->name_len = (uint16_t)name.len;
	id->etag_len = (uint16_t)etag_len;
	if (name.len > 0)
		memcpy(id->text, name.data, name.len);
	memcpy(id->text + name.len + 1, entry->etag, etag_len);
	return id;
}

static struct cst_inode *inode_new(struct cst_identity *id, const struct cst_entry *entry)
{
	struct cst_inode *inode = CST_NEW(struct cst_inode);
	inode->magic = CST_INODE_MAGIC;
	inode->id = id;
	inode->refs = 1;
	inode->checked = entry->at;
	inode->mtime = entry->mtime;
	inode->attr = cst_object_attr_ref(entry->attr);
	return inode;
}

static void inode_free(struct cst_inode_table *t, struct cst_inode *inode)
{
	CST_CHECK(inode, CST_INODE_MAGIC);
	if (t->drop)
		t->drop(inode);
	inode->magic = 0;
	cst_object_attr_unref(inode->attr);
	free(inode->link);
	free(inode->id);
	free(inode);
	__atomic_fetch_sub(&t->count, 1, __ATOMIC_RELAXED);
}

struct cst_inode_table *cst_inode_table_new(void (*drop)(struct cst_inode *inode))
{
	struct cst_inode_table *t = aligned_alloc(64, sizeof(*t));
	CST_ASSERT(t != NULL);
	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; i < SHARDS; i++) {
		shard_init(&t->nodes[i]);
		shard_init(&t->names[i]);
	}
	pthread_mutex_init(&t->recent_lock, NULL);
	t->drop = drop;
	t->next_node = CST_NODE_ROOT + 1;
	/* Tells file handles of an earlier mount (NFS export) from ours. */
	t->generation = (uint64_t)(cst_wall() / CST_NS_PER_S) & UINT32_MAX;
	struct cst_entry root = {.kind = CST_KIND_DIR};
	struct cst_inode *inode =
		inode_new(identity_new(CST_NODE_ROOT, CST_NODE_ROOT, CST_NODE_ROOT, CST_SLICE(""), &root), &root);
	inode->lookups = 1; /* the kernel never forgets it */
	inode->refs = 0;
	insert_node(node_shard(t, CST_NODE_ROOT), inode);
	t->count = 1;
	return t;
}

void cst_inode_table_free(struct cst_inode_table *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &t->nodes[i];
		for (size_t b = 0; b < s->size; b++) {
			struct cst_inode *next;
			for (struct cst_inode *inode = s->buckets[b]; inode; inode = next) {
				next = inode->next_node;
				inode_free(t, inode);
			}
		}
		free(s->buckets);
		free(t->names[i].buckets);
		pthread_mutex_destroy(&s->lock);
		pthread_mutex_destroy(&t->names[i].lock);
	}
	pthread_mutex_destroy(&t->recent_lock);
	free(t);
}

uint64_t cst_inode_table_count(const struct cst_inode_table *t)
{
	return __atomic_load_n(&t->count, __ATOMIC_RELAXED);
}

uint64_t cst_inode_table_generation(const struct cst_inode_table *t)
{
	return t->generation;
}

void cst_inode_lock(struct cst_inode_table *t, const struct cst_inode *inode)
{
	pthread_mutex_lock(&node_shard(t, inode->id->node)->lock);
}

void cst_inode_unlock(struct cst_inode_table *t, const struct cst_inode *inode)
{
	pthread_mutex_unlock(&node_shard(t, inode->id->node)->lock);
}

struct cst_inode *cst_inode_get(struct cst_inode_table *t, uint64_t node)
{
	struct shard *s = node_shard(t, node);
	pthread_mutex_lock(&s->lock);
	struct cst_inode *inode = find_node(s, node);
	if (inode)
		inode->refs++;
	pthread_mutex_unlock(&s->lock);
	return inode;
}

void cst_inode_each(struct cst_inode_table *t, void (*each)(void *arg, struct cst_inode *inode), void *arg)
{
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &t->nodes[i];
		pthread_mutex_lock(&s->lock);
		for (size_t b = 0; b < s->size; b++)
			for (struct cst_inode *inode = s->buckets[b]; inode; inode = inode->next_node)
				each(arg, inode);
		pthread_mutex_unlock(&s->lock);
	}
}

struct cst_inode *cst_inode_ref(struct cst_inode_table *t, struct cst_inode *inode)
{
	CST_CHECK(inode, CST_INODE_MAGIC);
	cst_inode_lock(t, inode);
	inode->refs++;
	cst_inode_unlock(t, inode);
	return inode;
}

struct cst_inode *cst_inode_find(struct cst_inode_table *t, struct cst_inode *parent, const char *name)
{
	size_t len = strlen(name);
	uint64_t hash = name_hash(parent->id->node, name, len);
	struct shard *s = name_shard(t, hash);
	pthread_mutex_lock(&s->lock);
	struct cst_inode *inode = find_name(s, hash, parent->id->node, name, len);
	if (inode)
		cst_inode_ref(t, inode);
	pthread_mutex_unlock(&s->lock);
	return inode;
}

/* Takes an inode that nobody counts out of both indexes. It is looked for again because the shards' locks are taken in the
 * other order here: meanwhile it may have been found by name, or freed by another thread. */
static struct cst_inode *take_unused(struct cst_inode_table *t, uint64_t node, uint64_t hash)
{
	struct shard *names = name_shard(t, hash), *nodes = node_shard(t, node);
	pthread_mutex_lock(&names->lock);
	pthread_mutex_lock(&nodes->lock);
	struct cst_inode *inode = find_node(nodes, node);
	if (inode && (inode->lookups > 0 || inode->refs > 0))
		inode = NULL;
	if (inode) {
		remove_node(nodes, inode);
		if (!inode->stale)
			remove_name(names, inode);
	}
	pthread_mutex_unlock(&nodes->lock);
	pthread_mutex_unlock(&names->lock);
	return inode;
}

/* Drops counts and frees the inode, and then its parents, when nothing is left. Returns the lookups really taken. */
static void put(struct cst_inode_table *t, struct cst_inode *inode, uint32_t refs)
{
	while (inode) {
		uint64_t node = inode->id->node, hash = inode_name_hash(inode);
		cst_inode_lock(t, inode);
		CST_ASSERT(inode->refs >= refs);
		inode->refs -= refs;
		bool unused = inode->refs == 0 && inode->lookups == 0;
		pthread_mutex_unlock(&node_shard(t, node)->lock);
		inode = unused ? take_unused(t, node, hash) : NULL;
		if (!inode)
			return;
		struct cst_inode *parent = inode->parent;
		inode_free(t, inode);
		inode = parent;
		refs = 1;
	}
}

void cst_inode_unref(struct cst_inode_table *t, struct cst_inode *inode)
{
	if (!inode)
		return;
	CST_CHECK(inode, CST_INODE_MAGIC);
	put(t, inode, 1);
}

int cst_inode_forget(struct cst_inode_table *t, uint64_t node, uint64_t count)
{
	if (node == CST_NODE_ROOT)
		return 0;
	struct shard *s = node_shard(t, node);
	pthread_mutex_lock(&s->lock);
	struct cst_inode *inode = find_node(s, node);
	if (inode) {
		inode->lookups -= cst_min(inode->lookups, count);
		inode->refs++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!inode)
		return -ESTALE;
	put(t, inode, 1);
	return 0;
}

bool cst_inode_is_version(const struct cst_inode *inode, const struct cst_entry *entry)
{
	if (inode->id->kind != entry->kind)
		return false;
	if (entry->kind == CST_KIND_DIR)
		return true;
	if (inode->id->size != entry->size || strcmp(cst_inode_etag(inode), entry->etag) != 0)
		return false;
	if (entry->etag[0] || entry->kind != CST_KIND_FILE)
		return true;
	/* A store without ETags: Last-Modified is all there is. */
	int64_t mtime = __atomic_load_n(&inode->mtime, __ATOMIC_RELAXED);
	return !mtime || !entry->mtime || mtime == entry->mtime;
}

/* The same version: takes over what is newer or was not known. The inode's lock is held. */
static void refresh_locked(struct cst_inode *inode, const struct cst_entry *entry)
{
	if (entry->at >= inode->checked) {
		inode->checked = entry->at;
		if (entry->mtime != 0)
			__atomic_store_n(&inode->mtime, entry->mtime, __ATOMIC_RELAXED);
	} else if (inode->attr) {
		return;
	}
	if (entry->attr && entry->attr != inode->attr) {
		cst_object_attr_unref(inode->attr);
		inode->attr = cst_object_attr_ref(entry->attr);
	}
}

static struct cst_inode *enter_new(struct cst_inode_table *t, struct shard *names, struct cst_inode *parent,
				   struct cst_slice name, const struct cst_entry *entry, unsigned lookups, uint64_t ino)
{
	uint64_t node = __atomic_fetch_add(&t->next_node, 1, __ATOMIC_RELAXED);
	struct cst_inode *inode = inode_new(identity_new(node, parent->id->node, ino, name, entry), entry);
	inode->parent = cst_inode_ref(t, parent);
	inode->lookups = lookups;
	struct shard *s = node_shard(t, node);
	pthread_mutex_lock(&s->lock);
	insert_node(s, inode);
	pthread_mutex_unlock(&s->lock);
	insert_name(names, inode);
	__atomic_fetch_add(&t->count, 1, __ATOMIC_RELAXED);
	return inode;
}

static void keep_recent(struct cst_inode_table *t, struct cst_inode *inode)
{
	cst_inode_ref(t, inode);
	pthread_mutex_lock(&t->recent_lock);
	struct cst_inode *oldest = t->recent[t->recent_next];
	t->recent[t->recent_next] = inode;
	t->recent_next = (t->recent_next + 1) % RECENT;
	pthread_mutex_unlock(&t->recent_lock);
	cst_inode_unref(t, oldest);
}

struct cst_inode *cst_inode_enter(struct cst_inode_table *t, struct cst_inode *parent, const char *name,
				  const struct cst_entry *entry, unsigned lookups, uint64_t *replaced)
{
	struct cst_slice text = cst_slice_of(name);
	uint64_t hash = name_hash(parent->id->node, name, text.len);
	struct shard *names = name_shard(t, hash);
	bool replaces = false;
	*replaced = 0;
	pthread_mutex_lock(&names->lock);
	struct cst_inode *inode = find_name(names, hash, parent->id->node, name, text.len);
	if (inode) {
		struct shard *s = node_shard(t, inode->id->node);
		pthread_mutex_lock(&s->lock);
		bool same = cst_inode_is_version(inode, entry);
		if (same || entry->at < inode->checked) {
			if (same)
				refresh_locked(inode, entry);
			inode->refs++;
			inode->lookups += lookups;
		} else {
			inode->stale = true;
			replaces = inode->id->kind == entry->kind;
			*replaced = inode->lookups > 0 ? inode->id->node : 0;
			remove_name(names, inode);
			inode = NULL;
		}
		pthread_mutex_unlock(&s->lock);
	}
	if (!inode && replaces)
		__atomic_fetch_add(&t->replacements, 1, __ATOMIC_RELAXED);
	if (!inode)
		inode = enter_new(t, names, parent, text, entry, lookups,
				  replaces ? renewed_ino(parent, text, entry) : cst_inode_first_ino(parent, text));
	pthread_mutex_unlock(&names->lock);
	if (replaces)
		keep_recent(t, inode);
	return inode;
}

uint64_t cst_inode_remove(struct cst_inode_table *t, struct cst_inode *parent, const char *name, int64_t at)
{
	size_t len = strlen(name);
	uint64_t hash = name_hash(parent->id->node, name, len), node = 0;
	struct shard *names = name_shard(t, hash);
	pthread_mutex_lock(&names->lock);
	struct cst_inode *inode = find_name(names, hash, parent->id->node, name, len);
	if (inode) {
		cst_inode_lock(t, inode);
		if (at >= inode->checked) {
			inode->stale = true;
			node = inode->lookups > 0 ? inode->id->node : 0;
			remove_name(names, inode);
		}
		cst_inode_unlock(t, inode);
	}
	pthread_mutex_unlock(&names->lock);
	return node;
}

void cst_inode_set_aside(struct cst_inode_table *t, struct cst_inode *inode)
{
	struct cst_slice text = {inode->id->text, inode->id->name_len};
	uint64_t hash = inode_name_hash(inode);
	struct shard *names = name_shard(t, hash);
	struct cst_entry entry;
	struct cst_inode *other = NULL;
	if (!inode->parent)
		return;
	cst_inode_entry(t, inode, &entry);
	pthread_mutex_lock(&names->lock);
	if (find_name(names, hash, inode->id->parent, text.data, text.len) == inode) {
		cst_inode_lock(t, inode);
		inode->aside = true;
		int64_t direct_at = inode->direct_at;
		cst_inode_unlock(t, inode);
		remove_name(names, inode);
		other = enter_new(t, names, inode->parent, text, &entry, 0, inode->id->ino);
		cst_inode_lock(t, other);
		other->direct_at = direct_at;
		cst_inode_unlock(t, other);
	}
	pthread_mutex_unlock(&names->lock);
	cst_entry_fini(&entry);
	if (!other)
		return;
	keep_recent(t, other);
	cst_inode_unref(t, other);
}

void cst_inode_entry(struct cst_inode_table *t, struct cst_inode *inode, struct cst_entry *entry)
{
	const struct cst_identity *id = inode->id;
	*entry = (struct cst_entry){.kind = id->kind, .type = id->type, .size = id->size};
	memcpy(entry->etag, cst_inode_etag(inode), id->etag_len + 1u);
	cst_inode_lock(t, inode);
	entry->mtime = inode->mtime;
	entry->at = inode->checked;
	entry->attr = cst_object_attr_ref(inode->attr);
	cst_inode_unlock(t, inode);
}

void cst_inode_path(const struct cst_inode *inode, struct cst_buf *out)
{
	size_t len = 0, start = out->len;
	for (const struct cst_inode *i = inode; i->parent; i = i->parent)
		len += i->id->name_len + 1u;
	if (len == 0) {
		cst_buf_room(out, 1)[0] = 0;
		return;
	}
	cst_buf_room(out, len);
	char *end = out->data + start + len - 1;
	*end = 0;
	for (const struct cst_inode *i = inode; i->parent; i = i->parent) {
		end -= i->id->name_len;
		memcpy(end, i->id->text, i->id->name_len);
		if (i->parent->parent)
			*--end = '/';
	}
	out->len = start + len - 1;
}

uint64_t cst_inode_list_ino(struct cst_inode_table *t, const struct cst_inode *parent, struct cst_slice name)
{
	uint64_t ino = 0;
	if (__atomic_load_n(&t->replacements, __ATOMIC_RELAXED) > 0) {
		uint64_t hash = name_hash(parent->id->node, name.data, name.len);
		struct shard *s = name_shard(t, hash);
		pthread_mutex_lock(&s->lock);
		const struct cst_inode *inode = find_name(s, hash, parent->id->node, name.data, name.len);
		ino = inode ? inode->id->ino : 0;
		pthread_mutex_unlock(&s->lock);
	}
	return ino ? ino : cst_inode_first_ino(parent, name);
}

void cst_inode_publish(struct cst_inode_table *t, struct cst_inode *inode, const struct cst_entry *entry)
{
	(void)t;
	(void)inode;
	(void)entry;
}

int64_t cst_inode_rename(struct cst_inode_table *t, struct cst_inode *inode, struct cst_inode *new_parent,
			 const char *new_name)
{
	(void)t;
	(void)inode;
	(void)new_parent;
	(void)new_name;
	return -ENOTSUP;
}
