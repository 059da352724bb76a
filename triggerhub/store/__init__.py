"""What must survive a restart: positions, claims, dead letters, and the journal for `why`."""
