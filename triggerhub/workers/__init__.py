"""Several processes of one hub, supervised: each a replica, on the same addresses and data."""
