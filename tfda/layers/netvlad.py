"""NetVLAD: how the local features of an image lie about learned patterns.

Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place
recognition", CVPR 2016, as in Wen et al. 2019, Eq. 1-2. F is a local feature,
the vector at one position of a feature map; c_k is a pattern, a centre among
such vectors.
"""

import numpy as np
import tensorflow as tf
import tqdm

from tfda import errors, losses

# Local features that patterns are initialised by, as many as NetVLAD's code
# takes; chosen at random among so many times more.
_POSITIONS = 50_000
_READ = 4
# Of how many positions the two nearest patterns are compared exactly: so many,
# or one in so many. Of 10,000 positions of MobileNet's maps none needed it; the
# product rounded their distances, some 1,700, by up to 0.0017.
_CLOSE_CALLS = 1024
_ONE_IN = 16
_SMOOTH = 0.1  # A decay up to which that rounding is lost in the shares.
_EPSILON = 1e-12  # Under the root of a norm; a square below it counts as 0.


def soft_assignment(features, patterns, decay):
  """How near every feature is to every pattern, as shares of 1 (Eq. 1).

  S[k] = exp(-decay ||F - c_k||^2) / sum_j exp(-decay ||F - c_j||^2)

  For example F = [0.5], patterns [[0], [2]] and decay ln(3) / 2: the squared
  distances 0.25 and 2.25 differ by 2, the shares are 3/4 and 1/4.

  Args:
    features: [..., D].
    patterns: [K, D].
    decay: alpha, at least 0; the larger, the more the nearest pattern gets.

  Returns:
    [..., K] in [0, 1], in float32 where the features are of half precision.
  """
  features = losses.at_least_float32(features)
  patterns = tf.cast(patterns, features.dtype)
  patterns.shape.assert_has_rank(2)
  return _assign(features, patterns, *_centred(features, patterns), decay)


def normalised(sums):
  """Columns of norm 1, then the whole of norm 1; a zero column stays zero.

  For example [[3, 4], [0, 0], [0, 2]]: [[0.6, 0.8], [0, 0], [0, 1]], then
  divided by the root of 2.

  Args:
    sums: [B, K, D]; the columns are those of Eq. 2, one a pattern.

  Returns:
    [B, K, D].
  """
  squares = tf.reduce_sum(tf.square(sums), axis=2, keepdims=True)
  scales = tf.math.rsqrt(squares + _EPSILON)
  scales = tf.where(squares > _EPSILON, scales, 0.0)  # And no slope there.
  whole = tf.reduce_sum(squares * tf.square(scales), axis=1, keepdims=True)
  return sums * (scales * tf.math.rsqrt(whole + _EPSILON))


def conditioned_residuals(features, patterns, assignments):
  """Every feature less its pattern, and which one that is, for Eq. 6-7.

  For example feature [1, 3], patterns [0, 2] and [5, 2], assignment (0.9, 0.1):
  [1, 1] and one-hot [1, 0], together [1, 1, 1, 0].

  Args:
    features: [..., D].
    patterns: [K, D].
    assignments: [..., K], S; its largest, a, has no gradient.

  Returns:
    [N, D + K] for all N positions: F - c[a], a as one-hot.
  """
  nearest = tf.argmax(assignments, axis=-1)
  residuals = features - tf.gather(patterns, nearest)
  one_hot = tf.one_hot(nearest, patterns.shape[0], dtype=residuals.dtype)
  both = tf.concat([residuals, one_hot], axis=-1)
  return tf.reshape(both, [-1, both.shape[-1]])


