"""kill -9 for minutes, then the comparison with a service that nobody disturbed: `make chaos`."""
