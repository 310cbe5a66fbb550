"""What becomes of what workers return, and of what users ask."""
