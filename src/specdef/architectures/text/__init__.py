"""Maps of language and text models, a file a family; each file lists its maps in FAMILIES."""
