"""Clusters as flags and TF_CONFIG give them; one worker alone."""

import json
import socket
import types

import pytest
import tensorflow as tf

from tfda import distribution, errors


def cluster(workers=None, worker_index=None):
  return distribution.cluster(
    types.SimpleNamespace(workers=workers, worker_index=worker_index)
  )


def test_flags_name_the_workers():
  assert cluster('a:1,b:2', 1) == (['a:1', 'b:2'], 1)


@pytest.mark.parametrize(
  'config, expected',
  [
    (
      {
        'cluster': {'worker': ['a:1', 'b:2']},
        'task': {'type': 'worker', 'index': 1},
      },
      (['a:1', 'b:2'], 1),
    ),
    # The chief is the first of all; workers are counted from it.
    (
      {
        'cluster': {'worker': ['b:2', 'c:3'], 'chief': ['a:1']},
        'task': {'type': 'worker', 'index': '1'},
      },
      (['a:1', 'b:2', 'c:3'], 2),
    ),
    (
      {
        'cluster': {'worker': ['b:2'], 'chief': ['a:1']},
        'task': {'type': 'chief', 'index': 0},
      },
      (['a:1', 'b:2'], 0),
    ),
  ],
)
def test_environment_names_the_workers(config, expected, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', json.dumps(config))
  assert cluster() == expected
  assert cluster('z:9', 0) == (['z:9'], 0)  # A flag goes before it.


@pytest.mark.parametrize(
  'workers, index, message',
  [
    ('a:1,b:2', None, '--workers needs --worker_index'),
    ('a:1,b:2', 2, 'there is no worker 2 among 2'),
    ('a:1,b', 0, "'b' is not host:port"),
    ('a:1,:2', 0, "':2' is not host:port"),
    ('a:1,b:70000', 0, "'b:70000' is not host:port"),
    ('a:1,a:1', 0, 'names an address twice'),
    (None, None, '--strategy=multi_worker needs --workers'),
  ],
)
def test_workers_that_do_not_fit_are_refused(
  workers, index, message, monkeypatch
):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  with pytest.raises(errors.UsageError, match=message):
    cluster(workers, index)


@pytest.mark.parametrize(
  'text',
  [
    'worker',
    '{}',
    '{"cluster": {"worker": ["a:1"]}}',
    '{"cluster": {"ps": ["a:1"], "worker": ["b:2"]}, '
    '"task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}, '
    '"task": {"type": "evaluator", "index": 0}}',
  ],
)
def test_environment_that_is_no_cluster_is_refused(text, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', text)
  with pytest.raises(errors.UsageError, match='TF_CONFIG: not a cluster'):
    cluster()


def test_port_in_use_is_refused():
  with socket.socket() as taken:
    taken.bind(('', 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(errors.UsageError, match=f'port {port} of this worker'):
      distribution.make_strategy(
        types.SimpleNamespace(
          strategy='multi_worker',
          workers=f'localhost:{port},localhost:1',
          worker_index=0,
        )
      )


def test_tpu_that_is_not_there_is_refused():
  with pytest.raises(errors.UsageError, match='no TPU was found'):
    distribution.make_strategy(types.SimpleNamespace(strategy='tpu'))


def test_one_worker_is_its_own_chief():
  workers = distribution.Workers(tf.distribute.get_strategy())
  assert (workers.count, workers.index, workers.is_chief) == (1, 0, True)
  assert workers.sum([3, 0]) == [3, 0]
  workers.agree(lambda: pytest.fail('there is nobody to agree with'))
