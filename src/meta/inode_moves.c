/* The inode table: what this mount changes itself (versions, names), and what another process left. */
#include "meta/inode_table.h"

#include <errno.h>

/* Puts another identity in the place of the inode's. Returns what is to be freed when the locks have been given back. */
static struct cst_identity *replace_locked(struct cst_inode_table *t, struct cst_inode *inode, struct cst_identity *id)
{
	struct cst_identity *was = inode->id;
	id->lookups = was->lookups;
	id->kind |= was->kind & CST_OPENED_MARKS;
	t->memory.commit(t->memory.arg, id);
	inode->id = id;
	inode->hash = name_hash(id->parent, id->text, id->name_len);
	return was;
}

static void learn_locked(struct cst_inode *inode, const struct cst_entry *entry)
{
	inode->checked = cst_max(inode->checked, entry->at);
	if (entry->mtime)
		inode->mtime = entry->mtime;
	if (!entry->attr || entry->attr == inode->attr)
		return;
	cst_object_attr_unref(inode->attr);
	inode->attr = cst_object_attr_ref(entry->attr);
}

/* Only the size is another one. */
static bool publish_size(struct cst_inode_table *t, struct cst_inode *inode, const struct cst_entry *entry)
{
	uint8_t packed[CST_ETAG_PACKED_MAX];
	unsigned form;
	size_t len = cst_etag_pack(packed, entry->etag, &form);
	unsigned type_form = (unsigned)entry->type << 4 | form;
	cst_inode_lock(t, inode);
	const struct cst_identity *id = inode->id;
	bool size_alone = inode->kind == CST_KIND_DIR || (id->etag_len == len && id->type_form == type_form &&
							  memcmp(id->text + id->name_len + 1, packed, len) == 0);
	if (size_alone && inode->kind != CST_KIND_DIR)
		__atomic_store_n(&inode->id->size, entry->size, __ATOMIC_RELAXED);
	if (size_alone)
		learn_locked(inode, entry);
	cst_inode_unlock(t, inode);
	return size_alone;
}

void cst_inode_publish(struct cst_inode_table *t, struct cst_inode *inode, const struct cst_entry *entry)
{
	char name[CST_INODE_NAME_MAX + 1];
	CST_CHECK(inode, CST_INODE_MAGIC);
	CST_ASSERT(inode->kind == entry->kind);
	if (publish_size(t, inode, entry))
		return;
	pthread_rwlock_rdlock(&t->moves); /* so that the name stays */
	cst_inode_lock(t, inode);
	struct cst_slice text = {name, inode->id->name_len};
	memcpy(name, inode->id->text, text.len + 1);
	struct cst_identity who = *inode->id;
	cst_inode_unlock(t, inode);
	struct cst_identity *id = cst_identity_new_(t, &who, text, entry);
	struct shard *names = name_shard(t, name_hash(who.parent, name, text.len));
	pthread_mutex_lock(&names->lock);
	cst_inode_lock(t, inode);
	id = replace_locked(t, inode, id);
	learn_locked(inode, entry);
	cst_inode_unlock(t, inode);
	pthread_mutex_unlock(&names->lock);
	pthread_rwlock_unlock(&t->moves);
	cst_identity_free_(t, id);
}

static bool is_below(const struct cst_inode *inode, const struct cst_inode *dir)
{
	while (inode && inode != dir)
		inode = inode->parent;
	return inode != NULL;
}

static void lock_both(struct shard *a, struct shard *b)
{
	pthread_mutex_lock(a < b ? &a->lock : &b->lock);
	if (a != b)
		pthread_mutex_lock(a < b ? &b->lock : &a->lock);
}

static void unlock_both(struct shard *a, struct shard *b)
{
	pthread_mutex_unlock(&a->lock);
	if (a != b)
		pthread_mutex_unlock(&b->lock);
}

