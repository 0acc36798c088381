typedef int cst_store_empty; /* removed when the layer has its first source */
