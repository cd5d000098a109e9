"""Limits beyond which a file from outside is wrong, or could fill the memory with a few bytes."""

LARGEST_FRAME = 10**7  # index of a frame, or number of frames; four days at 25 frames per second
LARGEST_SIDE = 2**16  # side of a frame, pixels; the largest of JPEG
LARGEST_AREA = 2**25  # area of a frame, pixels; 7680 x 4320 is slightly less
LARGEST_COORDINATE = 10.0**6  # of a box, pixels; boxes may extend beyond the frame
LARGEST_CLASS = 4_999  # id of a class, counted from 0 or 1
LONGEST_NAME = 300  # characters of a video name in a table, whose rows all have the same width