static uint64_t make_stale_locked(struct cst_inode_table *t, struct shard *names, struct cst_inode *inode)
{
	cst_inode_lock(t, inode);
	inode->stale = true;
	uint64_t node = inode->id->lookups > 0 ? inode->node : 0;
	cst_inode_remove_name_(names, inode);
	cst_inode_unlock(t, inode);
	return node;
}

/* Both names' shards and `moves` are locked. */
static uint64_t move_locked(struct cst_inode_table *t, struct cst_inode *inode, struct shard *from, struct shard *to,
			    struct cst_inode *new_parent, struct cst_slice name, int64_t at,
			    struct cst_identity **freed)
{
	uint32_t hash = name_hash(new_parent->node, name.data, name.len);
	uint64_t node = 0;
	struct cst_inode *other = find_name(to, hash, new_parent->node, name.data, name.len);
	struct cst_entry entry;
	if (other)
		node = make_stale_locked(t, to, other);
	cst_inode_remove_name_(from, inode);
	cst_inode_entry(t, inode, &entry);
	struct cst_identity who = {.node = inode->node, .parent = new_parent->node, .ino = inode->ino};
	struct cst_identity *id = cst_identity_new_(t, &who, name, &entry);
	cst_entry_fini(&entry);
	cst_inode_lock(t, inode);
	*freed = replace_locked(t, inode, id);
	inode->checked = cst_max(inode->checked, at);
	cst_inode_unlock(t, inode);
	inode->parent = new_parent;
	cst_inode_insert_name_(to, inode);
	return node;
}

int64_t cst_inode_rename(struct cst_inode_table *t, struct cst_inode *inode, struct cst_inode *new_parent,
			 const char *new_name, int64_t at)
{
	struct cst_slice name = cst_slice_of(new_name);
	struct cst_inode *old_parent = NULL;
	struct cst_identity *freed = NULL;
	int64_t rc = -ESTALE;
	CST_CHECK(inode, CST_INODE_MAGIC);
	if (!inode->parent) /* the root; it never has one */
		return -EINVAL;
	cst_inode_ref(t, new_parent);
	pthread_rwlock_wrlock(&t->moves);
	const struct cst_identity *id = inode->id; /* stays: publications hold `moves` too */
	uint32_t hash = inode->hash;
	bool moves = id->parent != new_parent->node || !cst_slice_eq(cst_inode_name_locked(inode), name);
	struct shard *from = name_shard(t, hash), *to = name_shard(t, name_hash(new_parent->node, new_name, name.len));
	lock_both(from, to);
	bool has_place = find_name(from, hash, inode->id->parent, inode->id->text, inode->id->name_len) == inode;
	if (is_below(new_parent, inode)) {
		rc = -EINVAL;
	} else if (has_place && moves) {
		old_parent = inode->parent;
		rc = (int64_t)move_locked(t, inode, from, to, new_parent, name, at, &freed);
		/* Its st_ino is not the one of first sight there. */
		__atomic_fetch_add(&t->replacements, 1, __ATOMIC_RELAXED);
	} else if (has_place) {
		rc = 0;
	}
	unlock_both(from, to);
	pthread_rwlock_unlock(&t->moves);
	if (freed)
		cst_identity_free_(t, freed);
	cst_inode_unref(t, old_parent ? old_parent : new_parent);
	return rc;
}

void cst_inode_each_below(struct cst_inode_table *t, const struct cst_inode *dir,
			  void (*each)(void *arg, struct cst_inode *inode), void *arg)
{
	pthread_rwlock_rdlock(&t->moves);
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &t->nodes[i];
		pthread_mutex_lock(&s->lock);
		for (size_t b = 0; b < s->size; b++)
			for (struct cst_inode *inode = s->buckets[b]; inode; inode = inode->next_node)
				if (inode != dir && is_below(inode, dir))
					each(arg, inode);
		pthread_mutex_unlock(&s->lock);
	}
	pthread_rwlock_unlock(&t->moves);
}

