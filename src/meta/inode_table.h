/* Private to the inode table: inode.c (finding, entering, counts) and inode_moves.c (what this mount changes itself, restoring). */
#pragma once

#include "meta/inode.h"
#include "meta/slab.h"

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
	pthread_rwlock_t moves; /* written by renames: parents and names of directories change; read by who walks up */
	struct cst_slab *slab;
	struct cst_identity_memory memory;
	uint64_t own_next_node;
	uint64_t *next_node;   /* atomic: the highest node id given so far */
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

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}

static inline uint32_t name_hash(uint64_t parent, const char *name, size_t len)
{
	return (uint32_t)XXH3_64bits_withSeed(name, len, parent);
}

static inline struct shard *node_shard(struct cst_inode_table *t, uint64_t node)
{
	return &t->nodes[mix(node) % SHARDS];
}

static inline struct shard *name_shard(struct cst_inode_table *t, uint64_t hash)
{
	return &t->names[hash % SHARDS];
}

/* The low bits choose the shard, the ones above them the bucket. */
static inline struct cst_inode **bucket(const struct shard *s, uint64_t hash)
{
	return &s->buckets[(hash / SHARDS) & (s->size - 1)];
}

static inline struct cst_inode *find_node(const struct shard *s, uint64_t node)
{
	struct cst_inode *inode = *bucket(s, mix(node));
	while (inode && inode->node != node)
		inode = inode->next_node;
	return inode;
}

static inline struct cst_inode *find_name(const struct shard *s, uint64_t hash, uint64_t parent, const char *name,
					  size_t len)
{
	struct cst_inode *inode = *bucket(s, hash);
	while (inode && (inode->hash != (uint32_t)hash || inode->id->parent != parent || inode->id->name_len != len ||
			 memcmp(inode->id->text, name, len) != 0))
		inode = inode->next_name;
	return inode;
}

/* Under the shard's lock. remove_name: harmless when the inode is not in the index (stale). */
void cst_inode_insert_node_(struct shard *s, struct cst_inode *inode);
void cst_inode_insert_name_(struct shard *s, struct cst_inode *inode);
void cst_inode_remove_name_(struct shard *s, struct cst_inode *inode);
/* The node, parent, st_ino and counts of `was` with a name and version. */
struct cst_identity *cst_identity_new_(struct cst_inode_table *t, const struct cst_identity *was, struct cst_slice name,
				       const struct cst_entry *entry);
void cst_identity_free_(struct cst_inode_table *t, struct cst_identity *id);
struct cst_inode *cst_inode_new_(struct cst_inode_table *t, struct cst_identity *id);
/* One that nobody counts and that has no place by name. */
void cst_inode_discard_(struct cst_inode_table *t, struct cst_inode *inode);
