typedef int cst_net_empty; /* removed when the layer has its first source */
