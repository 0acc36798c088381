/* The inode table: node ids the kernel holds, and what they stand for. The states and their transitions: doc/inode-states.md.
 *
 * Rules that everything above relies on:
 *  - A node id is a number from a counter: never reused, never a pointer. An unknown one gives ESTALE.
 *  - One inode is one version (ETag, size; of a store without ETags Last-Modified) of an object; a changed object gets a new node id and its old inode becomes stale:
 *    out of the index by name, still found by node id until nobody counts it. A directory keeps its node id.
 *  - st_ino is a hash of the path at first sight, renewed when another writer replaced the object.
 *  - The lookup count may be too high, never too low: it is raised before the reply that carries the node id.
 *  - struct cst_identity is all that another process needs to answer for a node id. It holds no pointers and is allocated apart
 *    from the rest, so it can lie in shared memory. Everything else in struct cst_inode can be found again from it.
 *
 * The table is sharded twice, by node id and by (parent, name), each shard with its mutex. Lock order: `moves` (renames change the tree, paths read it),
 * name shard, node shard. The node's shard mutex (cst_inode_lock) guards the fields of struct cst_inode marked [locked]; hold it for a few
 * instructions only. Any thread. An inode is freed when its lookup count and its references are both zero. A child holds a
 * reference to its parent, so the path of a live inode can always be told.
 *
 * What this mount publishes or renames itself changes an inode's version, name and parent: those are read as copies, through the functions below. The
 * identity is replaced as a whole, under its name's shard and its node's, so whoever holds either of them may look into it and nobody else. */
#pragma once

#include "meta/entry.h"

#define CST_NODE_ROOT UINT64_C(1)
#define CST_INODE_NAME_MAX 255 /* bytes, without the NUL */

struct cst_inode_table;
struct cst_dir;
struct cst_fetch_object;
struct fs_file;

/* The identity part. Never edited but for `lookups`, `size` and the marks in `kind`, each stored whole. */
struct cst_identity {
	uint64_t node;
	uint64_t parent;   /* node id; the root's is itself */
	uint64_t ino;	   /* st_ino */
	uint64_t size;	   /* with the ETag: the version; 0 for directories */
	uint32_t lookups;  /* the kernel's count, an upper bound; once UINT32_MAX it stays so */
	uint8_t kind;	   /* enum cst_kind, and CST_OPENED_… */
	uint8_t type_form; /* enum cst_object_type << 4 | form of the packed ETag */
	uint8_t name_len, etag_len;
	char text[]; /* name, NUL, packed ETag (meta/entry.h) */
};

/* That it was opened, and how: a process that comes later doesn't know of the handles. */
#define CST_OPENED_CACHED 0x40u /* the kernel keeps pages */
#define CST_OPENED_OTHER 0x80u
#define CST_OPENED_MARKS (CST_OPENED_CACHED | CST_OPENED_OTHER)

/* What few inodes have: made when it is first needed. */
struct cst_inode_more {
	uint32_t opens;		       /* open handles */
	char *link;		       /* symbolic links: what it points to, NULL: not known */
	int64_t link_at;	       /* when the store was asked for that */
	struct cst_dir *dir;	       /* directories, made on first use */
	int64_t kernel_listed;	       /* directories: since when the kernel may have the entries; 0: it has none */
	struct cst_fetch_object *data; /* files, made at the first open */
	struct fs_file *file;	       /* files that are open: the file system's */
	int64_t direct_at; /* when it was last opened with O_DIRECT, 0: never; kept by who takes its place */
};

