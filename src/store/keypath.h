/* Where an object's key lies in its bucket's folder. Pure functions; any thread.
 *
 * A key's parts between slashes are its components. An ordinary component is a directory or file of that very name, so
 * what a user copies into the folder is an object at once and `docs/a.txt` is found as docs/a.txt. Names that begin
 * with ".%" are the store's:
 *
 *	.%		an empty component: "a//b" is a/.%/b, "dir/" is dir/.%, "/x" is .%/x
 *	.%xNAME		the component NAME that can't be a name itself: ".", ".." and what begins with ".%"
 *	.%lPIECE/…	a component of more than 255 bytes: directories with pieces of 250 bytes,
 *	.%tREST		and the rest of it (1 to 250 bytes) as the last name
 *	.%f		the object named like the directory it lies in: with "a" and "a/b" both stored, a/.%f and a/b
 *
 * A component has exactly one spelling, so distinct keys have distinct paths; a name that begins with ".%" but isn't
 * one of these spellings (or isn't the one that the store would choose) is no object. Keys hold any byte but NUL. The
 * longest key of 1,024 bytes gives a path shorter than PATH_MAX. */
#pragma once

#include "base/buf.h"

#define CST_KEY_MAX 1024
#define CST_KEYPATH_SELF ".%f"

/* The path of a key, relative to the bucket's folder. 0; -EINVAL: empty or with a NUL; -ENAMETOOLONG. */
int cst_keypath_of(struct cst_slice key, struct cst_buf *path);

enum cst_name_kind {
	CST_NAME_HIDDEN, /* no part of any key */
	CST_NAME_WHOLE,	 /* *part is a component */
	CST_NAME_SELF,	 /* the object named like this directory */
	CST_NAME_PIECE,	 /* *part is a piece of a long component; more lies in this directory */
	CST_NAME_TAIL,	 /* *part ends a long component */
};
/* What a name found in a bucket's folder stands for. *part points into `name`. `before`: bytes of the pieces above it
 * (0: the name is not inside a .%l directory). */
enum cst_name_kind cst_keypath_name(struct cst_slice name, size_t before, struct cst_slice *part);
/* For a long component put together from its pieces: is this the spelling that the store chooses? */
bool cst_keypath_is_long(struct cst_slice component);
