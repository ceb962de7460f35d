"""What people and other tools read of a result."""
