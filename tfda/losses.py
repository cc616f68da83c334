"""Losses: pure functions of tensors. Logits in, means out, in nats."""

import tensorflow as tf


def label_loss(labels, logits):
  """Mean cross-entropy of the labels.

  ln C for equal logits. For example labels = [0], logits = [[ln 3, 0]]:
  -ln(3/4) = 0.2877.

  Args:
    labels: [B] integers in [0, C).
    logits: [B, C].

  Returns:
    A scalar.
  """
  logits = tf.convert_to_tensor(logits)
  logits.shape.assert_has_rank(2)
  return tf.reduce_mean(
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  )


def domain_loss(source_logits, target_logits):
  """Binary cross-entropy of the domain; source is 1, target is 0.

  The mean over the source images and the mean over the target images, averaged,
  so that a batch with more images of one domain is not biased towards it.
  ln 2 = 0.6931 where the discriminator says one half everywhere. For example
  source_logits = [0], target_logits = [ln 3]: (ln 2 + ln 4) / 2 = 1.0397.

  Args:
    source_logits: [B] discriminator outputs on source features.
    target_logits: [B'] discriminator outputs on target features.

  Returns:
    A scalar.
  """
  source_logits = tf.convert_to_tensor(source_logits)
  target_logits = tf.convert_to_tensor(target_logits)
  source_logits.shape.assert_has_rank(1)
  target_logits.shape.assert_has_rank(1)
  # -log sigmoid(x) and -log(1 - sigmoid(x)) without overflow.
  source = tf.reduce_mean(tf.nn.softplus(-source_logits))
  target = tf.reduce_mean(tf.nn.softplus(target_logits))
  return 0.5 * (source + target)


def entropy(logits):
  """Entropy of softmax(logits) over the last axis, in nats.

  ln C for C equal logits, 0 for a certain prediction. For example the
  probabilities (1/2, 1/4, 1/4): 1.5 ln 2 = 1.0397.

  Args:
    logits: [..., C].

  Returns:
    [...] in [0, ln C].
  """
  logits = tf.convert_to_tensor(logits)
  logits.shape.with_rank_at_least(1)
  log_probabilities = tf.nn.log_softmax(logits)
  return -tf.reduce_sum(tf.exp(log_probabilities) * log_probabilities, axis=-1)


def binary_entropy(logits):
  """Entropy of the two outcomes with probability sigmoid(logits), in nats.

  ln 2 = 0.6931 at logit 0, 0 for a certain outcome. For example logit ln 3, the
  probabilities (3/4, 1/4): 2 ln 2 - 3/4 ln 3 = 0.5623.

  Args:
    logits: a tensor of any shape.

  Returns:
    The same shape, in [0, ln 2].
  """
  logits = tf.convert_to_tensor(logits)
  # No differences: exact for certain outcomes too.
  return tf.sigmoid(logits) * tf.nn.softplus(-logits) + tf.sigmoid(
    -logits
  ) * tf.nn.softplus(logits)


def attentive_entropy(class_logits, domain_logits):
  """Mean of (1 + H(d)) H(p): the entropy of the classes, attended by domain.

  Wang et al. 2019 (TADA), Eq. 6-7: an image whose domain is hard to tell is
  held to a certain prediction the most. Gradients flow through both factors;
  stop that of `domain_logits` for an attention that is a weight alone. For
  example class_logits = [[0, 0], [0, 0]], domain_logits = [0, ln 3]:
  ln 2 (1.6931 + 1.5623) / 2 = 1.1283.

  Args:
    class_logits: [B, C].
    domain_logits: [B] outputs of the domain discriminator.

  Returns:
    A scalar.
  """
  class_logits = tf.convert_to_tensor(class_logits)
  domain_logits = tf.convert_to_tensor(domain_logits)
  class_logits.shape.assert_has_rank(2)
  domain_logits.shape.assert_is_compatible_with(class_logits.shape[:1])
  attention = 1.0 + binary_entropy(domain_logits)
  return tf.reduce_mean(attention * entropy(class_logits))


