"""Random scenarios on several backends, and findings that finish themselves."""
