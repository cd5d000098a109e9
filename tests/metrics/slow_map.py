"""The rules of the metrics word by word, one row at a time: what fast code is compared with."""


def iou(a, b):
  width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
  height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
  both = width * height
  union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
  return both / union if union > 0 else 0.0


def match(detections, truth, overlap, threshold=0.5):
  """Rows (frame, item, score) by falling score -> [(row, truth number or None)], best first.

  `overlap(item, truth item)` is the IoU; only items of the same frame are compared.
  """
  free = [True] * len(truth)
  matched = []
  for row in sorted(range(len(detections)), key=lambda row: -detections[row][2]):
    frame, item, _ = detections[row]
    best, best_overlap = None, 0.0
    for i, (truth_frame, other) in enumerate(truth):
      value = overlap(item, other) if truth_frame == frame else 0.0
      if value > best_overlap:
        best, best_overlap = i, value
    hit = best is not None and best_overlap >= threshold and free[best]
    if hit:
      free[best] = False
    matched.append((row, best if hit else None))
  return matched


def area(hits, num_truth):
  """Hits in ranking order -> the area under the monotone precision envelope."""
  points = [(0.0, 1.0)]
  for rank in range(1, len(hits) + 1):
    found = sum(hits[:rank])
    points.append((found / num_truth, found / rank))
  return sum(
    (points[i][0] - points[i - 1][0]) * max(precision for _, precision in points[i:])
    for i in range(1, len(points))
  )


def average_precision(detections, truth, overlap=iou, threshold=0.5):
  """None without truth."""
  if not truth:
    return None
  hits = [number is not None for _, number in match(detections, truth, overlap, threshold)]
  return area(hits, len(truth))


def mean(values):
  values = [value for value in values if value is not None]
  return sum(values) / len(values) if values else None
