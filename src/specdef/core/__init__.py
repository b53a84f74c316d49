"""What every part uses: registry, schema, dtypes, atomic files, new folders."""
