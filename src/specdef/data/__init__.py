"""Text that ships with the package: openings of books and speeches in the public domain."""
