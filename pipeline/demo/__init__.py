"""The demo: a simulated plant with known faults, watched by the same service as a real one."""
