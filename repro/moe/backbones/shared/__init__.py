"""What backbones share."""
