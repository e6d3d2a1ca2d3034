"""What corpora share."""
