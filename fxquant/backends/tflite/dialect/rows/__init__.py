"""The rows of the operator table, one file per family, as the functions are."""
