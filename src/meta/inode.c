/* The inode table: see inode.h for the rules and doc/inode-states.md for the states. */
#include "meta/inode_table.h"

#include "base/clock.h"

#include <errno.h>

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
			struct cst_inode **to = bucket(s, by_name ? inode->hash : mix(inode->node));
			*(by_name ? &inode->next_name : &inode->next_node) = *to;
			*to = inode;
		}
	}
	free(old.buckets);
}

void cst_inode_insert_node_(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **to = bucket(s, mix(inode->node));
	inode->next_node = *to;
	*to = inode;
	if (++s->count > s->size * 2)
		shard_grow(s, false);
}

void cst_inode_insert_name_(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **to = bucket(s, inode->hash);
	inode->next_name = *to;
	*to = inode;
	if (++s->count > s->size * 2)
		shard_grow(s, true);
}

static void remove_node(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **at = bucket(s, mix(inode->node));
	while (*at != inode)
		at = &(*at)->next_node;
	*at = inode->next_node;
	s->count--;
}

/* Harmless when the inode is not in the index (stale). */
void cst_inode_remove_name_(struct shard *s, struct cst_inode *inode)
{
	struct cst_inode **at = bucket(s, inode->hash);
	while (*at && *at != inode)
		at = &(*at)->next_name;
	if (!*at)
		return;
	*at = inode->next_name;
	s->count--;
}

uint64_t cst_inode_first_ino(const struct cst_inode *parent, struct cst_slice name)
{
	uint64_t ino = XXH3_64bits_withSeed(name.data, name.len, parent->ino);
	return ino > CST_NODE_ROOT ? ino : ino + 2; /* 0 and the root's are taken */
}

static uint64_t renewed_ino(const struct cst_inode *parent, struct cst_slice name, const struct cst_entry *entry)
{
	uint64_t version =
		XXH3_64bits_withSeed(entry->etag, strlen(entry->etag),
				     entry->size + entry->kind + (entry->etag[0] ? 0 : (uint64_t)entry->mtime << 20));
	uint64_t ino = XXH3_64bits_withSeed(name.data, name.len, parent->ino ^ version);
	return ino > CST_NODE_ROOT ? ino : ino + 2;
}

/* ---- identities ---- */

static void *heap_alloc(void *arg, size_t size)
{
	return cst_slab_alloc(arg, size);
}

static void heap_commit(void *arg, struct cst_identity *id)
{
	(void)arg;
	(void)id;
}

static void heap_free(void *arg, struct cst_identity *id, size_t size)
{
	cst_slab_free(arg, id, size);
}

size_t cst_identity_size(const struct cst_identity *id)
{
	return offsetof(struct cst_identity, text) + id->name_len + 1u + id->etag_len;
}

static const uint8_t *packed_etag(const struct cst_identity *id)
{
	return (const uint8_t *)id->text + id->name_len + 1;
}

void cst_identity_free_(struct cst_inode_table *t, struct cst_identity *id)
{
	t->memory.free(t->memory.arg, id, cst_identity_size(id));
}

/* Of `was`: the node and what never changes; the name and the version may be other ones. */
struct cst_identity *cst_identity_new_(struct cst_inode_table *t, const struct cst_identity *was, struct cst_slice name,
				       const struct cst_entry *entry)
{
	uint8_t packed[CST_ETAG_PACKED_MAX];
	bool versioned = entry->kind != CST_KIND_DIR;
	unsigned form = 0;
	size_t etag_len = versioned ? cst_etag_pack(packed, entry->etag, &form) : 0;
	CST_ASSERT(name.len <= CST_INODE_NAME_MAX);
	struct cst_identity *id =
		t->memory.alloc(t->memory.arg, offsetof(struct cst_identity, text) + name.len + 1 + etag_len);
	*id = *was;
	id->size = versioned ? entry->size : 0;
	id->kind = (uint8_t)entry->kind;
	id->type_form = (uint8_t)((unsigned)entry->type << 4 | form);
	id->name_len = (uint8_t)name.len;
	id->etag_len = (uint8_t)etag_len;
	if (name.len > 0)
		memcpy(id->text, name.data, name.len);
	id->text[name.len] = 0;
	if (etag_len > 0)
		memcpy(id->text + name.len + 1, packed, etag_len);
	return id;
}

