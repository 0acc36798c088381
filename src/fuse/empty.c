typedef int cst_fuse_empty; /* removed when the layer has its first source */
