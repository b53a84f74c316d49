"""Text that ships with the package: an excerpt of Shakespeare, public domain."""
