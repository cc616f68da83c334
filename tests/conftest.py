"""For all tests: two logical CPU devices, and no cache but one of their own."""

import os
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Of decoded images; processes that tests start have it too.
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='tfda_cache_')

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(scope='module')
def graphs_as_traced():
  """To optimise them costs more than their few steps; real runs test that."""
  options = tf.config.optimizer.get_experimental_options()
  changed = {'disable_meta_optimizer': True}
  tf.config.optimizer.set_experimental_options(changed)
  yield
  restored = {'disable_meta_optimizer': False, **options}
  tf.config.optimizer.set_experimental_options(restored)
