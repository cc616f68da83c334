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
import functools
from typing import Optional

import tensorflow as tf

from tfda import adaptation, errors, losses
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
    prefix = 'attention_alignment.'
    check(self, prefix)
    for name in self.data:
      if name not in _DATA:
        raise errors.UsageError(
          f'--{prefix}training_data={self.training_data}: '
          f'{errors.near(name, _DATA)}'
        )

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
    if 'target_to_source' in config.data:
      seen.add('target')  # Its posterior.
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

  def begin_phase(self, phase, start):
    super().begin_phase(phase, start)
    if self._is_adapting() and int(self.step.numpy()) == start:
      for copy, weight in self._copies(self.source_network):
        copy.assign(weight)

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
    maps, logits = self._infer_all(images)
    count = float(sum(x.shape[0] for x in images.values()))
    label = self._label(batch, logits) / count
    likelihood, kept = self._likelihood(batch, logits)
    posterior = likelihood / count
    attention = self._attention(batch, maps) / count

    beta = self.config.attention_weight
    total = label + posterior + beta * attention  # Eq. 12
    return total, {
      'label': label,
      'posterior': posterior,
      'attention': attention,
      'kept': kept,
    }

  def _classify_source(self, source):
    features = self.features(source['image'], training=True, domain='source')
    label = losses.label_loss(source['label'], self.classifier(features))
    zero = tf.constant(0.0)
    terms = {'label': label, 'posterior': zero, 'attention': zero, 'kept': zero}
    return label, terms

  def _infer_all(self, images):
    """{stream: images} -> ({stream: maps}, a layer; {stream: logits}).

    In one pass, in which batch normalisation sees the mixture.
    """
    backbone = self.backbone
    last = backbone.network.layers[-1].name
    *features, top = backbone.feature_maps(
      tf.concat(list(images.values()), axis=0),
      [*self.layers_aligned, last],
      training=True,
    )
    pooled = backbone.pool(top)
    if self.bottleneck is not None:
      pooled = self.bottleneck(pooled)
    maps = [self._map(x) for x in features]
    counts = [x.shape[0] for x in images.values()]
    maps, (logits,) = (
      [dict(zip(images, tf.split(x, counts))) for x in whole]
      for whole in (maps, [self.classifier(pooled)])
    )
    return maps, logits

  def _label(self, batch, logits):
    """L_CE (Eq. 6), a sum."""
    labels = {'source': batch['source']['label']}
    if 'source_to_target' in logits:
      labels['source_to_target'] = tf.gather(
        labels['source'], batch['source_to_target']['row']
      )
    used = [name for name in labels if name in logits]
    if not used:
      return tf.constant(0.0)
    labels = tf.concat([labels[name] for name in used], axis=0)
    mean = losses.label_loss(labels, _joined(logits, used))
    return mean * float(labels.shape[0])

  def _likelihood(self, batch, logits):
    """L_EM (Eq. 11), a sum; and the share of the target's images that count."""
    used = [n for n in ('target', 'target_to_source') if n in logits]
    if not used:
      return tf.constant(0.0), tf.constant(0.0)
    posteriors = {'target': self._posterior(batch['target']['image'])}
    if 'target_to_source' in used:
      posteriors['target_to_source'] = tf.gather(
        posteriors['target'], batch['target_to_source']['row']
      )
    # Nothing is as probable as that.
    threshold = tf.where(self._believes(), self.config.posterior_threshold, 2.0)
    surest = tf.reduce_max(posteriors['target'], axis=-1)
    kept = tf.reduce_mean(tf.cast(surest >= threshold, tf.float32))
    posteriors = _joined(posteriors, used)
    mean = losses.expectation_maximization(
      posteriors, _joined(logits, used), threshold
    )
    return mean * float(posteriors.shape[0]), kept

  def _attention(self, batch, maps):
    """L_AT (Eq. 5), a sum."""
    pairs = [pair for pair in _PAIRS if pair[1] in self.config.data]
    if not self.layers_aligned:
      return tf.constant(0.0)
    seen = list(dict.fromkeys(theirs for theirs, _ in pairs))
    images = [batch[name]['image'] for name in seen]
    references = self.source_network.backbone.feature_maps(
      tf.concat(images, axis=0), self.layers_aligned
    )
    counts = [x.shape[0] for x in images]
    compared = []
    for reference, ours in zip(references, maps):
      reference = tf.split(tf.stop_gradient(self._map(reference)), counts)
      compared.append(self._compared(batch, dict(zip(seen, reference)), ours))
    count = float(compared[0][0].shape[0])
    references, maps = zip(*compared)
    if self.config.distance == 'jmmd':
      return count * losses.joint_mmd(references, maps)
    measure = losses.multi_kernel_mmd
    if self.config.distance != 'mmd':
      measure = functools.partial(
        losses.map_distance, norm=self.config.distance
      )
    return count * tf.add_n([measure(*pair) for pair in compared])

  def _compared(self, batch, theirs, ours):
    """The maps of all pairs at a layer: [n, N] of both networks."""
    pairs = []
    for reference, name in _PAIRS:
      if name not in ours:
        continue
      pair = theirs[reference], ours[name]
      if name == 'source_to_target':
        pair = tf.gather(pair[0], batch[name]['row']), pair[1]
      elif name == 'target':
        pair = pair[0], tf.gather(pair[1], batch[reference]['row'])
      pairs.append(pair)
    return [tf.concat(maps, axis=0) for maps in zip(*pairs)]

  def _map(self, features):
    """[B, H, W, C] -> [B, N] of L2 norm 1, as `attention` says."""
    if self.config.attention == 'squares':
      return losses.attention_map(features)
    features = losses.at_least_float32(features)
    if self.config.attention != 'raw':
      sizes = tf.abs(features)
      summed = self.config.attention == 'absolute'
      reduce = tf.reduce_sum if summed else tf.reduce_max
      features = reduce(sizes, axis=-1)
    flat = tf.reshape(features, [features.shape[0], -1])
    return tf.math.l2_normalize(flat, axis=-1, epsilon=1e-12)

  def _posterior(self, images):
    return tf.nn.softmax(self.posterior_network(images))

  def _believes(self):
    """Whether there is L_EM, at this step."""
    waits = self.config.wait_for_refresh
    return self._steps_of_phase() >= (self.config.refresh_every if waits else 0)

  def _refresh(self):
    """M_post becomes the target network, at the first of every N steps.

    It is written at every step: an update under a condition cannot leave a
    replica.
    """

    def write(strategy):
      due = self._steps_of_phase() % self.config.refresh_every == 0
      for copy, weight in self._copies(self.posterior_network):
        strategy.extended.update(
          copy,
          lambda held, new: held.assign(tf.where(due, new, held)),
          args=(weight,),
        )

    tf.distribute.get_replica_context().merge_call(write)

  def _copies(self, network):
    """Pairs (weight of a copy, of this network)."""
    pairs = zip(network.inference_weights(), self.inference_weights())
    return [pair for pair in pairs if pair[0] is not pair[1]]

  def _is_adapting(self):
    return self._phase is None or self._phase.name == 'adaptation'

  def _steps_of_phase(self):
    return self.step - (self._phase_start or 0)


def _joined(parts, names):
  return tf.concat([parts[name] for name in names], axis=0)
