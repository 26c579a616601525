"""Learned encoders of the HuBERT family (MERT, HuBERT, wav2vec 2.0): checkpoints as strangers made them, loaded strictly.

`layout` says what a config describes, `weights` reads tensors without running code, `hub` fetches, `checkpoint` puts them
together into one value, `preprocess` prepares samples and `module` builds the part of the network that is used.
"""
