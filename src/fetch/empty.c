typedef int cst_fetch_empty; /* removed when the layer has its first source */
