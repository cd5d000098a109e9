"""Every configuration key, with its default and a comment; the other files change what differs.

Defaults are the published AVA recipe of ViT-B at keep rate 0.7. A key that is not here is an error.
Sections become keyword arguments: `model` of EVAD, `clip` of ClipSettings.
"""

import math

from ml_collections import ConfigDict, config_dict

from evad_jax.errors import InputError
from evad_jax.model import sizes


def get_config() -> ConfigDict:
  """Returns all keys; `data.directory` and `model.num_actions` have to be set."""
  config = ConfigDict()
  config.name = ''  # of the run; the default working directory is runs/NAME
  config.seed = 0  # of initial parameters, order of clips, mirroring and drop path
  config.matmul_precision = 'highest'  # of float32 products; 'default': faster, less precise
  # Checkpoints, of a run or converted: a directory of them, one step in it, or a run's directory.
  config.init_from = ''  # initial parameters of training; empty: random initialisation
  config.checkpoint = ''  # for --mode=eval; empty: the checkpoints of the working directory

  config.data = ConfigDict()
  config.data.directory = ''  # of prepared records
  config.data.prepare_command = ''  # shown where nothing is prepared
  config.data.synthetic = ''  # 'easy' or 'hard': made at the start where it is missing
  config.data.train_split = 'train'
  config.data.eval_split = 'test'
  # What to do where classes, examples, splits or clip sizes differ from those in the run's own
  # checkpoints: 'refuse' to resume, or 'accept'.
  config.data.if_changed = 'refuse'
  config.data.workers = 0  # decoding processes; 0: only threads of this process
  config.data.threads = 4  # decoding threads, per process
  # Batches made ahead by each worker, or by the threads. With fewer than twice the threads, a
  # thread that is done waits for the batch before its own.
  config.data.prefetch = 8
  # At clips that cannot be read, because their bytes on disk are damaged: 'stop', or 'skip' them:
  # they are named and counted, and their rows of batches are masked.
  config.data.unreadable = 'stop'

  config.clip = ConfigDict()
  config.clip.clip_frames = 16  # T
  config.clip.frame_stride = 4  # step between frames of the clip, in frames of the video
  # Heights and widths, multiples of 2 * patch; a clip goes to the one with the least padding, and
  # each is one compiled program. 4:3, 16:9, 1.85:1, 2.35:1, and wider.
  config.clip.canvases = ((288, 384), (288, 512), (288, 544), (288, 704), (288, 768))
  config.clip.short_side = 288  # pixels; 0: the largest picture that fits the canvas
  config.clip.max_long = 1333  # pixels, upper limit of the long side
  config.clip.flip_probability = 0.5  # of mirroring a training clip
  config.clip.max_boxes = 64  # most people on a keyframe; at most model.num_proposals
  config.clip.reduced_decoding = False  # decode large frames smaller: faster, but other pixels

  # Pre-training alone: its clips have clip_frames, frame_stride, one square canvas and
  # flip_probability (published: 0) of config.clip, and are cropped.
  config.pretrain_data = ConfigDict()
  # Sides of a crop as fractions of the frame's short side, falling; neighbours may be combined.
  config.pretrain_data.scales = (1.0, 0.875, 0.75, 0.66)
  config.pretrain_data.copies = 1  # crops of each decoded clip, to spare decoding
  # An epoch has one clip of every video; above 0: of every piece of about so many frames.
  config.pretrain_data.piece_frames = 0

  config.model = vit_b()
  config.model.num_actions = 80

  config.loss = ConfigDict()
  config.loss.action_weight = 12.0  # 12 for ViT-B, 6 for ViT-L

  config.optimizer = ConfigDict()
  config.optimizer.rate = 2.5e-5  # for a batch of ...
  config.optimizer.rate_batch_size = 16  # ... this size; rates scale linearly with the batch size
  config.optimizer.head_multiplier = 8.0  # rate of person stages and decoder / that of the encoder
  config.optimizer.schedule = 'step'  # or 'cosine'
  config.optimizer.warmup_epochs = 2.0
  config.optimizer.warmup_start = 2.5e-6  # rate at the first step
  config.optimizer.milestones = (5.0, 8.0)  # epochs at which ...
  config.optimizer.factors = (0.1, 0.01)  # ... the rate becomes this fraction of `rate`
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.999
  config.optimizer.eps = 1e-8
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.0  # largest global gradient norm; 0: off, as published
  config.optimizer.layer_decay = 1.0  # factor of the rate per encoder block from the top; 1: off

  config.train = ConfigDict()
  config.train.batch_size = 16  # clips, over all devices and processes
  config.train.epochs = 12.0
  config.train.accumulation = 1  # gradient accumulation steps (microbatches), to save memory
  config.train.ema_decay = 0.0  # of a moving average of the parameters; 0: off
  # Keep rates to train with in turn, each a compiled program, so that one model serves every
  # budget; empty: only config.model.keep_rate, which is always the rate of evaluations.
  config.train.keep_rates = ()
  # Weight, relative to the action loss, of the distance to the actions that the same parameters
  # give without pruning; 0: off. It costs one more forward pass of the whole model.
  config.train.consistency = 0.0
  config.train.non_finite = 'stop'  # at a non-finite loss or gradient, or 'skip' and count updates
  config.train.log_every = 50  # steps
  config.train.eval_every = 0  # steps; 0: only after the last
  config.train.checkpoint_every = 1000  # steps
  config.train.keep_checkpoints = 2  # the newest ones; the best is kept as well

  config.eval = ConfigDict()
  config.eval.batch_size = 16
  config.eval.step = 0  # of the checkpoint; 0: the newest, -1: the best
  config.eval.settings = 'checkpoint'  # source of keep rate and the like, or 'config'
  config.eval.scoring = 'action'  # or 'person_times_action' over all proposals
  config.eval.person_threshold = 0.7  # lower boxes count only on frames without a higher one
  config.eval.max_per_frame = 0  # count only so many highest scores; 0: all, 50: AVA's server
  config.eval.linking = 'greedy'  # of boxes to tubes, or 'viterbi', 'multisports'; see tubes/rules
  config.eval.keyframe_only = False  # replace every frame by the keyframe, as for a still image
  config.eval.sheet_clips = 12  # on the contact sheet; 0: no sheet

  config.profile = ConfigDict()
  config.profile.start = 0  # first step of a trace, or batch with --mode=eval; 0: no trace
  config.profile.steps = 5  # of the trace, which is written to WORKDIR/profile

  config.hosts = ConfigDict()
  config.hosts.launch = 'alone'  # 'auto': from a TPU pod, Slurm or MPI; 'explicit': as below
  config.hosts.coordinator = ''  # HOST:PORT of process 0
  config.hosts.processes = 1
  config.hosts.process = 0  # index of this process
  config.hosts.agree_every = 10  # steps between checks whether any process got a SIGTERM

  config.mesh = ConfigDict()
  config.mesh.model = 1  # tensor parallel: devices that share a clip, each with some heads
  config.mesh.fsdp = False  # the others are data parallel; True: and shard parameters and state
  # Dtype in which gradients of kernels are summed over devices; 'compute': that of the model, which
  # halves the communication in bfloat16.
  config.mesh.gradient_dtype = 'float32'
  return config


