/* The entries of `cistern mount` and of the names that mean it (main.c chooses by argv[0]). One thread. */
#pragma once

#include "cli/mount_options.h"

/* Mounts and returns the exit status: in the background the parent's, at once when the mount is ready; else when it is gone. */
int cst_mount_main(enum cst_persona persona, bool dry_run, int argc, char **argv);
/* The same for mount(8)'s helpers. */
int cst_mount_helper_main(enum cst_persona persona, int argc, char **argv);
