"""Numbers beyond which a file from outside is wrong, or would take all memory by a few bytes."""

LARGEST_FRAME = 10**7  # number of a frame, or of frames; four days at 25 frames a second
LARGEST_SIDE = 2**16  # pixels of a frame; the largest of JPEG
LARGEST_AREA = 2**25  # pixels of a frame; 7680 x 4320 has a little less
LARGEST_COORDINATE = 10.0**6  # of a box, pixels; boxes may reach over the edge
LARGEST_CLASS = 4_999  # number of a class, from 0 or from 1
LONGEST_NAME = 300  # letters of the name of a video in a table, whose rows are all as wide
