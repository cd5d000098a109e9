"""RoIAlign one bilinear sample at a time: what fast code is compared with."""

import numpy as np

BINS, SAMPLES = 7, 2


def bilinear(pixels, y, x):
  height, width = pixels.shape[:2]
  if y < -1 or y > height or x < -1 or x > width:
    return np.zeros(pixels.shape[2])
  y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
  top, left = int(y), int(x)
  bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
  upper = pixels[top, left] * (1 - (x - left)) + pixels[top, right] * (x - left)
  lower = pixels[bottom, left] * (1 - (x - left)) + pixels[bottom, right] * (x - left)
  return upper * (1 - (y - top)) + lower * (y - top)


def slow_roi_align(pixels, box, stride):
  x1, y1, x2, y2 = np.asarray(box, float) / stride - 0.5
  out = np.zeros((BINS, BINS, pixels.shape[2]))
  for i in range(BINS):
    for j in range(BINS):
      for a in range(SAMPLES):
        for b in range(SAMPLES):
          y = y1 + (y2 - y1) / BINS * (i + (a + 0.5) / SAMPLES)
          x = x1 + (x2 - x1) / BINS * (j + (b + 0.5) / SAMPLES)
          out[i, j] += bilinear(pixels, y, x) / SAMPLES**2
  return out
