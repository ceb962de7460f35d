"""What this machine can run, measured, and why not the rest."""
