"""The sections of a study: typed, one for each part of the pipeline, with the kinds that it comes in.

An embedded study trains every model itself; a paper-scale one takes an encoder, a decoder and the networks that score from files that its
user supplies, its *assets*. Both are made of these sections.
"""
