"""Local feature patterns: local features aligned within learned clusters.

Wen, Liu, Zheng, Zheng, Gong & Yuan, "Exploiting Local Feature Patterns for
Unsupervised Domain Adaptation", AAAI 2019 (arXiv:1811.05042).

A feature F_ij at a position of the map is assigned to patterns c_k; its
residuals, summed by pattern, are what is classified (layers/netvlad.py). Two
discriminators play against the extractor, with inverted labels and in turns:

  S_ij[k] = softmax_k(-alpha ||F_ij - c_k||^2)                          (Eq. 1)
  V[k] = sum_ij S_ij[k] (F_ij - c_k),  V_h = V normalised               (Eq. 2)
  L_s = mean_ij max(H(S_ij), m), S at the decay alpha_s                 (Eq. 3)
  L_Dh = -E_s ln D_h - E_t ln(1 - D_h),  L_Gh = -E_t ln D_h           (Eq. 4-5)
  L_Dl, L_Gl: the same of D_l(F_ij - c[a_ij], a_ij), means over ij    (Eq. 6-7)
    a_ij = argmax_k S_ij[k]
  L = L_c + lambda_h L_Gh + lambda_l L_Gl + lambda_s L_s              (Eq. 8-9)

in three steps: the classifier alone, on the patterns of k-means; classifier,
patterns and the last layers of the extractor by L_c + lambda_s L_s; the same by
L, in turns with D_h and D_l.

  paper               here
  -----               ----
  G                   self.backbone.feature_map
  S, V_h, c_k         self.netvlad, self.features, self.netvlad.patterns
  D_h, D_l            self.discriminators['holistic'], ['local']
  L_c, L_s            terms 'label', 'sparsity'
  L_Gh, L_Gl          terms 'holistic', 'local'
  L_Dh, L_Dl          terms 'holistic_discriminator', 'local_discriminator'
  lambda_h, _l, _s    holistic_weight, local_weight, sparsity_weight
  alpha, alpha_s, m   decay, sparsity_decay, sparsity_threshold
  the three steps     phases 'classifier', 'fine_tuning', 'adaptation'
  Ours(H), (w/o DA)   local_weight=0; holistic_weight=0 too, without step 3

Deviations:
* Eq. 3 is not as printed (losses.assignment_sparsity). It is of the source in
  the second step, of both domains in the third; the paper does not say.
* Features keep their length; VGG16's are before its ReLU, MobileNet's behind.
  There, on icon_home, H at alpha_s is 3.2 of at most 3.5 nats (the picture
  `distances`): L_s is active. With `normalise_features` H = ln K; it is idle.
* D_h sees the logits ("activations of the classification layer"), behind the
  dropout, or V_h. K = 0 (Table 5): the pooled feature is classified.
* Not in the paper: V is normalised by column, then whole; k-means sees source
  only; a_ij is one-hot; D_h, D_l have ReLUs, our rate and the first of two
  turns on the same features; how long the steps are. Batch normalisation is by
  batches, in k-means too; the target's own statistics move in the third step.
* --new_layer_multiplier and --bias_multiplier are for the second step. In the
  third all have one rate: a classifier that is faster confuses D_h by itself.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, errors, losses
from tfda.evaluation import patterns
from tfda.layers import discriminators, dropout, netvlad, perceptron
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Defaults are the paper's, but for the shares of steps, which are ours."""

  num_patterns: int = setting(
    32, 'K; 0 for none: the pooled feature is classified', minimum=0
  )
  decay: float = setting(5000.0, 'alpha in Eq. 1', minimum=0.0)
  sparsity_decay: float = setting(0.005, 'alpha_s, for Eq. 3', minimum=0.0)
  sparsity_threshold: float = setting(0.02, 'm in Eq. 3, nats', minimum=0.0)
  holistic_weight: float = setting(0.2, 'lambda_h in Eq. 9', minimum=0.0)
  local_weight: float = setting(0.1, 'lambda_l; 0 in rows (H)', minimum=0.0)
  sparsity_weight: float = setting(0.1, 'lambda_s in Eq. 9', minimum=0.0)
  holistic_input: str = setting(
    'logits',
    'what the holistic discriminator compares: the logits, or the encoding V_h',
    choices=('logits', 'encoding'),
  )
  holistic_units_1: int = setting(768, 'units in D_h, first layer', minimum=1)
  holistic_units_2: int = setting(1536, 'units in its second', minimum=1)
  local_units_1: int = setting(
    2048, 'units in D_l, first layer; 4096 for 64 patterns', minimum=1
  )
  local_units_2: int = setting(4096, 'units in its second', minimum=1)
  dropout: float = setting(0.5, 'rate on V_h', minimum=0.0, maximum=0.99)
  normalise_features: bool = setting(False, 'local features of length 1')
  classifier_share: float = setting(
    0.2, 'of --steps, for the first step', minimum=0.0, maximum=1.0
  )
  fine_tuning_share: float = setting(
    0.4, 'of the steps left, for the second step', minimum=0.0, maximum=1.0
  )
  classifier_rate: float = setting(
    100.0, 'first step: learning rate / --learning_rate', minimum=0.0
  )

  def __post_init__(self):
    prefix = 'local_feature_patterns.'
    check(self, prefix)
    if not self.num_patterns and (self.local_weight or self.sparsity_weight):
      raise errors.UsageError(
        f'--{prefix}num_patterns=0 leaves nothing to assign to; it takes '
        f'--{prefix}local_weight=0 and --{prefix}sparsity_weight=0'
      )


