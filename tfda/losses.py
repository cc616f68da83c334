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
