/* Making room: when the key "a/b" comes while "a" is a file, a directory a/ with the file in it as a/.%f takes the file's
 * place. In one step where the file system can exchange two names; elsewhere in two, with a note in DIR/.cistern/tmp/ from
 * which the next start puts the object back if the store dies in between. */
#pragma once

#include "store/backend.h"

/* The file at `path` becomes a directory; 0 also when it has gone or is one. Wants `tree` held exclusively. */
int cst_room_make(struct cst_store_backend *b, int bucket, const char *path);
/* At start, before tmp/ is emptied. 0, or -errno when an object could not be put back. */
int cst_room_recover(struct cst_store_backend *b);