# Ours(w/o DA) of Table 3; why it is another baseline than `source_only`.
WITHOUT_ADAPTATION = Config(holistic_weight=0.0, local_weight=0.0)
OWN_BASELINE = 'it classifies residuals to patterns, in two steps'


class Method(adaptation.AdaptationModel):
  """Classify by patterns; confuse images and positions, in turns."""

  undivided = 'its players take turns within a step'
  TURN = ('holistic_discriminator', 'local_discriminator')
  LOSS_TERMS = ('label', 'sparsity', 'holistic', 'local', *TURN)

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    config, classes = self.config, self.classifier.output_units
    if self.bottleneck is not None or self.classifier.dropout_rate:
      raise errors.UsageError(
        'local_feature_patterns takes no --bottleneck and no '
        '--classifier_dropout; it has --local_feature_patterns.dropout'
      )
    depth = self.backbone.feature_map_shape[-1]
    self.netvlad = None
    if config.num_patterns:
      self.netvlad = netvlad.NetVLAD(config.num_patterns, config.decay)
      self.netvlad.build([None, *self.backbone.feature_map_shape])
      self.feature_width = config.num_patterns * depth
    self.dropout = dropout.Dropout(config.dropout)
    self.classifier = perceptron.Perceptron((), classes)
    self.classifier.build([None, self.feature_width])
    self._on_logits = config.holistic_input == 'logits'
    self.discriminators = {}  # Widths from "Implementation Details".
    if config.holistic_weight:
      width = classes if self._on_logits else self.feature_width
      self._add_discriminator('holistic', width)
    if config.local_weight:
      self._add_discriminator('local', depth + config.num_patterns)
    if not self.discriminators:  # Then it does not see the target.
      self.STREAMS = tuple(s for s in self.STREAMS if s != 'target')

  def _add_discriminator(self, name, width):
    units = [getattr(self.config, f'{name}_units_{i}') for i in (1, 2)]
    self.discriminators[name] = discriminators.DomainDiscriminator(units, 0.0)
    self.discriminators[name].build([None, width])

  def adapt(self, batches):
    """Makes the patterns centres of k-means on the source's local features."""
    extract = tf.function(self.local_features, autograph=False)
    images = (batch['source']['image'] for batch in batches)
    if self.netvlad is not None:
      maps = (extract(x, True, 'source') for x in images)
      self.netvlad.adapt(maps, self.seed)

  def local_features(self, images, training=False, domain='target'):
    """[B, S, S, 3] in 0..255 -> F [B, H, W, D]."""
    domain = self.statistics_of(domain)
    maps = self.backbone.feature_map(images, training, domain)
    maps = tf.cast(maps, tf.float32)
    scaled = self.config.normalise_features
    return tf.math.l2_normalize(maps, axis=-1) if scaled else maps

  def features(self, images, training=False, domain='target'):
    return self._encode(self.local_features(images, training, domain))[0]

  def _encode(self, maps):
    """(V_h [B, K D], S [B, H, W, K]); the pooled features, None without K."""
    if self.netvlad is None:
      return self.backbone.pool(maps), None
    return self.netvlad(maps, with_assignments=True)

  def inference_weights(self):
    weights = super().inference_weights()
    return weights + (self.netvlad.weights if self.netvlad else [])

  def scheduled(self, progress):
    del progress
    rate = self.config.classifier_rate if self._is_in('classifier') else 1.0
    return {'learning_rate_factor': rate}

  def pictures(self, data):
    return patterns.show(self, data) if self.netvlad else {}

  def phases(self, steps, make_optimizer):
    config, phase = self.config, adaptation.Phase
    first = round(config.classifier_share * steps)
    second = steps - first
    if self.discriminators:
      second = round(config.fine_tuning_share * second)
    classifier = tuple(self.classifier.weights)
    adversaries = self._adversaries()
    theirs = {v.ref() for v in adversaries}
    ours = tuple(v for v in self.trainable_variables if v.ref() not in theirs)

    def at(rate, variables):
      optimizer = make_optimizer(variables)
      # In float16 it is within a LossScaleOptimizer.
      inner = getattr(optimizer, 'inner_optimizer', optimizer)
      inner.set_multipliers([(v, rate) for v in variables])
      return optimizer

    alone = (at(config.classifier_rate, classifier),)
    phases = [
      phase('classifier', first, classifier, alone, ('source',)),
      phase('fine_tuning', second, ours, (make_optimizer(ours),), ('source',)),
    ]
    if self.discriminators:
      game = at(1.0, ours), at(1.0, adversaries)
      phases.append(phase('adaptation', steps - first - second, ours, game))
    return phases

  def _adversaries(self):
    return [v for d in self.discriminators.values() for v in d.weights]

  def _is_in(self, name):
    return name == (self._phase.name if self._phase else 'adaptation')

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    if not self._is_in('adaptation'):
      return super().train_step(batch)
    with tf.GradientTape() as tape:
      outputs = self._outputs(batch)  # Once, for both players.
      with tape.stop_recording():
        with tf.GradientTape() as adversary_tape:
          turn = self._discriminate(outputs)
          terms = {'total': sum(turn.values()), **turn}
        adversary = self._phase.optimizers[1]
        self.descend(adversary_tape, terms, self._adversaries(), adversary)
      total, terms = self._objective(batch, outputs, turn)
    terms = {'total': total, **terms}
    self.descend(tape, terms, self._phase.trainable, self.optimizer)
    return self.end_step(terms)

  def objective(self, batch, progress):
    outputs = self._outputs(batch)
    return self._objective(batch, outputs, self._discriminate(outputs))

  def _objective(self, batch, outputs, turn):
    config, labels = self.config, batch['source']['label']
    label = losses.label_loss(labels, outputs['logits'][: tf.shape(labels)[0]])
    sparsity, inverted = self._sparsity(outputs['maps']), self._confuse(outputs)
    total = (
      label
      + config.holistic_weight * inverted['holistic']
      + config.local_weight * inverted['local']
      + config.sparsity_weight * sparsity
    )  # Eq. 8-9
    return total, {'label': label, 'sparsity': sparsity, **inverted, **turn}

  def _outputs(self, batch):
    """What the losses read: of both domains, [2b, ...], in the third step."""
    images = batch['source']['image']
    if self._is_in('adaptation'):
      target_images = batch['target']['image']
      maps = self.both_features(images, target_images, self.local_features)
    else:
      maps = self.local_features(images, True, 'source')
    encoding, shares = self._encode(maps)
    if self._is_in('classifier'):
      encoding = tf.stop_gradient(encoding)
    dropped = self.dropout(encoding, noise=self.noise(batch), training=True)
    logits = self.classifier(dropped)
    compared = {}
    if self._is_in('adaptation'):
      if self.config.holistic_weight:
        compared['holistic'] = logits if self._on_logits else encoding
      if self.config.local_weight:
        residuals = netvlad.conditioned_residuals
        compared['local'] = residuals(maps, self.netvlad.patterns, shares)
    return {'maps': maps, 'logits': logits, 'compared': compared}

  def _discriminate(self, outputs):
    """L_Dh, L_Dl (Eq. 4, 6), without a gradient to the extractor."""
    turn = dict.fromkeys(self.TURN, 0.0)
    for name, inputs in outputs['compared'].items():
      logits = self.discriminators[name](tf.stop_gradient(inputs))
      mean = losses.domain_loss(*tf.split(logits, 2))
      turn[f'{name}_discriminator'] = 2.0 * mean  # The sum of both domains'.
    return turn

  def _confuse(self, outputs):
    """L_Gh, L_Gl (Eq. 5, 7): the target is to pass for the source."""
    terms = {'holistic': 0.0, 'local': 0.0}
    for name, inputs in outputs['compared'].items():
      logits = self.discriminators[name](tf.split(inputs, 2)[1])
      terms[name] = tf.reduce_mean(tf.nn.softplus(-logits))
    return terms

  def _sparsity(self, maps):
    """L_s (Eq. 3)."""
    if self.netvlad is None or self._is_in('classifier'):
      return 0.0
    decay = self.config.sparsity_decay
    shares = netvlad.soft_assignment(maps, self.netvlad.patterns, decay)
    return losses.assignment_sparsity(shares, self.config.sparsity_threshold)
