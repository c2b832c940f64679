"""The ways in: command line and files."""
