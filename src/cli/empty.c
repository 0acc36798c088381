typedef int cst_cli_empty; /* removed when the layer has its first source */
