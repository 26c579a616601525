"""Sound in and out: recordings, resampling, synthesis, mixing."""