def attention_map(features, aggregation='squares'):
  """Where a network looks: the energy of the features at every position.

  Kang et al. 2018, Eq. 4: sum_c |F_c|^2 at every position, flattened row by
  row, divided by its L2 norm as in Eq. 5. For example a map of 1 x 2 positions
  with the features [1, 1, 1] and [2, 0, 0]: the sums 3 and 4, [0.6, 0.8].

  Args:
    features: [B, H, W, C], the feature maps of one layer.
    aggregation: 'squares', or as in Table A1: 'absolute', sum_c |F_c| (L1);
      'maximum', max_c |F_c| (L-infinity); 'raw', F itself, [B, H W C].

  Returns:
    [B, H W] of norm 1, in [0, 1]; of 'raw' [B, H W C], in [-1, 1]; 0 where all
    features of an image are, and no gradient there.

  Raises:
    ValueError: another aggregation.
  """
  features = at_least_float32(features)
  features.shape.assert_has_rank(4)
  kinds = {
    'squares': lambda: tf.reduce_sum(tf.square(features), axis=-1),
    'absolute': lambda: tf.reduce_sum(tf.abs(features), axis=-1),
    'maximum': lambda: tf.reduce_max(tf.abs(features), axis=-1),
    'raw': lambda: features,
  }
  if aggregation not in kinds:
    raise ValueError(f'aggregation {aggregation}; one of {list(kinds)}')
  energies = kinds[aggregation]()
  known = energies.shape[1:].num_elements()  # Else only when it runs.
  width = tf.reduce_prod(tf.shape(energies)[1:]) if known is None else known
  flat = tf.reshape(energies, [-1, width])
  # Small features are no darker than large ones. The quotient below does not
  # depend on this scale, so it has no gradient.
  scale = tf.stop_gradient(tf.reduce_max(tf.abs(flat), axis=1, keepdims=True))
  flat = tf.math.divide_no_nan(flat, scale)
  return tf.math.l2_normalize(flat, axis=-1, epsilon=1e-12)


def attention_distance(reference, features):
  """Mean distance of two networks' attention to pairs of images.

  One of the four pairings of Kang et al. 2018, Eq. 5, at one layer: the L2
  norm, not squared, of the difference of the attention maps. For example, at
  1 x 2 positions, reference = [1, 1, 1], [2, 0, 0] and features = [5, 0, 0],
  [0, 0, 0]: the maps [0.6, 0.8] and [1, 0] are 0.8944 apart; the mean with a
  pair of equal maps is 0.4472.

  Args:
    reference: [B, H, W, C], of the fixed network; no gradient reaches it.
    features: [B, H, W, C'], of the trained network.

  Returns:
    A scalar in [0, sqrt 2], 1e-6 where all maps are equal: the two networks
    start equal, where the gradient of a plain norm is not a number.
  """
  reference = tf.stop_gradient(reference)
  features = tf.convert_to_tensor(features)
  reference.shape[:3].assert_is_compatible_with(features.shape[:3])
  return map_distance(attention_map(reference), attention_map(features))


def map_distances(references, maps, kind='l2'):
  """The sum over layers of how far attention maps are from each other.

  Args:
    references: flattened maps [B, N], one a layer; no gradient reaches them.
    maps: [B, N], likewise.
    kind: 'l2' or 'l1', of `map_distance`; 'mmd', of `multi_kernel_mmd`; 'jmmd',
      of `joint_mmd`, over all layers together.

  Returns:
    A scalar.

  Raises:
    ValueError: another kind.
  """
  references = [tf.stop_gradient(reference) for reference in references]
  if kind == 'jmmd':
    return joint_mmd(references, maps)
  kinds = {
    'l2': map_distance,
    'l1': lambda *pair: map_distance(*pair, norm='l1'),
    'mmd': multi_kernel_mmd,
  }
  if kind not in kinds:
    raise ValueError(f'kind {kind}; one of {[*kinds, "jmmd"]}')
  return tf.add_n([kinds[kind](*pair) for pair in zip(references, maps)])


def map_distance(reference, maps, norm='l2'):
  """Mean distance of pairs of flattened maps; see `attention_distance`.

  For example [0.6, 0.8] and [1, 0]: 0.8944 by the L2 norm, 1.2 by the L1 norm.

  Args:
    reference: [B, N]; a gradient reaches it too.
    maps: [B, N].
    norm: 'l2', not squared, or 'l1'.

  Returns:
    A scalar.

  Raises:
    ValueError: another norm.
  """
  if norm not in ('l1', 'l2'):
    raise ValueError(f'norm {norm}; l1 or l2')
  differences = maps - reference
  if norm == 'l1':
    return tf.reduce_mean(tf.reduce_sum(tf.abs(differences), axis=-1))
  squares = tf.reduce_sum(tf.square(differences), axis=-1)
  return tf.reduce_mean(tf.sqrt(squares + 1e-12))


