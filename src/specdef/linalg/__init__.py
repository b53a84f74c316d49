"""Pure numerics: exact power-of-two scaling, truncated SVD, spectral deformation."""
