"""Detections from raw outputs, by hand."""

import numpy as np

from evad_jax.inference import predict
from evad_jax.structures import Outputs


def test_detections_are_of_the_last_stage_clipped_and_divided_by_the_picture():
  wrong = np.full((1, 1, 2, 4), 1.0, np.float32)
  boxes = np.array([[[[-5, 5, 100, 100], [10, 4, 20, 8]]]], np.float32)  # (1, B, P, 4)
  logits = np.log(np.array([[[[3, 1], [1, 4]]]], np.float32))
  actions = np.log(np.array([[[[1, 3], [1 / 4, 9]]]], np.float32))
  outputs = Outputs(
    np.concatenate([logits[..., ::-1], logits]),
    np.concatenate([wrong, boxes]),
    np.concatenate([-actions, actions]),
  )
  found = predict.detections(outputs, np.array([[20, 40]], np.int32))
  wanted = [[[0, 5 / 20, 39 / 40, 19 / 20], [0.25, 0.2, 0.5, 0.4]]]
  np.testing.assert_allclose(found.boxes, wanted, rtol=1e-6)
  np.testing.assert_allclose(found.person_scores, [[0.75, 0.2]], rtol=1e-6)
  np.testing.assert_allclose(found.action_scores, [[[0.5, 0.75], [0.2, 0.9]]], rtol=1e-6)
