"""One signature over every file of a locked folder, of a results folder, or of both."""
