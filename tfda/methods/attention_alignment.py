"""Deep adversarial attention alignment.

Kang, Zheng, Yan & Yang, "Deep Adversarial Attention Alignment for Unsupervised
Domain Adaptation: the Benefit of Target Expectation Maximization", ECCV 2018
(arXiv:1801.10068).

A network is trained on the source and fixed. A target network starts from it
and learns from images of both domains and from what a CycleGAN made of them:
where it looks, from the source network; of the target's classes, from what it
said itself some time ago.

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
  A, L_AT       losses.attention_map, self._attention; term 'attention'
  A^S, A^T      of self.source_network, of this network
  M_post        self.posterior_network, a copy of this one every N steps (A)
  p_t           posterior_threshold, losses.expectation_maximization (B)
  (C)           restart_schedule: --learning_rate_alpha from p = 0 every N steps
  beta, N       attention_weight, refresh_every

Rows of Tables 1-4 and A1 are settings: `training_data` (S, T~, T, S~), what
attention is and how it is compared, and (A)-(C) of Table 3.

Deviations:
* All sums are divided by the one number of images of a step. Of 100, 35 are xS,
  15 x~T, 35 xT and 15 x~S (appendix): --translated_share. Translations are of
  images of the same step; pairs are compared where there is a translation.
* L_AT is of the pairs whose second image is in `training_data`.
* Feature maps are outputs of the layers that `Backbone.alignable_layers` names:
  convolutions, with the activation where it is part of the layer, before batch
  normalisation in ResNet. The paper does not say.
* The first steps, `source_share` of all, train the source network. It and
  M_post then work as in inference: no statistics of a batch.
* beta and N are not given; their defaults are ours. The gradient of || . || has
  1e-12 under its root: it starts where both networks are equal.
* With MMD and JMMD, all pairs of a layer are two sets of maps (Long et al.).
"""

import dataclasses
from typing import Optional

import tensorflow as tf

from tfda import adaptation, errors, losses
from tfda.data import translated
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
    'names of the layers that are aligned, with commas between; all '
    'convolutions that train if not set, but for the first (of digits, too)',
  )
  refresh_every: int = setting(
    1000, 'N, steps between updates of M_post; 1: without (A)', minimum=1
  )
  posterior_threshold: float = setting(0.95, 'p_t; 0: without (B)', minimum=0.0)
  restart_schedule: bool = setting(True, 'begin the schedule anew, (C)')
  wait_for_refresh: bool = setting(
    False, 'no L_EM for the first N steps, as for digits (p_t = 1)'
  )
  source_share: float = setting(
    0.2, 'of --steps, for the source network', minimum=0.0, maximum=1.0
  )

  def __post_init__(self):
    check(self, 'attention_alignment.')

  @property
  def data(self):
    """The names in `training_data`."""
    return tuple(self.training_data.split(','))


# The settings under which it equals `source_only`: the source network alone.
WITHOUT_ADAPTATION = Config(source_share=1.0)