/* ---- what another process left ---- */

/* Records of one node beside each other, the later one of them last. */
struct left {
	struct cst_identity *id;
	uint64_t order; /* in which they came; later the node id, or 0: not taken over */
};

static int by_node(const void *a, const void *b)
{
	const struct left *x = a, *y = b;
	if (x->id->node != y->id->node)
		return x->id->node < y->id->node ? -1 : 1;
	return (x->order > y->order) - (x->order < y->order);
}

static struct cst_inode *node_of(struct cst_inode_table *t, uint64_t node)
{
	return find_node(node_shard(t, node), node);
}

/* Entered under its node id, and not yet below its parent, which may come later in the order of nodes: a directory made after what was renamed into it. */
static void restore_node(struct cst_inode_table *t, struct cst_identity *id)
{
	struct cst_inode *inode = cst_inode_new_(t, id);
	inode->refs = 0;
	cst_inode_insert_node_(node_shard(t, id->node), inode);
	t->count++;
	if (*t->next_node < id->node)
		*t->next_node = id->node;
}

/* A chain of parents that doesn't end at the root was being freed, or is not whole. */
static bool reaches_root(struct cst_inode_table *t, const struct cst_identity *id, size_t most)
{
	for (size_t steps = 0; steps <= most; steps++) {
		if (id->node == CST_NODE_ROOT)
			return true;
		const struct cst_inode *parent = node_of(t, id->parent);
		if (!parent || parent->kind != CST_KIND_DIR)
			return false;
		id = parent->id;
	}
	return false;
}

static void restore_name(struct cst_inode_table *t, struct cst_inode *inode)
{
	CST_ASSERT(inode); /* restore_node() entered it */
	struct cst_slice name = cst_inode_name_locked(inode);
	uint32_t hash = name_hash(inode->id->parent, name.data, name.len);
	struct shard *names = name_shard(t, hash);
	struct cst_inode *older = find_name(names, hash, inode->id->parent, name.data, name.len);
	inode->parent = node_of(t, inode->id->parent);
	CST_ASSERT(inode->parent); /* reaches_root() */
	inode->parent->refs++;
	if (older) { /* they come in the order of node ids */
		struct cst_entry entry;
		cst_inode_entry(t, inode, &entry);
		older->aside = cst_inode_is_version_locked(older, &entry);
		older->stale = !older->aside;
		cst_inode_remove_name_(names, older);
	}
	if (older || inode->ino != cst_inode_first_ino(inode->parent, name))
		t->replacements++;
	cst_inode_insert_name_(names, inode);
}

void cst_inode_table_restore(struct cst_inode_table *t, struct cst_identity *const *ids, size_t count)
{
	struct left *all = cst_xcalloc(count + 1, sizeof(*all));
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		all[i] = (struct left){ids[i], i};
	qsort(all, count, sizeof(*all), by_node);
	for (size_t i = 0; i < count; i++) {
		struct cst_identity *id = all[i].id;
		bool later = i + 1 < count && all[i + 1].id->node == id->node;
		if (id->node == CST_NODE_ROOT || later) {
			cst_identity_free_(t, id);
			continue;
		}
		all[kept++].id = id;
		restore_node(t, id);
	}
	/* First what is to stay, so that what goes can't be anybody's parent. */
	for (size_t i = 0; i < kept; i++)
		all[i].order = reaches_root(t, all[i].id, kept) ? all[i].id->node : 0;
	for (size_t i = 0; i < kept; i++)
		if (all[i].order)
			restore_name(t, node_of(t, all[i].id->node));
	for (size_t i = 0; i < kept; i++)
		if (!all[i].order)
			cst_inode_discard_(t, node_of(t, all[i].id->node));
	/* Those that only the other process had in use. Their parents may go with them. */
	for (size_t i = 0; i < kept; i++)
		if (all[i].order)
			cst_inode_unref(t, cst_inode_get(t, all[i].order));
	free(all);
}
