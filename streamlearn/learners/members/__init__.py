"""Members of a pool, one small file each: simple single-pass classifiers that learn row by row."""