/* The counts are stored whole: a successor may look at any moment. */
static void set_lookups_locked(struct cst_inode *inode, uint64_t lookups)
{
	uint32_t to = (uint32_t)cst_min(lookups, (uint64_t)UINT32_MAX);
	if (inode->id->lookups != UINT32_MAX)
		__atomic_store_n(&inode->id->lookups, to, __ATOMIC_RELAXED);
}

/* ---- inodes ---- */

struct cst_inode *cst_inode_new_(struct cst_inode_table *t, struct cst_identity *id)
{
	struct cst_inode *inode = cst_slab_alloc(t->slab, sizeof(*inode));
	*inode = (struct cst_inode){.magic = CST_INODE_MAGIC,
				    .kind = (uint8_t)(id->kind & ~CST_OPENED_MARKS),
				    .refs = 1,
				    .hash = name_hash(id->parent, id->text, id->name_len),
				    .id = id,
				    .node = id->node,
				    .ino = id->ino};
	return inode;
}

static void inode_free(struct cst_inode_table *t, struct cst_inode *inode)
{
	CST_CHECK(inode, CST_INODE_MAGIC);
	if (t->drop)
		t->drop(inode);
	inode->magic = 0;
	cst_object_attr_unref(inode->attr);
	if (inode->more)
		free(inode->more->link);
	free(inode->more);
	cst_identity_free_(t, inode->id);
	cst_slab_free(t->slab, inode, sizeof(*inode));
	__atomic_fetch_sub(&t->count, 1, __ATOMIC_RELAXED);
}

void cst_inode_discard_(struct cst_inode_table *t, struct cst_inode *inode)
{
	remove_node(node_shard(t, inode->node), inode);
	inode_free(t, inode);
}

struct cst_inode_more *cst_inode_more(struct cst_inode *inode)
{
	if (!inode->more)
		inode->more = CST_NEW(struct cst_inode_more);
	return inode->more;
}

static void moves_init(pthread_rwlock_t *moves)
{
	pthread_rwlockattr_t attr;
	pthread_rwlockattr_init(&attr);
	/* A rename isn't held up for ever by those who walk up. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(moves, &attr);
	pthread_rwlockattr_destroy(&attr);
}

struct cst_inode_table *cst_inode_table_new(void (*drop)(struct cst_inode *inode),
					    const struct cst_identity_memory *memory)
{
	struct cst_inode_table *t = aligned_alloc(64, sizeof(*t));
	CST_ASSERT(t != NULL);
	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; i < SHARDS; i++) {
		shard_init(&t->nodes[i]);
		shard_init(&t->names[i]);
	}
	pthread_mutex_init(&t->recent_lock, NULL);
	moves_init(&t->moves);
	t->slab = cst_slab_new();
	t->drop = drop;
	t->memory = (struct cst_identity_memory){heap_alloc, heap_commit, heap_free, t->slab, &t->own_next_node,
						 /* Tells file handles of an earlier mount (NFS export) from ours. */
						 (uint64_t)(cst_wall() / CST_NS_PER_S) & UINT32_MAX};
	if (memory)
		t->memory = *memory;
	t->next_node = t->memory.next_node;
	t->generation = t->memory.generation;
	if (*t->next_node < CST_NODE_ROOT)
		*t->next_node = CST_NODE_ROOT;
	struct cst_identity root_id = {.node = CST_NODE_ROOT, .parent = CST_NODE_ROOT, .ino = CST_NODE_ROOT};
	struct cst_inode *inode = cst_inode_new_(
		t, cst_identity_new_(t, &root_id, CST_SLICE(""), &(struct cst_entry){.kind = CST_KIND_DIR}));
	inode->id->lookups = 1; /* the kernel never forgets it */
	inode->refs = 0;
	t->memory.commit(t->memory.arg, inode->id);
	cst_inode_insert_node_(node_shard(t, CST_NODE_ROOT), inode);
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
	pthread_rwlock_destroy(&t->moves);
	cst_slab_destroy(t->slab);
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
	pthread_mutex_lock(&node_shard(t, inode->node)->lock);
}

void cst_inode_unlock(struct cst_inode_table *t, const struct cst_inode *inode)
{
	pthread_mutex_unlock(&node_shard(t, inode->node)->lock);
}

