"""The published sizes of EVAD: its keyword arguments that go with them."""

VIT_B = dict(  # the defaults of EVAD's fields
  width=768,
  depth=12,
  num_heads=12,
  prune_blocks=(3, 6, 9),
  feature_blocks=(2, 5, 8, 11),
  drop_path=0.1,
  detector_heads=8,
  decoder_width=384,
  decoder_depth=6,
  decoder_heads=6,
  decoder_drop_path=0.1,
)
VIT_L = dict(
  width=1024,
  depth=24,
  num_heads=16,
  prune_blocks=(6, 12, 18),
  feature_blocks=(5, 11, 17, 23),
  drop_path=0.2,
  detector_heads=8,
  decoder_width=512,
  decoder_depth=12,
  decoder_heads=8,
  decoder_drop_path=0.1,
)
