"""What follows from the state of a campaign: pure functions of state and settings."""