def vit_b() -> ConfigDict:
  """Keyword arguments of EVAD; evad_jax/model/evad.py explains each."""
  model = ConfigDict(sizes.VIT_B)
  model.patch = 16
  model.tubelet = 2
  model.pretrain_size = 224
  model.keep_rate = 0.7
  model.enhanced_weight = 1.0
  model.detector_width = 256
  model.num_proposals = 100
  model.num_stages = 6
  model.dynamic_width = 64
  model.feed_forward = 2048
  model.proposal_init = 'image'
  model.roi_extension = (0.4, 0.2)
  model.token_restoring = 'scatter'
  model.action_hidden = 2048
  model.padding = 'masked'
  # Recompute activations in the backward pass (True) or keep them (False); 'auto': keep them where
  # an accelerator has the memory. Of any type, so that the command line may give all three.
  model.remat = config_dict.FieldReference('auto', field_type=object)
  model.attention = 'auto'  # implementation; or 'plain', 'blocked', 'fused'
  # Of the computation: 'float32', 'bfloat16', or 'auto', which is bfloat16 where it is fast: on
  # TPUs, and on CUDA from compute capability 8.0 on. Parameters are always float32.
  model.dtype = 'auto'
  return model


def set_vit_l(config: ConfigDict) -> None:
  """Changes a configuration to ViT-L and its published recipe (batch 8)."""
  config.model.update(sizes.VIT_L)
  config.loss.action_weight = 6.0
  config.optimizer.rate = 1e-5
  config.optimizer.rate_batch_size = 8
  config.train.batch_size = 8


def set_size(config: ConfigDict, size: str) -> None:
  """Changes a configuration of videos to 'B' (as it is), 'L' or 'small'."""
  if size == 'L':
    set_vit_l(config)
  elif size == 'small':
    set_small_video(config)
  elif size != 'B':
    raise InputError(f"{config.name}: the size {size!r} is none of 'B', 'L' and 'small'.")
  config.name = f'{config.name}_{size.lower()}'


def set_small_video(config: ConfigDict) -> None:
  """Halves the frames over the same time; short side 120 pixels, 4 encoder blocks."""
  set_small(config)
  config.clip.update(clip_frames=8, frame_stride=8, short_side=120)
  # The same shapes as at 288 pixels, in multiples of 32.
  widths = [math.ceil(width / height * 120 / 32) * 32 for height, width in config.clip.canvases]
  config.clip.canvases = tuple((128, width) for width in sorted(set(widths)))
  config.model.update(patch=16, pretrain_size=128, width=96, num_heads=3)
  config.model.num_proposals = max(16, config.clip.max_boxes)
  config.optimizer.clip_norm = 1.0
  config.train.update(batch_size=16, epochs=40.0, log_every=25, checkpoint_every=250)
  config.eval.batch_size = 32


def set_small(config: ConfigDict) -> None:
  """Changes a configuration to a size that two CPU cores can train, with the same modules."""
  config.model.update(
    width=64,
    depth=4,
    num_heads=4,
    patch=8,
    prune_blocks=(1, 2),
    feature_blocks=(0, 1, 2, 3),
    drop_path=0.0,
    detector_width=64,
    detector_heads=4,
    num_proposals=12,
    num_stages=3,
    dynamic_width=16,
    feed_forward=256,
    proposal_init='grid',
    decoder_width=64,
    decoder_depth=2,
    decoder_heads=4,
    decoder_drop_path=0.0,
    action_hidden=256,
    remat=False,
    dtype='float32',
  )
  config.optimizer.update(
    rate=1e-3, head_multiplier=1.0, schedule='cosine', warmup_epochs=0.5, warmup_start=1e-5, b2=0.95
  )