class Method(adaptation.AdaptationModel):
  """Look where the source network looks; believe what one was sure of."""

  LOSS_TERMS = ('label', 'posterior', 'attention', 'kept')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    config, backbone = self.config, self.backbone
    if backbone.has_domain_statistics or self.classifier.dropout_rate:
      raise errors.UsageError(
        'attention_alignment takes no statistics of each domain and no '
        '--classifier_dropout: one network sees all images as it is'
      )
    self.source_network, self.posterior_network = self.copy(), self.copy()
    self.layers_aligned = ()
    if config.attention_weight:
      named = config.layers and config.layers.split(',')
      self.layers_aligned = tuple(named or backbone.alignable_layers)
    seen = {'source', *config.data}
    if self.layers_aligned:
      seen |= {theirs for theirs, ours in _PAIRS if ours in config.data}
    self.STREAMS = tuple(name for name in _DATA if name in seen)

  def cut_at(self, layer_name):
    super().cut_at(layer_name)
    for network in (self.source_network, self.posterior_network):
      network.cut_at(layer_name)

  def phases(self, steps, make_optimizer):
    phase = adaptation.Phase
    first = round(self.config.source_share * steps)
    return [
      phase('source', first, None, (make_optimizer(),), ('source',)),
      phase('adaptation', steps - first, None, (make_optimizer(),)),
    ]

  def pictures(self, data):
    networks = {'source network': self.source_network, 'target network': self}
    return attention.compare(networks, data)

  def begin_phase(self, phase, start):
    super().begin_phase(phase, start)
    if self._is_adapting() and int(self.step.numpy()) == start:
      for held, weight in self.weights_beside(self.source_network):
        held.assign(weight)

  def progress(self):
    """Of the schedule: within N steps, where it begins anew."""
    every = self.config.refresh_every
    restarts = self.config.restart_schedule and self._is_adapting()
    if self._phase is None or not restarts:
      return super().progress()
    return tf.cast(self._steps_of_phase() % every, tf.float32) / float(every)

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    if self._is_adapting() and 'target' in batch:
      self._refresh()
    return super().train_step(batch)

  def objective(self, batch, progress):
    if not self._is_adapting():
      return self._classify_source(batch['source'])
    images = {name: batch[name]['image'] for name in self.config.data}
    count = float(sum(x.shape[0] for x in images.values()))
    maps, logits = self._infer_all(images)
    label = self._label(batch, logits) / count
    likelihood, kept = self._likelihood(batch, logits)
    posterior = likelihood / count
    distance = self._attention(batch, maps) / count
    beta = self.config.attention_weight

    total = label + posterior + beta * distance  # Eq. 12
    terms = label, posterior, distance, kept
    return total, dict(zip(self.LOSS_TERMS, terms))

  def _classify_source(self, source):
    logits = self.classifier(self.features(source['image'], training=True))
    label = losses.label_loss(source['label'], logits)
    return label, {**dict.fromkeys(self.LOSS_TERMS, 0.0), 'label': label}

  def _infer_all(self, images):
    """{stream: images} -> a list of {stream: maps [b, N]}, {stream: logits}.

    In one pass, in which batch normalisation sees the mixture.
    """
    layers = [*self.layers_aligned, self.backbone.network.layers[-1].name]
    *features, top = self.backbone.feature_maps(_joined(images), layers, True)
    top = self.backbone.pool(top)
    logits = self.classifier(self.bottleneck(top) if self.bottleneck else top)
    return self._maps(features, images), _split(logits, images)

  def _maps(self, features, images):
    kind = self.config.attention
    return [_split(losses.attention_map(x, kind), images) for x in features]

  def _label(self, batch, logits):
    """L_CE (Eq. 6), a sum."""
    labels, logits, count = _both(
      batch['source']['label'], logits, ('source', 'source_to_target'), batch
    )
    return count * losses.label_loss(labels, logits)

  def _likelihood(self, batch, logits):
    """L_EM (Eq. 11), a sum; and the share of the target's images that count."""
    if 'target' not in batch:
      return 0.0, 0.0
    first = self.config.refresh_every if self.config.wait_for_refresh else 0
    believes = self._steps_of_phase() >= first  # Else nothing is so probable:
    threshold = tf.where(believes, self.config.posterior_threshold, 2.0)
    posterior = tf.nn.softmax(self.posterior_network(batch['target']['image']))
    kept = tf.reduce_max(posterior, axis=-1) >= threshold
    posterior, logits, count = _both(
      posterior, logits, ('target', 'target_to_source'), batch
    )
    loss = losses.expectation_maximization(posterior, logits, threshold)
    return count * loss, tf.reduce_mean(tf.cast(kept, tf.float32))

  def _attention(self, batch, maps):
    """L_AT (Eq. 5), a sum."""
    if not maps:
      return 0.0
    pairs = [pair for pair in _PAIRS if pair[1] in self.config.data]
    images = {theirs: batch[theirs]['image'] for theirs, _ in pairs}
    references = self.source_network.backbone.feature_maps(
      _joined(images), self.layers_aligned
    )
    references = self._maps(map(tf.stop_gradient, references), images)
    # Of every layer, the maps of all pairs, [n, N] of both networks.
    compared = [
      (
        tf.concat([_rows(theirs[s], s, t, batch) for s, t in pairs], 0),
        tf.concat([_rows(ours[t], t, s, batch) for s, t in pairs], 0),
      )
      for theirs, ours in zip(references, maps)
    ]
    return float(compared[0][0].shape[0]) * self._discrepancy(compared)

  def _discrepancy(self, compared):
    """The sum over layers, of the mean over pairs where there are such."""
    kind = self.config.distance
    if kind == 'jmmd':
      return losses.joint_mmd(*zip(*compared))
    if kind == 'mmd':
      return tf.add_n([losses.multi_kernel_mmd(*maps) for maps in compared])
    return tf.add_n([losses.map_distance(*maps, kind) for maps in compared])

  def _refresh(self):
    """M_post becomes the target network, at the first of every N steps.

    It is written at every step: a replica cannot be left under a condition.
    """

    def write(strategy):
      due = self._steps_of_phase() % self.config.refresh_every == 0
      for held, weight in self.weights_beside(self.posterior_network):
        strategy.extended.update(
          held,
          lambda old, new: old.assign(tf.where(due, new, old)),
          args=(weight,),
        )

    tf.distribute.get_replica_context().merge_call(write)

  def _is_adapting(self):
    return self._phase is None or self._phase.name == 'adaptation'

  def _steps_of_phase(self):
    return self.step - (self._phase_start or 0)


def _joined(parts, names=None):
  return tf.concat([parts[name] for name in names or parts], axis=0)


def _split(whole, parts):
  return dict(zip(parts, tf.split(whole, [x.shape[0] for x in parts.values()])))


def _rows(values, stream, other, batch):
  """Values of the images of a stream whose translations another one has."""
  if translated.DIRECTIONS.get(other) != stream:
    return values  # The same stream, or the translated one.
  return tf.gather(values, batch[other]['row'])


def _both(values, logits, streams, batch):
  """Values of images, again for their translations; the logits; how many."""
  used = [name for name in streams if name in logits]
  values = tf.concat([_rows(values, streams[0], n, batch) for n in used], 0)
  return values, _joined(logits, used), float(values.shape[0])
