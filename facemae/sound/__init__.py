"""Sound: files to mono waves on the video's time line, members of shards, log-mel, windows beneath video frames.

A wave is float32 [N] in [-1, 1], mono. Time is in seconds; zero is the presentation time of the video's first frame,
and sample n of a wave stands at n / rate. Needs the extra `video`, but for `mel` and `align`.
"""