struct cst_inode { /* what a search looks at comes first, so that it fits a line of the processor's cache */
	unsigned magic;
	uint8_t kind;	/* enum cst_kind; never changes, as node and ino don't */
	bool stale : 1; /* [locked] replaced or removed in the store; never reset */
	bool aside : 1; /* [locked] another inode of the same version has its place by name; never reset */
	bool held : 1; /* [locked] being written: what the store says of the name doesn't change it, until its writer resets this */
	bool written : 1;	     /* [locked] this mount has published it; never reset */
	uint32_t refs;		     /* [locked] users in this process, children included */
	uint32_t hash;		     /* private: of parent and name, guarded as the identity is */
	struct cst_identity *id;     /* private */
	struct cst_inode *next_name; /* private: chains of the shards */
	struct cst_inode *next_node;
	uint64_t node;		      /* node id */
	uint64_t ino;		      /* st_ino */
	struct cst_inode *parent;     /* private; counted; NULL for the root */
	int64_t checked;	      /* [locked] when the store was asked last; 0: must be asked before use */
	int64_t mtime;		      /* [locked] Last-Modified, s */
	struct cst_object_attr *attr; /* [locked] counted, NULL: not known */
	struct cst_inode_more *more;  /* [locked] NULL: nothing of it */
};
#define CST_INODE_MAGIC 0x1a0de001u

static inline bool cst_inode_is_dir(const struct cst_inode *inode)
{
	return inode->kind == CST_KIND_DIR;
}
/* To read, under the lock: all zero where there is nothing. */
static inline const struct cst_inode_more *cst_inode_peek(const struct cst_inode *inode)
{
	static const struct cst_inode_more nothing;
	return inode->more ? inode->more : &nothing;
}
/* To write, under the lock. */
struct cst_inode_more *cst_inode_more(struct cst_inode *inode);

/* Where identities lie: NULL: the heap. Else memory that outlives the process (the supervisor's), from which a successor restores the table. alloc: room
 * for `size` bytes, aligned to 8, never NULL; commit: the record is whole, a successor may see it from now on; when it takes the place of another of the
 * same node that one is freed after this. Any thread, under locks of the table. */
struct cst_identity_memory {
	void *(*alloc)(void *arg, size_t size);
	void (*commit)(void *arg, struct cst_identity *id);
	void (*free)(void *arg, struct cst_identity *id, size_t size);
	void *arg;
	uint64_t *next_node; /* the counter of node ids, there too: 0 at first; atomic */
	uint64_t generation; /* of the mount: the same for all processes that serve it */
};
size_t cst_identity_size(const struct cst_identity *id);

/* `drop` releases what hangs on an inode when it is freed (dir, data); called without locks. */
struct cst_inode_table *cst_inode_table_new(void (*drop)(struct cst_inode *inode),
					    const struct cst_identity_memory *memory);
/* Takes over what another process left in the memory, before anybody uses the table: nothing is known of these inodes but who they are, so the store is
 * asked before their next use. Of two of one name the younger has the place. Of two of one node (the process died between commit and free) the one
 * later in `ids` counts and the other is freed, as are the root's and those whose parent is not there. */
void cst_inode_table_restore(struct cst_inode_table *table, struct cst_identity *const *ids, size_t count);
/* Frees every inode, whatever its counts. */
void cst_inode_table_free(struct cst_inode_table *table);
uint64_t cst_inode_table_count(const struct cst_inode_table *table);
uint64_t cst_inode_table_generation(const struct cst_inode_table *table);

/* Marks the identity, for good; CST_OPENED_…. */
void cst_inode_mark_opened(struct cst_inode_table *table, struct cst_inode *inode, unsigned mark);
unsigned cst_inode_opened(struct cst_inode_table *table, const struct cst_inode *inode);

/* The inode of a node id with a reference, or NULL: answer ESTALE. */
struct cst_inode *cst_inode_get(struct cst_inode_table *table, uint64_t node);
/* The current (not stale) inode of a name with a reference, or NULL. */
struct cst_inode *cst_inode_find(struct cst_inode_table *table, struct cst_inode *parent, const char *name);
struct cst_inode *cst_inode_ref(struct cst_inode_table *table, struct cst_inode *inode);
void cst_inode_unref(struct cst_inode_table *table, struct cst_inode *inode);
/* Calls `each` for every inode, under its lock; `each` may raise inode->refs and take nothing else. Its name and parent's node id are
 * cst_inode_name_locked() and cst_inode_parent_locked() there. */
