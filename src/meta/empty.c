typedef int cst_meta_empty; /* removed when the layer has its first source */
