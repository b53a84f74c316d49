"""What tasks of text share: the general text, records from files, scores of likelihood and of generated text."""
