"""Maps of image models, a file a family; each file lists its maps in FAMILIES."""
