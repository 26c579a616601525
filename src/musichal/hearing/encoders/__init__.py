"""Encoders: from separated stems to one feature vector per frame and source."""
