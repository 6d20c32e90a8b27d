"""What the command can run: one file for each choice of `run`."""
