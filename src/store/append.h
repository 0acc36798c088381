/* Appending to an object in place, so that what was answered is kept and what wasn't leaves no trace.
 *
 * DIR/.cistern/appends/ID is written and synced before the object's file grows; it names bucket and key and holds the
 * record that the object has then. Next the bytes are added, the new record set, the file synced, and the note removed.
 * A store that starts and finds a note looks whether the file is what its record says: then the append was complete;
 * else the file is cut to the old size and gets its old time and record back. */
#pragma once

#include "store/backend.h"

/* At start, before any request. */
void cst_append_recover(struct cst_store_backend *b);
