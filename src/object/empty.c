typedef int cst_object_empty; /* removed when the layer has its first source */
