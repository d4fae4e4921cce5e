"""Pipeline steps, one a file."""