def multi_kernel_mmd(source, target):
  """Squared maximum mean discrepancy under a sum of five Gaussian kernels.

  As Long et al. 2015 (DAN) and its code:

    mean k(s, s') + mean k(t, t') - 2 mean k(s, t)
    k(x, y) = sum_i exp(-||x - y||^2 / (2^i b)),  i = -2..2

  with b the mean of ||x - y||^2 over all pairs of two different rows of both
  together, a constant. For example source = [[0]], target = [[1]]: b = 1,
  k(s, t) = e^-4 + e^-2 + e^-1 + e^-0.5 + e^-0.25 = 1.9069, 10 - 3.8137 =
  6.1863.

  Args:
    source: [B, D].
    target: [B', D].

  Returns:
    A scalar in [0, 10], 0 where both are the same rows.
  """
  return joint_mmd([source], [target])


def joint_mmd(sources, targets):
  """`multi_kernel_mmd` of several layers together (JMMD, Long et al. 2017).

  The kernel is the product of the layers' kernels, each with its own b, as
  means of the five and then five times it: a product of many sums overflows.
  With one layer twice, in the example of `multi_kernel_mmd`, k(s, s) = 5 and
  k(s, t) = 1.9069^2 / 5: 10 - 1.4544 = 8.5456.

  Args:
    sources: [B, D], one a layer; the widths may differ.
    targets: [B', D], likewise.

  Returns:
    A scalar in [0, 10].
  """
  kernels = 5.0
  for source, target in zip(sources, targets):
    rows = tf.concat([source, target], axis=0)
    rows.shape.assert_has_rank(2)
    kernels *= _mean_kernel(at_least_float32(rows))
  of_source = tf.shape(sources[0])[0]
  source_rows, target_rows = kernels[:of_source], kernels[of_source:]
  return (
    tf.reduce_mean(source_rows[:, :of_source])
    + tf.reduce_mean(target_rows[:, of_source:])
    - 2.0 * tf.reduce_mean(source_rows[:, of_source:])
  )


def _mean_kernel(rows):
  """[N, D] -> the mean of the five kernels for every pair of rows, [N, N]."""
  # Distances do not depend on the mean, their digits do.
  rows -= tf.stop_gradient(tf.reduce_mean(rows, axis=0))
  squares = tf.reduce_sum(tf.square(rows), axis=1)
  distances = squares[:, tf.newaxis] + squares
  distances -= 2.0 * tf.matmul(rows, rows, transpose_b=True)
  distances = tf.maximum(distances, 0.0)
  count = tf.cast(tf.shape(rows)[0], rows.dtype)
  bandwidth = tf.stop_gradient(tf.reduce_sum(distances)) / (count**2 - count)
  scaled = tf.math.divide_no_nan(distances, bandwidth)
  return tf.add_n([tf.exp(-scaled / 2.0**i) for i in range(-2, 3)]) / 5.0


def correlation_alignment(source, target):
  """How far apart the covariances of two domains' features are.

  Sun & Saenko 2016 (Deep CORAL), Eq. 1-3: ||C_s - C_t||_F^2 / (4 D^2), the
  covariances divided by B - 1. For example source = [[0, 0], [2, 2]], target =
  [[0, 0], [0, 2]]: C_s = [[2, 2], [2, 2]], C_t = [[0, 0], [0, 2]], and (4 + 4 +
  4 + 0) / 16 = 0.75.

  Args:
    source: [B, D], B at least 2.
    target: [B', D], B' at least 2.

  Returns:
    A scalar.
  """
  source, target = at_least_float32(source), at_least_float32(target)
  source.shape.assert_has_rank(2)
  target.shape.assert_has_rank(2)
  source.shape[1:].assert_is_compatible_with(target.shape[1:])
  width = tf.cast(tf.shape(source)[1], source.dtype)
  difference = _covariance(source) - _covariance(target)
  return tf.reduce_sum(tf.square(difference / (2.0 * width)))


def _covariance(rows):
  """[N, D] -> [D, D]; Eq. 2-3 of Deep CORAL lose digits far from zero."""
  rows -= tf.reduce_mean(rows, axis=0)
  count = tf.cast(tf.shape(rows)[0], rows.dtype)
  return tf.matmul(rows, rows, transpose_a=True) / (count - 1.0)