void cst_inode_each(struct cst_inode_table *table, void (*each)(void *arg, struct cst_inode *inode), void *arg);
static inline struct cst_slice cst_inode_name_locked(const struct cst_inode *inode)
{
	return (struct cst_slice){inode->id->text, inode->id->name_len};
}
static inline uint64_t cst_inode_parent_locked(const struct cst_inode *inode)
{
	return inode->id->parent;
}
/* Takes `count` off the lookup count. -ESTALE: unknown node. More than there were is taken as all. */
int cst_inode_forget(struct cst_inode_table *table, uint64_t node, uint64_t count);

/* Enters news of a name and returns its inode with a reference and `lookups` more on the lookup count:
 * the same inode when the version is the same or the news are older than what the inode knows; else a new one. *replaced is
 * then the node id that became stale, or 0. */
struct cst_inode *cst_inode_enter(struct cst_inode_table *table, struct cst_inode *parent, const char *name,
				  const struct cst_entry *entry, unsigned lookups, uint64_t *replaced);
/* News of `at` say that the name is gone. Returns the node id that became stale, or 0. */
uint64_t cst_inode_remove(struct cst_inode_table *table, struct cst_inode *parent, const char *name, int64_t at);

/* What this mount does itself; the node id and st_ino stay. The directory's overlay (meta/dir.h) is the caller's, as is telling the kernel: it did it. */
/* The file's own writer published it, as of entry->at, or wrote on (the size alone, with the ETag and time that cst_inode_entry() gave): it is this
 * version now. */
void cst_inode_publish(struct cst_inode_table *table, struct cst_inode *inode, const struct cst_entry *entry);
/* The inode has another name, as of `at`; what is below a directory has other paths (cst_inode_each_below). What had that name before becomes stale;
 * returns its node id, or 0. Negative: -ESTALE: the inode has no place by name any more; -EINVAL: the new parent is the inode or below it. */
int64_t cst_inode_rename(struct cst_inode_table *table, struct cst_inode *inode, struct cst_inode *new_parent,
			 const char *new_name, int64_t at);
/* As cst_inode_each, for what is below a directory at any depth. */
void cst_inode_each_below(struct cst_inode_table *table, const struct cst_inode *dir,
			  void (*each)(void *arg, struct cst_inode *inode), void *arg);

/* Puts another inode of the same version and st_ino, with a new node id, in the inode's place by name: the next lookup finds that. The inode
 * stays what it is for whoever has its node id. Nothing happens to one that has no place. */
void cst_inode_set_aside(struct cst_inode_table *table, struct cst_inode *inode);

void cst_inode_lock(struct cst_inode_table *table, const struct cst_inode *inode);
void cst_inode_unlock(struct cst_inode_table *table, const struct cst_inode *inode);

/* Is the entry the same version of the same thing? */
bool cst_inode_is_version(struct cst_inode_table *table, const struct cst_inode *inode, const struct cst_entry *entry);
bool cst_inode_is_version_locked(const struct cst_inode *inode, const struct cst_entry *entry);
/* What the inode knows, as an entry (with a reference to its attributes). */
void cst_inode_entry(struct cst_inode_table *table, const struct cst_inode *inode, struct cst_entry *entry);
uint64_t cst_inode_size(struct cst_inode_table *table, const struct cst_inode *inode);
/* Where it is: its name, and its parent with a reference (NULL, and "", for the root). */
struct cst_inode *cst_inode_place(struct cst_inode_table *table, const struct cst_inode *inode,
				  char name[CST_INODE_NAME_MAX + 1]);
/* The path below the root, "a/b" ("" for the root), as it was at one moment. */
void cst_inode_path(struct cst_inode_table *table, const struct cst_inode *inode, struct cst_buf *out);
/* The st_ino that a name gets at first sight. */
uint64_t cst_inode_first_ino(const struct cst_inode *parent, struct cst_slice name);
/* The st_ino a listing shows for a name: that of the current inode, else the one of first sight. */
uint64_t cst_inode_list_ino(struct cst_inode_table *table, const struct cst_inode *parent, struct cst_slice name);