void cst_inode_mark_opened(struct cst_inode_table *t, struct cst_inode *inode, unsigned mark)
{
	cst_inode_lock(t, inode);
	if (!(inode->id->kind & mark))
		__atomic_store_n(&inode->id->kind, (uint8_t)(inode->id->kind | mark), __ATOMIC_RELEASE);
	cst_inode_unlock(t, inode);
}

unsigned cst_inode_opened(struct cst_inode_table *t, const struct cst_inode *inode)
{
	cst_inode_lock(t, inode);
	unsigned marks = inode->id->kind & CST_OPENED_MARKS;
	cst_inode_unlock(t, inode);
	return marks;
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
	uint32_t hash = name_hash(parent->node, name, len);
	struct shard *s = name_shard(t, hash);
	pthread_mutex_lock(&s->lock);
	struct cst_inode *inode = find_name(s, hash, parent->node, name, len);
	if (inode)
		cst_inode_ref(t, inode);
	pthread_mutex_unlock(&s->lock);
	return inode;
}

/* Takes an inode that nobody counts out of both indexes. It is looked for again because the shards' locks are taken in the
 * other order here: meanwhile it may have been found by name, renamed (then who did that looks whether it is used), or freed by another thread. */
static struct cst_inode *take_unused(struct cst_inode_table *t, uint64_t node, uint32_t hash)
{
	struct shard *names = name_shard(t, hash), *nodes = node_shard(t, node);
	pthread_mutex_lock(&names->lock);
	pthread_mutex_lock(&nodes->lock);
	struct cst_inode *inode = find_node(nodes, node);
	if (inode && (inode->id->lookups > 0 || inode->refs > 0 || inode->hash != hash))
		inode = NULL;
	if (inode) {
		remove_node(nodes, inode);
		if (!inode->stale)
			cst_inode_remove_name_(names, inode);
	}
	pthread_mutex_unlock(&nodes->lock);
	pthread_mutex_unlock(&names->lock);
	return inode;
}

/* Drops counts and frees the inode, and then its parents, when nothing is left. */
static void put(struct cst_inode_table *t, struct cst_inode *inode)
{
	while (inode) {
		uint64_t node = inode->node;
		uint32_t hash = 0;
		cst_inode_lock(t, inode);
		CST_ASSERT(inode->refs > 0);
		inode->refs--;
		bool unused = inode->refs == 0 && inode->id->lookups == 0;
		if (unused)
			hash = inode->hash;
		pthread_mutex_unlock(&node_shard(t, node)->lock);
		inode = unused ? take_unused(t, node, hash) : NULL;
		if (!inode)
			return;
		struct cst_inode *parent = inode->parent;
		inode_free(t, inode);
		inode = parent;
	}
}

void cst_inode_unref(struct cst_inode_table *t, struct cst_inode *inode)
{
	if (!inode)
		return;
	CST_CHECK(inode, CST_INODE_MAGIC);
	put(t, inode);
}

int cst_inode_forget(struct cst_inode_table *t, uint64_t node, uint64_t count)
{
	if (node == CST_NODE_ROOT)
		return 0;
	struct shard *s = node_shard(t, node);
	pthread_mutex_lock(&s->lock);
	struct cst_inode *inode = find_node(s, node);
	if (inode) {
		set_lookups_locked(inode, inode->id->lookups - cst_min((uint64_t)inode->id->lookups, count));
		inode->refs++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!inode)
		return -ESTALE;
	put(t, inode);
	return 0;
}

bool cst_inode_is_version_locked(const struct cst_inode *inode, const struct cst_entry *entry)
{
	const struct cst_identity *id = inode->id;
	uint8_t packed[CST_ETAG_PACKED_MAX];
	unsigned form;
	if (inode->kind != entry->kind)
		return false;
	if (entry->kind == CST_KIND_DIR)
		return true;
	if (id->size != entry->size)
		return false;
	size_t len = cst_etag_pack(packed, entry->etag, &form);
	if (len != id->etag_len || form != (id->type_form & 15u) || memcmp(packed, packed_etag(id), len) != 0)
		return false;
	if (len > 0 || entry->kind != CST_KIND_FILE)
		return true;
	/* A store without ETags: Last-Modified is all there is. */
	return !inode->mtime || !entry->mtime || inode->mtime == entry->mtime;
}

