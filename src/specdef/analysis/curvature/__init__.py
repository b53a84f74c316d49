"""Curvature of real models: Hessian and Gauss-Newton eigenvalues, blocks, spectral density; exact products only."""