class NetVLAD(tf.keras.layers.Layer):
  """Feature maps [B, H, W, D] -> [B, K D], residuals to K learned patterns.

  V[k] = sum_n S_n[k] (F_n - c_k), over all positions n of an image     (Eq. 2)

  Elements k D to (k + 1) D are those of pattern k: V[k], of norm 1 if any
  feature is near it, and of norm 1 all together. For example features [1, 2]
  and [4, 2], patterns [0, 2] and [5, 2], each feature wholly of the nearer one:
  V is [1, 0] and [-1, 0], the output [1, 0, -1, 0] / sqrt(2). With three
  quarters of the first and a quarter of the second, V[0] were [1.75, 0].

  It computes in float32 whatever the policy: at the published decay a squared
  distance counts by its fourth decimal. Building it turns TensorFloat-32 off,
  TensorFlow's for all products on a GPU, which keeps three digits.

  Args:
    num_patterns: K.
    decay: alpha in Eq. 1.
  """

  def __init__(self, num_patterns, decay=5000.0, **kwargs):
    kwargs['dtype'] = tf.float32  # Its own config names it too.
    super().__init__(**kwargs)
    self.num_patterns = num_patterns
    self.decay = decay

  def build(self, input_shape):
    self.patterns = self.add_weight(
      'patterns', [self.num_patterns, input_shape[-1]]
    )
    tf.config.experimental.enable_tensor_float_32_execution(False)
    super().build(input_shape)

  def call(self, features, with_assignments=False):
    """[B, H, W, D] -> [B, K D]; and S [B, H, W, K] if `with_assignments`."""
    _, height, width, depth = features.shape
    positions = tf.reshape(features, [-1, height * width, depth])
    centred = _centred(positions, self.patterns)
    shares = _assign(positions, self.patterns, *centred, self.decay)
    sums = normalised(_aggregate(*centred, shares))
    encoding = tf.reshape(sums, [-1, self.num_patterns * depth])
    if not with_assignments:
      return encoding
    shape = [-1, height, width, self.num_patterns]
    return encoding, tf.reshape(shares, shape)

  def adapt(self, batches, seed=0):
    """Makes the patterns the centres of k-means on local features.

    It takes 50,000 positions at random among the first 200,000, or all there
    are; of the batches no more is read than that.

    Args:
      batches: feature maps [b, H, W, D], an iterable.
      seed: of the choice and of k-means.

    Raises:
      UsageError: there are fewer positions than patterns.
      RunError: a feature is not finite.
    """
    import threadpoolctl
    from sklearn import cluster

    sample = _sample(batches, np.random.default_rng(seed))
    if len(sample) < self.num_patterns:
      raise errors.UsageError(
        f'{len(sample)} local features in the images are too few for '
        f'{self.num_patterns} patterns'
      )
    if not np.isfinite(sample).all():
      raise errors.RunError(
        'a local feature of the untrained network is not finite; are the '
        '--backbone_weights of another network?'
      )
    kmeans = cluster.MiniBatchKMeans(
      self.num_patterns, batch_size=4096, n_init=3, random_state=seed
    )
    # Threads would wait for each other, and could add up in another order.
    with threadpoolctl.threadpool_limits(1):
      kmeans.fit(sample)
    if not self.built:
      self.build([None, None, None, sample.shape[1]])
    self.patterns.assign(kmeans.cluster_centers_)

  def get_config(self):
    return {
      **super().get_config(),
      'num_patterns': self.num_patterns,
      'decay': self.decay,
    }


def _centred(features, patterns):
  """Both less the mean pattern, which no difference between them depends on."""
  mean = tf.stop_gradient(tf.reduce_mean(patterns, axis=0))
  return features - mean, patterns - mean