bool cst_inode_is_version(struct cst_inode_table *t, const struct cst_inode *inode, const struct cst_entry *entry)
{
	cst_inode_lock(t, inode);
	bool is = cst_inode_is_version_locked(inode, entry);
	cst_inode_unlock(t, inode);
	return is;
}

static void set_attr_locked(struct cst_inode *inode, struct cst_object_attr *attr)
{
	if (!attr || attr == inode->attr)
		return;
	cst_object_attr_unref(inode->attr);
	inode->attr = cst_object_attr_ref(attr);
}

/* The same version: takes over what is newer or was not known. */
static void refresh_locked(struct cst_inode *inode, const struct cst_entry *entry)
{
	if (entry->at >= inode->checked) {
		inode->checked = entry->at;
		if (entry->mtime != 0)
			inode->mtime = entry->mtime;
	} else if (inode->attr) {
		return;
	}
	set_attr_locked(inode, entry->attr);
}

/* Under the name's shard's lock. */
static struct cst_inode *enter_new(struct cst_inode_table *t, struct shard *names, struct cst_inode *parent,
				   struct cst_slice name, const struct cst_entry *entry, unsigned lookups, uint64_t ino)
{
	struct cst_identity who = {.parent = parent->node, .ino = ino, .lookups = lookups};
	who.node = __atomic_add_fetch(t->next_node, 1, __ATOMIC_RELAXED);
	struct cst_inode *inode = cst_inode_new_(t, cst_identity_new_(t, &who, name, entry));
	inode->checked = entry->at;
	inode->mtime = entry->mtime;
	inode->attr = cst_object_attr_ref(entry->attr);
	inode->parent = cst_inode_ref(t, parent);
	t->memory.commit(t->memory.arg, inode->id);
	struct shard *s = node_shard(t, who.node);
	pthread_mutex_lock(&s->lock);
	cst_inode_insert_node_(s, inode);
	pthread_mutex_unlock(&s->lock);
	cst_inode_insert_name_(names, inode);
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
	uint32_t hash = name_hash(parent->node, name, text.len);
	struct shard *names = name_shard(t, hash);
	bool replaces = false;
	*replaced = 0;
	pthread_mutex_lock(&names->lock);
	struct cst_inode *inode = find_name(names, hash, parent->node, name, text.len);
	if (inode) {
		struct shard *s = node_shard(t, inode->node);
		pthread_mutex_lock(&s->lock);
		bool same = !inode->held && cst_inode_is_version_locked(inode, entry);
		if (same || inode->held || entry->at < inode->checked) {
			if (same)
				refresh_locked(inode, entry);
			inode->refs++;
			set_lookups_locked(inode, (uint64_t)inode->id->lookups + lookups);
		} else {
			inode->stale = true;
			replaces = inode->kind == entry->kind;
			*replaced = inode->id->lookups > 0 ? inode->node : 0;
			cst_inode_remove_name_(names, inode);
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
	uint32_t hash = name_hash(parent->node, name, len);
	uint64_t node = 0;
	struct shard *names = name_shard(t, hash);
	pthread_mutex_lock(&names->lock);
	struct cst_inode *inode = find_name(names, hash, parent->node, name, len);
	if (inode) {
		cst_inode_lock(t, inode);
		if (at >= inode->checked && !inode->held) {
			inode->stale = true;
			node = inode->id->lookups > 0 ? inode->node : 0;
			cst_inode_remove_name_(names, inode);
		}
		cst_inode_unlock(t, inode);
	}
	pthread_mutex_unlock(&names->lock);
	return node;
}

void cst_inode_entry(struct cst_inode_table *t, const struct cst_inode *inode, struct cst_entry *entry)
{
	cst_inode_lock(t, inode);
	const struct cst_identity *id = inode->id;
	*entry = (struct cst_entry){.kind = inode->kind,
				    .type = id->type_form >> 4,
				    .size = id->size,
				    .mtime = inode->mtime,
				    .at = inode->checked};
	cst_etag_unpack(packed_etag(id), id->type_form & 15, entry->etag);
	entry->attr = cst_object_attr_ref(inode->attr);
	cst_inode_unlock(t, inode);
}

uint64_t cst_inode_size(struct cst_inode_table *t, const struct cst_inode *inode)
{
	cst_inode_lock(t, inode);
	uint64_t size = inode->id->size;
	cst_inode_unlock(t, inode);
	return size;
}

/* ---- where inodes are ---- */

struct cst_inode *cst_inode_place(struct cst_inode_table *t, const struct cst_inode *inode,
				  char name[CST_INODE_NAME_MAX + 1])
{
	pthread_rwlock_rdlock(&t->moves);
	cst_inode_lock(t, inode);
	memcpy(name, inode->id->text, inode->id->name_len + 1u);
	cst_inode_unlock(t, inode);
	struct cst_inode *parent = inode->parent ? cst_inode_ref(t, inode->parent) : NULL;
	pthread_rwlock_unlock(&t->moves);
	return parent;
}

void cst_inode_path(struct cst_inode_table *t, const struct cst_inode *inode, struct cst_buf *out)
{
	size_t len = 0, start = out->len;
	pthread_rwlock_rdlock(&t->moves);
	for (const struct cst_inode *i = inode; i->parent; i = i->parent) {
		cst_inode_lock(t, i);
		len += i->id->name_len + 1u;
		cst_inode_unlock(t, i);
	}
	cst_buf_room(out, cst_max(len, (size_t)1));
	char *end = out->data + start + (len > 0 ? len - 1 : 0);
	*end = 0;
	for (const struct cst_inode *i = inode; i->parent; i = i->parent) {
		cst_inode_lock(t, i);
		end -= i->id->name_len;
		memcpy(end, i->id->text, i->id->name_len);
		cst_inode_unlock(t, i);
		if (i->parent->parent)
			*--end = '/';
	}
	pthread_rwlock_unlock(&t->moves);
	out->len = start + (len > 0 ? len - 1 : 0);
}

void cst_inode_set_aside(struct cst_inode_table *t, struct cst_inode *inode)
{
	char name[CST_INODE_NAME_MAX + 1];
	struct cst_entry entry = CST_ENTRY_INIT;
	struct cst_inode *other = NULL;
	pthread_rwlock_rdlock(&t->moves); /* so that the name stays */
	cst_inode_lock(t, inode);
	struct cst_slice text = {name, inode->id->name_len};
	memcpy(name, inode->id->text, text.len + 1);
	cst_inode_unlock(t, inode);
	struct cst_inode *parent = inode->parent;
	if (parent) {
		uint32_t hash = name_hash(parent->node, name, text.len);
		struct shard *names = name_shard(t, hash);
		pthread_mutex_lock(&names->lock);
		if (find_name(names, hash, parent->node, name, text.len) == inode) {
			cst_inode_entry(t, inode, &entry);
			cst_inode_lock(t, inode);
			inode->aside = true;
			int64_t direct_at = cst_inode_peek(inode)->direct_at;
			cst_inode_unlock(t, inode);
			cst_inode_remove_name_(names, inode);
			other = enter_new(t, names, parent, text, &entry, 0, inode->ino);
			cst_inode_lock(t, other);
			if (direct_at)
				cst_inode_more(other)->direct_at = direct_at;
			cst_inode_unlock(t, other);
		}
		pthread_mutex_unlock(&names->lock);
	}
	pthread_rwlock_unlock(&t->moves);
	cst_entry_fini(&entry);
	if (!other)
		return;
	keep_recent(t, other);
	cst_inode_unref(t, other);
}

uint64_t cst_inode_list_ino(struct cst_inode_table *t, const struct cst_inode *parent, struct cst_slice name)
{
	uint64_t ino = 0;
	if (__atomic_load_n(&t->replacements, __ATOMIC_RELAXED) > 0) {
		uint32_t hash = name_hash(parent->node, name.data, name.len);
		struct shard *s = name_shard(t, hash);
		pthread_mutex_lock(&s->lock);
		const struct cst_inode *inode = find_name(s, hash, parent->node, name.data, name.len);
		ino = inode ? inode->ino : 0;
		pthread_mutex_unlock(&s->lock);
	}
	return ino ? ino : cst_inode_first_ino(parent, name);
}
