"""The Python API behind ``import musichal as mh``; the commands use the same functions."""
