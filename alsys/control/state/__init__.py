"""What a campaign knows: events change it, nothing else does."""
