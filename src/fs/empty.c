typedef int cst_fs_empty; /* removed when the layer has its first source */
