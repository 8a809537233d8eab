"""The worst days, rehearsed: failures of a real stack under load, and what they cost."""
