"""For all tests: two logical CPU devices, and no cache but one of their own."""

import os
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Of decoded images; processes that tests start have it too.
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='tfda_cache_')

import tensorflow as tf  # noqa: E402

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)
