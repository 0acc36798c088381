/* Appending to an object in place, so that what was answered is kept and what wasn't leaves no trace.
 *
 * DIR/.cistern/appends/ID is written and synced before the object's file grows; it names bucket, key, inode and the size
 * to come, and holds the record that the object has then. Next the bytes are added, the new record set, the file synced,
 * and the note removed. A store that starts and finds a note looks whether the file is that one, no longer than the
 * append made it, and still has that record: then it is cut to the old size and gets its old time back. Otherwise the
 * append was complete, or the file has nothing to do with it any more. */
#pragma once

#include "store/backend.h"

/* At start, before any request. */
void cst_append_recover(struct cst_store_backend *b);
