"""Hearing: from blocks of samples to tokens, gestures and notes.

`listener` is the one way in. It joins, for one stream each:

- `front_end`: high-pass, resampling, `onsets`, segments → a `Window` per segment
- `separation`, `pitch`, `encoders`, `notes`: a window → `SegmentFeatures`
- `vocabulary`, `gestures`: features → a `Percept`: tokens and the gestures that it completed

`percepts` has the values that pass between them, and the frame grid. A new property of a segment becomes a field of
`SegmentFeatures`, computed in `FeatureExtractor.analyse` if it depends on the window alone, in `step` if it has a past; every
number that shapes it belongs in `PerceptionSpec`. A new encoder is a module in `encoders` and one entry in its registry.
"""
