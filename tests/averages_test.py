import numpy as np
import pytest
import tensorflow as tf

from tfda import averages


def test_means_since_the_last_reset():
  means = averages.Averages(('label', 'domain'))
  assert means.result() == {'label': 0.0, 'domain': 0.0}
  means.add({'domain': 5.0, 'label': tf.constant(1.0, tf.float16)})
  means.add({'domain': 6.0, 'label': 4.0, 'another': 7.0})
  assert means.result() == {'label': 2.5, 'domain': 5.5}
  means.reset()
  means.add({'domain': 8.0, 'label': -1.0})
  assert means.result() == {'label': -1.0, 'domain': 8.0}


@pytest.mark.parametrize('traced', [False, True])
def test_step_of_two_replicas_counts_once(traced, tmp_path):
  one = averages.Averages(('label',))
  one.add({'label': 6.0})
  strategy = tf.distribute.MirroredStrategy(
    ['CPU:0', 'CPU:1'], tf.distribute.ReductionToOneDevice()
  )
  with strategy.scope():
    two = averages.Averages(('label',))

  def step():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    two.add({'label': tf.cast(replica, tf.float32)})  # 0 and 1.

  def run():
    strategy.run(step)

  run = tf.function(run) if traced else run
  run()
  np.testing.assert_allclose(two.result()['label'], 0.5)
  # A checkpoint of one step on one replica goes on with one on two.
  path = tf.train.Checkpoint(means=one).write(str(tmp_path / 'means'))
  tf.train.Checkpoint(means=two).read(path).assert_consumed()
  run()
  np.testing.assert_allclose(two.result()['label'], (6.0 + 0.5) / 2)
