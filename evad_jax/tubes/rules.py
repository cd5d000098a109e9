"""Published linking rules, as data.

`greedy` is the family of ACT (arXiv 1705.01861) and MOC (arXiv 2001.04608), for boxes of single
frames. In every frame the tubes, in falling mean score, each take the highest-scored free box that
overlaps their last one. A tube ends when it has missed too many frames; its gaps are filled by
linear interpolation. Thresholds for links and misses are ACT's, for suppression MOC's. (MOC links
tubelets of 7 frames at an IoU of 0.5. With single frames, that breaks the tubes of fast people: the
ground-truth boxes of all of UCF101-24 as detections reach a video-mAP@0.5 of 0.77 with it, and 0.89
with ACT's 0.2.)

`viterbi` is the family of Finding Action Tubes (arXiv 1411.6031). Over the entire video, the path
with the largest sum of box scores and overlaps becomes a tube, its boxes are removed, and so on.
Paths may begin and end anywhere and miss frames as above.

`multisports` is the rule of the MultiSports benchmark: greedy without misses, after soft
suppression with inclusive pixels; its temporal extents are differences, not counts, of frames.

`PEOPLE` tracks people from keyframe to keyframe, whatever they do. Person scores are all similar,
so the box that overlaps a tube most continues it.
"""

from typing import NamedTuple


class Rule(NamedTuple):
  """How boxes of one class become tubes."""

  name: str
  look_ahead: bool = False  # paths over the entire video instead of frame by frame
  soft_suppression: bool = False  # lower the scores of near boxes instead of dropping them
  suppression_iou: float = 0.6  # boxes of a frame that overlap a better one by more are near
  extra_pixel: int = 0  # added to widths and heights in suppression; boxes must then be in pixels
  last_of_equal_first: bool = False  # order of a frame's boxes with equal scores, in suppression
  max_boxes: int = 10  # per frame and class, after suppression
  link_iou: float = 0.2  # least overlap with the last box of a tube
  by_overlap: bool = False  # link pairs of tube and box in falling overlap; online only
  max_missing: int = 5  # consecutive frames that a tube may go without a box
  min_score: float = 0.005  # of a tube: the mean score of its boxes
  min_frames: int = 15  # of a tube, gaps included
  tube_iou: float | None = 0.3  # tubes that overlap a better one by more are dropped; None: none
  counts_frames: bool = True  # a tube on frames 3 to 5 lasts 3 frames; False: 2


RULES = {
  rule.name: rule
  for rule in (
    Rule('greedy'),
    Rule('viterbi', look_ahead=True),
    Rule(
      'multisports',
      soft_suppression=True,
      extra_pixel=1,
      last_of_equal_first=True,
      link_iou=0.5,
      max_missing=0,
      tube_iou=None,
      counts_frames=False,
    ),
  )
}

SCORE_DIGITS = 9  # precision of means of float32 scores: beyond it, sums of equal scores differ

PEOPLE = Rule('people', by_overlap=True, suppression_iou=0.7, max_boxes=100)
