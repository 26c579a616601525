"""The partner: from what was just heard to what to play, with the reason."""
