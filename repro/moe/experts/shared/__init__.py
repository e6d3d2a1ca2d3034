"""What expert back-ends share."""
