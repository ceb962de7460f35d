"""What each kind of guest has to show: its parts, and how it ended."""