def _assign(features, patterns, centred_features, centred_patterns, decay):
  """Eq. 1 without a tensor [..., K, D]; gradients go to the centred ones.

  The squared distances less ||F||^2, -2 F c_k + ||c_k||^2, are a matrix
  product; what it rounds, `decay` multiplies. So where the two nearest are
  almost as near, the difference is computed from their distances: in the
  closest calls, a fixed share of all for the sake of fixed shapes.
  """
  features, patterns = tf.stop_gradient(features), tf.stop_gradient(patterns)
  num_patterns, depth = patterns.shape

  @tf.custom_gradient
  def assign(centred_features, centred_patterns):
    shape = tf.concat([tf.shape(features)[:-1], [num_patterns]], axis=0)
    rows = tf.reshape(centred_features, [-1, depth])
    scaled = (2.0 * decay) * centred_patterns
    logits = tf.matmul(rows, scaled, transpose_b=True)
    logits -= decay * tf.reduce_sum(tf.square(centred_patterns), axis=1)
    if num_patterns > 1 and decay > _SMOOTH:
      plain = tf.reshape(features, [-1, depth])
      logits = _decide_close_calls(logits, plain, patterns, decay)
    shares = tf.nn.softmax(logits)

    def gradient(upstream):
      # With slopes z_k to the logits, whose sum over k is 0, those to F are
      # 2 decay sum_k z_k (c_k - F), without F; to c_k, of all rows,
      # 2 decay sum z_k (F - c_k).
      weighted = shares * tf.reshape(upstream, [-1, num_patterns])
      slopes = weighted - shares * tf.reduce_sum(weighted, 1, keepdims=True)
      to_features = tf.matmul(slopes, scaled)
      to_patterns = tf.matmul(slopes, rows, transpose_a=True)
      sums = tf.reduce_sum(slopes, axis=0)[:, tf.newaxis]
      return (
        tf.reshape(to_features, tf.shape(features)),
        (2.0 * decay) * to_patterns - sums * scaled,
      )

    return tf.reshape(shares, shape), gradient

  return assign(centred_features, centred_patterns)


def _decide_close_calls(logits, rows, patterns, decay):
  """logits [N, K] with those of the closest calls exact, up to a constant."""
  largest, order = tf.math.top_k(logits, 2)
  count = tf.shape(rows)[0]
  some = tf.minimum(count, tf.maximum(_CLOSE_CALLS, count // _ONE_IN))
  _, calls = tf.math.top_k(largest[:, 1] - largest[:, 0], some)
  rows, order = tf.gather(rows, calls), tf.gather(order, calls)

  near, far = (rows - tf.gather(patterns, order[:, k]) for k in (0, 1))
  # |near|^2 - |far|^2, as one sum of small terms.
  margins = (near - far) * (near + far)
  margins = decay * tf.reduce_sum(margins, axis=1, keepdims=True)
  close = tf.gather(logits, calls) - tf.gather(largest[:, :1], calls)
  is_second = tf.one_hot(order[:, 1], patterns.shape[0], True, False)
  close = tf.where(is_second, margins, close)
  return tf.tensor_scatter_nd_update(logits, calls[:, tf.newaxis], close)


def _aggregate(centred_features, centred_patterns, assignments):
  """Eq. 2: V [B, K, D] of F [B, N, D] and S [B, N, K]."""
  shares = tf.reduce_sum(assignments, axis=1)[..., tf.newaxis]
  sums = tf.matmul(assignments, centred_features, transpose_a=True)
  return sums - shares * centred_patterns


def _sample(batches, random):
  """float32 [n, D], n at most _POSITIONS, each position as likely as another.

  Vitter's algorithm R: position i replaces a random one of the sample with
  probability n / (i + 1).
  """
  sample, seen = None, 0
  for batch in tqdm.tqdm(batches, 'patterns', unit='batch', disable=None):
    rows = np.reshape(batch, [-1, batch.shape[-1]])
    if sample is None:
      sample = np.empty([_POSITIONS, rows.shape[1]], np.float32)
    places = np.arange(seen, seen + len(rows))
    places = np.where(
      places < _POSITIONS, places, random.integers(0, places + 1)
    )
    kept = places < _POSITIONS
    sample[places[kept]] = rows[kept]
    seen += len(rows)
    if seen >= _READ * _POSITIONS:
      break
  return np.empty([0, 0]) if sample is None else sample[:seen]
