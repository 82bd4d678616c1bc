"""What a reading costs, beside what it cannot cost less than."""
