"""Deep adversarial attention alignment.

Kang, Zheng, Yan & Yang, "Deep Adversarial Attention Alignment for Unsupervised
Domain Adaptation: the Benefit of Target Expectation Maximization", ECCV 2018.

A network is trained on the source and fixed. A target network starts from it
and learns from both domains and what a CycleGAN made of them: where to look,
from the source network; the target's classes, from what itself said before.

  x~T = G_ST(xS), x~S = G_TS(xT)                                      (Eq. 1-3)
  A_l(x) = sum_c |F_{l,c}(x)|^2                                         (Eq. 4)
  L_AT = sum_l sum over pairs (x, x') of
    || A^S_l(x) / ||A^S_l(x)|| - A^T_l(x') / ||A^T_l(x')|| ||           (Eq. 5)
    for the pairs (xS, xS), (xS, x~T), (x~S, x~S) and (x~S, xT)
  L_CE = -sum log p(y|xS) - sum log p(y|x~T)                            (Eq. 6)
  L_EM = -sum_{xT} sum_z p_post(z|xT) (log p(z|xT) + log p(z|x~S))  (Eq. 8-11)
  L_full = L_CE + L_EM + beta L_AT                                     (Eq. 12)

  paper         here
  -----         ----
  G_ST, G_TS    python -m tools.translate; streams of the run's --translation
  A, L_AT       losses.attention_map, self._distance; term 'attention'
  A^S, A^T      of self.source_network, of this network
  M_post        self.posterior_network, a copy of this one every N steps (A)
  p_t           posterior_threshold, losses.expectation_maximization (B)
  (C)           restart_schedule: the learning rate as at first, every N steps
  beta, N       attention_weight, refresh_every; rows of tables are settings too

Deviations:
* All sums are divided by the one number of images of a step. Of 100, 35 are xS,
  15 x~T, 35 xT and 15 x~S (appendix): --translated_share. Translations are of
  images of the same step, cropped alike; p_post is of the same crop as p.
* L_AT is of the pairs whose second image is in `training_data`. Feature
  maps are outputs of `Backbone.alignable_layers`, with the activation where it
  is part of the layer, before batch normalisation: the paper does not say.
* The first steps, `source_share` of all, train the source network. It and
  M_post then work as in inference; the target network's batch normalisation
  sees the mixture, so that with it L_AT does not begin at 0.
* beta and N are not given. || . || has 1e-12 under its root: it may begin at 0.
* With MMD and JMMD, a replica's maps of a layer are two sets (Long et al.), no
  mean over images. A product of many layers' kernels vanishes: name a few.
"""

import dataclasses
from typing import Optional

import tensorflow as tf

from tfda import adaptation, errors, losses
from tfda.data import streams
from tfda.evaluation import attention
from tfda.settings import check, setting

_DATA = ('source', 'source_to_target', 'target', 'target_to_source')
# Eq. 5: what the source network sees, what the target network sees.
_PAIRS = (
  ('source', 'source'),
  ('source', 'source_to_target'),
  ('target_to_source', 'target_to_source'),
  ('target_to_source', 'target'),
)


@dataclasses.dataclass(frozen=True)
class Config:
  """The defaults are the paper's where it gives them."""

  training_data: str = setting(
    ','.join(_DATA),
    "what the target network is trained on: the tables' S, T~, T and S~",
    choices=(
      'source',
      'source_to_target',
      'source,source_to_target',
      'source_to_target,target',
      ','.join(_DATA),
    ),
  )
  attention_weight: float = setting(1.0, 'beta in Eq. 12', minimum=0.0)
  attention: str = setting(
    'squares',
    'sum of |F_c|^2 as in Eq. 4, or, as in Table A1, the sum of |F_c|, the '
    'largest of them, F itself',
    choices=('squares', 'absolute', 'maximum', 'raw'),
  )
  distance: str = setting(
    'l2',
    'between maps as in Eq. 5, or the alternatives of Table 4',
    choices=('l2', 'l1', 'mmd', 'jmmd'),
  )
  layers: Optional[str] = setting(
    None,
    'names of the layers that are aligned, with commas between; if not set all '
    'convolutions that train, but for the first; of four_conv the first, too',
  )
  refresh_every: int = setting(
    1000, 'N, steps between updates of M_post; 1: without (A)', minimum=1
  )
  posterior_threshold: float = setting(
    0.95, 'p_t; 0: without (B)', minimum=0.0, maximum=1.0
  )
  restart_schedule: bool = setting(True, 'begin the schedule anew, (C)')
  wait_for_refresh: bool = setting(
    False, 'no L_EM for the first N steps, as for digits (p_t = 1)'
  )
  source_share: float = setting(
    0.2, 'of --steps, for the source network', minimum=0.0, maximum=1.0
  )

  def __post_init__(self):
    check(self, 'attention_alignment.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(
  training_data='source', attention_weight=0.0, source_share=0.0
)


