"""A history of generated images, for a discriminator."""

import tensorflow as tf


class ImagePool(tf.Module):
  """Hands out images of the past for half of those it is given.

  Shrivastava et al., "Learning from Simulated and Unsupervised Images through
  Adversarial Training", CVPR 2017, Section 2.3; an image after the other, as in
  CycleGAN's code. Until the pool is full, an image enters it and is returned.
  Then, with even odds, an image is returned and forgotten, or it takes the
  place of a random one of the pool, which is returned. For example with room
  for one, images a b c d and the draws swap, keep, swap for b c d: a enters
  and is returned, a is returned for b, c for c, and b for d.

  There is no generator of random numbers here, and no counter: the caller has
  both, and the content is a variable, for checkpoints.
  """

  def __init__(self, size, image_shape):
    """Makes an empty pool.

    Args:
      size: images it has room for; with 0 all are returned as they are.
      image_shape: of an image.
    """
    super().__init__()
    self.images = tf.Variable(
      tf.zeros([size, *image_shape]),
      trainable=False,
      aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
      name='pool',
    )

  def exchange(self, images, seen, draws):
    """Puts in a batch and takes one out.

    Args:
      images: [B, ...].
      seen: scalar int64, images that were given before.
      draws: float32 [B, 2] in [0, 1), whether to swap and with which.

    Returns:
      [B, ...].
    """
    size, count = self.images.shape[0], images.shape[0]
    if not size:
      return images
    rows, slots = tf.range(count), tf.range(size)
    enters = seen + tf.cast(rows, tf.int64) < size
    swaps = ~enters & (draws[:, 0] < 0.5)
    free = tf.cast(tf.minimum(seen, size), tf.int32) + rows
    slot = tf.where(enters, free, tf.cast(draws[:, 1] * float(size), tf.int32))
    writes = (enters | swaps)[tf.newaxis]
    # An image may take the place of one of its own batch: the latest before it.
    same = (slot[:, tf.newaxis] == slot) & writes & (rows[:, tf.newaxis] > rows)
    before = tf.reduce_max(tf.where(same, rows, -1), axis=1)
    old = tf.where(before < 0, slot, size + before)
    into = writes & (slots[:, tf.newaxis] == slot)
    last = tf.reduce_max(tf.where(into, rows, -1), axis=1)
    both = tf.concat([self.images, images], axis=0)
    self.images.assign(tf.gather(both, tf.where(last < 0, slots, size + last)))
    return tf.gather(both, tf.where(swaps, old, size + rows))
