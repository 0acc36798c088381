/* What is known of one name in a directory: the currency between listings, HEADs, the inode table and the file system.
 *
 * A cst_entry is a plain value on somebody's stack or inside a request; it owns one reference to its attributes record. A
 * cst_object_attr is an immutable, counted record of what an object's metadata says of it (attributes=object), valid for one
 * (key, ETag, Last-Modified). Any thread. */
#pragma once

#include "object/object.h"

enum cst_kind { CST_KIND_NONE, CST_KIND_FILE, CST_KIND_DIR, CST_KIND_SYMLINK };

enum { /* cst_object_attr.has */
       CST_ATTR_MODE = 1,
       CST_ATTR_UID = 2,
       CST_ATTR_GID = 4,
       CST_ATTR_MTIME = 8,
       CST_ATTR_ATIME = 16,
       CST_ATTR_CTIME = 32,
       CST_ATTR_XATTR = 64, /* there are extended attributes of ossfs 1.0 */
};

struct cst_object_attr {
	struct cst_ref ref;
	uint32_t has;
	uint32_t mode, uid, gid;     /* mode with its type bits */
	int64_t mtime, atime, ctime; /* ns since 1970 */
	int64_t last_modified;	     /* s; with etag_hash the version this was read from */
	uint64_t etag_hash;
};
/* Reads the metadata names of ossfs 1.0 (mode decimal, uid, gid, mtime, atime, ctime, xattr) from a HEAD's answer. Never NULL;
 * what is missing or malformed is not in `has`. */
struct cst_object_attr *cst_object_attr_new(const struct cst_object_info *info);
/* For a directory without a marker of its own: nothing is known. */
struct cst_object_attr *cst_object_attr_none(void);
struct cst_object_attr *cst_object_attr_ref(struct cst_object_attr *attr); /* NULL is allowed */
void cst_object_attr_unref(struct cst_object_attr *attr);

/* An ETag in few bytes: an MD5 in hexadecimal, with or without a number of parts, takes 16 and as many as that number; others are kept as they are.
 * The same text always gives the same bytes and form. */
#define CST_ETAG_PACKED_MAX (CST_ETAG_MAX + 1)
/* Returns how many bytes there are; *form, below 16, is to be kept beside them. */
size_t cst_etag_pack(uint8_t out[CST_ETAG_PACKED_MAX], const char *etag, unsigned *form);
void cst_etag_unpack(const uint8_t *packed, unsigned form, char out[CST_ETAG_MAX]);

struct cst_entry {
	enum cst_kind kind;
	enum cst_object_type type;
	uint64_t size;
	int64_t mtime; /* Last-Modified, s since 1970; 0: unknown (directories) */
	int64_t at;    /* when the store was asked, meta's clock; newer news win over older */
	char etag[CST_ETAG_MAX];
	struct cst_object_attr *attr; /* owned reference, or NULL: not known */
};
#define CST_ENTRY_INIT \
	{              \
		0      \
	}
void cst_entry_fini(struct cst_entry *entry);
#define CST_AUTO_ENTRY CST_CLEANUP(cst_entry_fini) struct cst_entry
/* A HEAD's answer as an entry; with_attr reads the metadata too. */
void cst_entry_from_info(struct cst_entry *entry, const struct cst_object_info *info, bool with_attr, int64_t at);
/* Do these attributes belong to this version of the object? */
bool cst_entry_attr_matches(const struct cst_entry *entry, const struct cst_object_attr *attr);
