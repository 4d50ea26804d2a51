"""Audio-video retrieval: does a run know which second of sound belongs to which second of a face?"""
