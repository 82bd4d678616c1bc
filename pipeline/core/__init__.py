"""Everything that decides, in pure numpy: no clock, no I/O, no logging, no settings files."""
