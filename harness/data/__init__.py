"""Images, labels and captions, in splits."""