class Method(adaptation.AdaptationModel):
  """Look where the source network looks; believe what one was sure of.

  The term 'kept', no loss, is the share of target images that pass p_t.
  """

  LOSS_TERMS = ('label', 'posterior', 'attention', 'kept')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    config, backbone = self.config, self.backbone
    if backbone.has_domain_statistics or self.classifier.dropout_rate:
      raise errors.UsageError(
        'attention_alignment takes no --domain_batch_norm, no backbone that '
        'has it (dann_mnist_domain_norm) and no --classifier_dropout'
      )
    self.training_data = tuple(config.training_data.split(','))
    pairs = [pair for pair in _PAIRS if pair[1] in self.training_data]
    self.pairs = pairs if config.attention_weight else []
    self.source_network = self.posterior_network = None
    if self.pairs or self.training_data != ('source',):
      self.source_network = self.copy()
    if 'target' in self.training_data:
      self.posterior_network = self.copy()
    named = config.layers and [x.strip() for x in config.layers.split(',')]
    layers = list(dict.fromkeys(named or backbone.alignable_layers))
    self.aligned = layers if self.pairs else []
    if self.pairs and not layers:
      raise errors.UsageError(
        'no convolution is trained that attention_alignment could align; take '
        'an earlier --freeze_until or --attention_alignment.attention_weight=0'
      )
    backbone.check_maps(self.aligned)
    seen = {'source', *self.training_data, *(s for s, _ in self.pairs)}
    self.STREAMS = tuple(name for name in _DATA if name in seen)
    if self.pairs and config.distance in ('mmd', 'jmmd'):
      self.undivided = 'an MMD is of the images of a batch together'

  def cut_at(self, layer_name):
    super().cut_at(layer_name)
    for network in filter(None, (self.source_network, self.posterior_network)):
      network.cut_at(layer_name)
    self.backbone.check_maps(self.aligned)

  def phases(self, steps, make_optimizer):
    phase, config = adaptation.Phase, self.config
    first = round(config.source_share * steps)
    waits = config.wait_for_refresh and self.posterior_network
    if waits and 0 < steps - first <= config.refresh_every:
      raise errors.UsageError(
        f'--attention_alignment.refresh_every={config.refresh_every}: too many '
        f'to wait for, in {steps - first} steps of adaptation'
      )
    return [
      phase('source', first, None, (make_optimizer(),), ('source',)),
      phase('adaptation', steps - first, None, (make_optimizer(),)),
    ]

  def pictures(self, data):
    if not (self._is_adapting() and self.source_network):
      return {}  # There is no other network yet.
    networks = {'source network': self.source_network, 'target network': self}
    return attention.compare(networks, data)

  def begin_phase(self, phase, start):
    super().begin_phase(phase, start)
    begins = self._is_adapting() and int(self.step.numpy()) == start
    if begins and self.source_network:
      for held, weight in self.weights_beside(self.source_network):
        held.assign(weight)

  def progress(self):
    """Of the phase; with (C) it begins anew with M_post."""
    restarts = self.config.restart_schedule and self.posterior_network
    if self._phase is None or not (restarts and self._is_adapting()):
      return super().progress()
    done = self._steps_of_phase() % self.config.refresh_every
    return tf.cast(done, tf.float32) / float(self._phase.steps)

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    if self._is_adapting() and self.posterior_network:
      self._refresh()
    return super().train_step(batch)

  def objective(self, batch, progress):
    data = self.training_data if self._is_adapting() else ('source',)
    images = {name: batch[name]['image'] for name in data}
    count = float(sum(x.shape[0] for x in images.values()))
    maps, logits = self._infer_all(images)
    labels, labelled = streams.with_translations(
      batch['source']['label'], 'source', batch, logits
    )
    label = losses.label_loss(labels, labelled) * (labels.shape[0] / count)
    likelihood, kept = self._likelihood(batch, logits)
    posterior = likelihood / count
    distance = self._distance(batch, images, maps) / count
    beta = self.config.attention_weight

    total = label + posterior + beta * distance  # Eq. 12
    terms = dict(zip(self.LOSS_TERMS, (label, posterior, distance, kept)))
    return total, terms

  def _infer_all(self, images):
    """{stream: images} -> feature maps of all, a layer; {stream: logits}.

    In one pass, in which batch normalisation sees the mixture.
    """
    last = self.backbone.network.layers[-1].name
    layers = self.aligned if self._is_adapting() else []
    *maps, top = self.backbone.feature_maps(
      streams.join(images), [*layers, last], training=True
    )
    top = self.backbone.pool(top)
    logits = self.classifier(self.bottleneck(top) if self.bottleneck else top)
    return maps, streams.split(logits, images)

  def _likelihood(self, batch, logits):
    """L_EM (Eq. 11), a sum; and the share of the target's images that count."""
    if 'target' not in logits:
      return 0.0, 0.0
    first = self.config.refresh_every if self.config.wait_for_refresh else 0
    believes = self._steps_of_phase() >= first  # Else nothing is so probable:
    threshold = tf.where(believes, self.config.posterior_threshold, 2.0)
    posterior = tf.nn.softmax(self.posterior_network(batch['target']['image']))
    kept = tf.reduce_max(posterior, axis=-1) >= threshold
    posterior, logits = streams.with_translations(
      posterior, 'target', batch, logits
    )
    loss = losses.expectation_maximization(posterior, logits, threshold)
    return posterior.shape[0] * loss, tf.reduce_mean(tf.cast(kept, tf.float32))

  def _distance(self, batch, images, maps):
    """L_AT (Eq. 5), a sum."""
    if not maps:
      return 0.0
    theirs = {name: batch[name]['image'] for name, _ in self.pairs}
    references = self.source_network.backbone.feature_maps(
      streams.join(theirs), self.aligned
    )
    seen, ours = streams.positions(theirs), streams.positions(images)
    pairs = [
      (
        streams.rows_of(seen[s], s, t, batch),
        streams.rows_of(ours[t], t, s, batch),
      )
      for s, t in self.pairs
    ]
    theirs, ours = (tf.concat(x, axis=0) for x in zip(*pairs))
    maps = self._maps(references, theirs), self._maps(maps, ours)
    return ours.shape[0] * losses.map_distances(*maps, self.config.distance)

  def _maps(self, features, rows):
    """A list of [B, H, W, C] -> a list of [n, N], their attention at `rows`."""
    maps = [losses.attention_map(x, self.config.attention) for x in features]
    widths = [x.shape[1] for x in maps]
    # Together: of a layer at a time a graph of ResNet had 1,000 nodes more.
    return tf.split(tf.gather(tf.concat(maps, axis=1), rows), widths, axis=1)

  def _refresh(self):
    """M_post becomes the target network, at the first of every N steps."""

    def write():
      for held, weight in self.weights_beside(self.posterior_network):
        if weight.synchronization == tf.VariableSynchronization.ON_READ:
          held.assign(weight.read_value())  # The mean over replicas.
        else:
          update(held, lambda h, new: h.assign(new), args=(weight,))
      return tf.constant(True)

    due = self._steps_of_phase() % self.config.refresh_every == 0
    update = self.distribute_strategy.extended.update
    tf.distribute.get_replica_context().merge_call(
      lambda _: tf.cond(due, write, lambda: tf.constant(False))
    )

  def _is_adapting(self):
    return self._phase is None or self._phase.name == 'adaptation'

  def _steps_of_phase(self):
    return self.step - (self._phase_start or 0)