def expectation_maximization(posterior, logits, threshold=0.95):
  """Cross-entropy of predictions with the posterior of another network.

  Kang et al. 2018, one sum of Eq. 11, as a mean over the whole batch:

    -sum_z p_post(z) log p(z), or 0 where max_z p_post(z) < p_t   (Section 3.3B)

  For example posterior = [0.95, 0.05], [0.6, 0.4] and logits = [ln 3, 0] of
  both: the second is dropped, 0.95 ln(4/3) + 0.05 ln 4 = 0.3426 is halved,
  0.1713.

  Args:
    posterior: [B, C] probabilities, p_post; no gradient reaches them. For
      translated images, those of the images that they were made of.
    logits: [B, C], those of p.
    threshold: p_t. 1 keeps the posteriors that are rounded to 1, anything above
      keeps none.

  Returns:
    A scalar.
  """
  posterior = tf.stop_gradient(at_least_float32(posterior))
  logits = at_least_float32(logits)
  logits.shape.assert_has_rank(2)
  posterior.shape.assert_is_compatible_with(logits.shape)
  cross_entropies = -tf.reduce_sum(
    posterior * tf.nn.log_softmax(logits), axis=-1
  )
  kept = tf.reduce_max(posterior, axis=-1) >= threshold
  return tf.reduce_mean(tf.where(kept, cross_entropies, 0.0))


def gradient_synchronization(
  domain_norms,
  group_norms,
  class_norms,
  class_to_group,
  squared=False,
  mean_over_groups=True,
):
  """How far apart domain-, group- and class-level alignment pull.

  Hu et al. 2020 (GSDA), Eq. 10-12: the norms of one sample's gradients, summed
  over the samples, should be as large for a group as for its classes together,
  and for the domain as for all groups together,

    1/b sum_q |sum_i g_iq - sum_{k in q} sum_i g_ik| + |sum_i g_i - sum_iq g_iq|

  For example domain_norms = [3, 1], group_norms = [[1, 1], [0, 1]], class_norms
  = [[1, 0], [0, 0.5], [0, 2]], class_to_group = [0, 0, 1]: the sums are 4; 2
  and 1; 1, 0.5 and 2, so (|2 - 1.5| + |1 - 2|) / 2 + |4 - 3| = 1.75.

  Args:
    domain_norms: [n] of the gradients of the domain discriminator's loss.
    group_norms: [b, n] of those of the groups' discriminators.
    class_norms: [r, n] of those of the classes' discriminators.
    class_to_group: [r] integers in [0, b), the group of each class.
    squared: the squares of the differences, not their absolute values.
    mean_over_groups: the factor 1/b of Eq. 12; without, the sum.

  Returns:
    A scalar. It is not linear in sums over samples: with several replicas, give
    it the sums over all of them, as norms of n = 1 sample.
  """
  domain_norms = tf.convert_to_tensor(domain_norms)
  group_norms = tf.convert_to_tensor(group_norms)
  class_norms = tf.convert_to_tensor(class_norms)
  domain_norms.shape.assert_has_rank(1)
  group_norms.shape.assert_has_rank(2)
  class_norms.shape.assert_has_rank(2)
  domain = tf.reduce_sum(domain_norms)
  groups = tf.reduce_sum(group_norms, axis=1)
  of_classes = tf.math.unsorted_segment_sum(
    tf.reduce_sum(class_norms, axis=1), class_to_group, tf.size(groups)
  )
  distance = tf.square if squared else tf.abs
  over_groups = tf.reduce_mean if mean_over_groups else tf.reduce_sum
  group_gap = over_groups(distance(groups - of_classes))  # Eq. 10, 12
  return group_gap + distance(domain - tf.reduce_sum(groups))  # Eq. 11


def assignment_sparsity(assignments, threshold=0.02):
  """The sparse loss of local features' assignments to patterns.

  Wen et al. 2019, Eq. 3: the mean over positions of max(H(S), m). As printed,
  max(sum S ln S, m) is m everywhere, as no sum of S ln S is above 0; this is
  the reading that its text describes. For example the assignments (1/2, 1/2)
  and (1, 0) with m = 0.02: (ln 2 + 0.02) / 2 = 0.3566.

  Args:
    assignments: [..., K], S; non-negative, of sum 1.
    threshold: m, in nats; a position whose entropy is below it has no gradient.

  Returns:
    A scalar in [m, ln K].
  """
  assignments = tf.convert_to_tensor(assignments)
  assignments.shape.with_rank_at_least(1)
  # xlogy has 0 ln 0 = 0, and no gradient there in place of an infinite one.
  entropies = -tf.reduce_sum(tf.math.xlogy(assignments, assignments), axis=-1)
  return tf.reduce_mean(tf.maximum(entropies, threshold))


def at_least_float32(x):
  """The tensor, in float32 where it is of half precision."""
  x = tf.convert_to_tensor(x)
  return tf.cast(x, tf.float32) if x.dtype.size < 4 else x
