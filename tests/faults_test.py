"""What happens to a run when its processes, files or machines fail."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import data_files, harness, processes
from tfda import checkpoints, launcher

pytestmark = pytest.mark.slow


def weights(run_dir):
  """{name: value} of the last checkpoint, without its clock."""
  last = checkpoints.paths(os.path.join(run_dir, 'checkpoints'))[-1]
  reader = tf.train.load_checkpoint(last)
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith(('seconds', 'save_counter', '_CHECKPOINTABLE'))
  }


def assert_same(run_dir, other, tolerance=0.0):
  """All that is saved is the same; the weights, where there is a tolerance."""
  one, two = weights(run_dir), weights(other)
  assert set(one) == set(two)
  if tolerance:
    one = {k: v for k, v in one.items() if k.startswith('model/')}
  for name, value in one.items():
    np.testing.assert_allclose(
      value, two[name], rtol=0.0, atol=tolerance, err_msg=name
    )


def has_checkpoint(run_dir):
  return lambda: bool(checkpoints.paths(os.path.join(run_dir, 'checkpoints')))


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """The run directory of two workers to whom nothing happens."""
  path = tmp_path_factory.mktemp('runs') / 'undisturbed'
  for code, output in processes.finish(*processes.start_workers(path)):
    assert code == 0, output
  return path


@pytest.mark.parametrize(
  'method, steps',
  # In more steps of the last, rounding decides: conformance_test.
  [('dann', 20), ('gsda', 20), ('local_feature_patterns', 8)],
)
def test_two_workers_train_as_one_process(method, steps, tmp_path):
  flags = [f'--method={method}', f'--steps={steps}', '--evaluate_every=20']
  flags += [f'--{method}.{k}={v}' for k, v in harness.narrow(method).items()]
  one = processes.start(tmp_path / 'one', *flags)
  (ending,) = processes.finish(one)
  assert ending[0] == 0, ending[1]
  two = processes.start_workers(tmp_path / 'two', *flags)
  for code, output in processes.finish(*two):
    assert code == 0, output
  assert_same(tmp_path / 'one', tmp_path / 'two', 1e-5)


@pytest.mark.parametrize('victim', [0, 1])
def test_worker_killed_in_a_step_changes_nothing(victim, undisturbed, tmp_path):
  run_dir = tmp_path / 'run'
  workers = processes.start_workers(run_dir)
  processes.wait_for(has_checkpoint(run_dir), *workers)
  workers[victim].kill()
  endings = processes.finish(*workers)
  assert endings[victim][0] == -signal.SIGKILL
  code, output = endings[1 - victim]
  assert code == 1
  assert output.splitlines()[-1].startswith('error: another worker stopped')
  assert 'Traceback' not in output
  assert not (run_dir / 'results.json').exists()
  again = processes.finish(*processes.start_workers(run_dir))
  for code, output in again:
    assert code == 0, output
    assert 'going on at step' in output
  assert_same(run_dir, undisturbed)


def test_terminated_worker_stops_all_at_one_step(undisturbed, tmp_path):
  run_dir = tmp_path / 'run'
  # Told of its first step, the signal comes before the last on a busy machine.
  workers = processes.start_workers(
    run_dir, '--checkpoint_every=40', '--log_every=1'
  )
  processes.wait_for((run_dir / 'metrics.csv').exists, *workers)
  began = time.time()
  workers[1].send_signal(signal.SIGTERM)
  endings = processes.finish(*workers)
  (saved,) = checkpoints.paths(run_dir / 'checkpoints')
  assert os.path.getmtime(f'{saved}.index') - began < 10.0
  for code, output in endings:
    assert code == 0, output
    assert 'the same command goes on from there' in output
  step = weights(run_dir)['model/step/.ATTRIBUTES/VARIABLE_VALUE']
  assert 1 <= step < 40
  for code, output in processes.finish(*processes.start_workers(run_dir)):
    assert code == 0, output
  assert_same(run_dir, undisturbed)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_worker_that_waits_for_the_others_can_be_stopped(number, tmp_path):
  addresses = [f'localhost:{port}' for port in launcher.free_ports(2)]
  alone = processes.start(
    tmp_path / 'run',
    '--strategy=multi_worker',
    f'--workers={",".join(addresses)}',
    '--worker_index=0',
  )
  assert f'waits for {addresses[1]}' in alone.stdout.readline()
  alone.send_signal(number)
  ((code, output),) = processes.finish(alone)
  assert (code, output) == (
    (130, 'interrupted\n') if number == signal.SIGINT else (-number, '')
  )


def test_chief_killed_while_it_writes_a_checkpoint(undisturbed, tmp_path):
  run_dir = tmp_path / 'run'
  folder = run_dir / 'checkpoints'

  def writing_the_second():
    return folder.exists() and any(
      name.startswith('ckpt-20') for name in os.listdir(folder)
    )

  workers = processes.start_workers(run_dir)
  processes.wait_for(writing_the_second, *workers)
  workers[0].kill()
  processes.finish(*workers)
  for code, output in processes.finish(*processes.start_workers(run_dir)):
    assert code == 0, output
    assert 'going on at step' in output
  assert_same(run_dir, undisturbed)


def refusals(*workers):
  """The last lines of workers that are refused."""
  endings = processes.finish(*workers)
  for code, output in endings:
    assert code == 2, output
    assert 'Traceback' not in output
  return [output.splitlines()[-1] for _, output in endings]


def test_worker_with_other_flags_is_refused(tmp_path):
  chief = processes.start_workers(
    tmp_path / 'run', each=({}, {'more': ['--learning_rate=0.02']})
  )
  chief_line, line = refusals(*chief)
  assert line == (
    'error: worker 1 does not fit the chief: --learning_rate is 0.02, 0.01 on '
    'the chief'
  )
  assert 'another worker has other settings' in chief_line
  assert not (tmp_path / 'run').exists()


def test_worker_with_other_data_is_refused(tmp_path):
  for index in range(2):
    for i, name in enumerate(('a/1.png', 'a/2.png', 'b/1.png', 'b/2.png')):
      image = data_files.noise(8, 8, 3, seed=i + 10 * index * (i == 2))
      data_files.write(tmp_path / str(index) / 'parts' / name, image)
  workers = processes.start_workers(
    tmp_path / 'run',
    '--source=folder:parts',
    '--target=folder:parts',
    each=[{'cwd': tmp_path / str(index)} for index in range(2)],
  )
  chief_line, line = refusals(*workers)
  assert line.startswith('error: worker 1 does not fit the chief: source train')
  assert 'another worker has other settings' in chief_line


def test_run_directory_that_is_not_shared_is_refused(tmp_path):
  places = [tmp_path / str(index) for index in range(2)]
  for place in places:
    place.mkdir()
  workers = processes.start_workers('run', each=[{'cwd': p} for p in places])
  chief_line, line = refusals(*workers)
  assert (
    chief_line == 'error: --run_dir=run is not the same folder on all workers'
  )
  assert line == f"{chief_line}: worker 1 does not see the chief's"


def on_small_disk(folder, kilobytes):
  """Words before a command for which `folder` is so small a file system."""
  words = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
  mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs {folder}'
  folder.mkdir()
  if subprocess.run([*words, mount], capture_output=True).returncode:
    pytest.skip('this system lends no file systems (unshare, mount)')
  # It ends with the command; what was on it is kept beside it.
  script = (
    f'{mount} && "$@"; code=$?; cp -r {folder}/. {folder}.kept; exit $code'
  )
  return [*words, script, 'sh']


def test_full_disk_in_training_keeps_the_checkpoint_before(
  undisturbed, tmp_path
):
  disk = tmp_path / 'disk'
  folder = undisturbed / 'checkpoints'
  size = sum(path.stat().st_size for path in folder.glob('ckpt-40.*')) // 1024
  small = on_small_disk(disk, int(1.5 * size))
  ((code, output),) = processes.finish(
    processes.start(disk / 'run', wrapper=small)
  )
  assert code == 1
  assert 'Traceback' not in output
  line = output.splitlines()[-1]
  assert line.startswith(
    'error: the checkpoint of step 20 could not be written'
  )
  assert line.endswith('the one before is kept')
  kept = tmp_path / 'disk.kept' / 'run'
  ((code, output),) = processes.finish(
    processes.start(kept, f'--run_dir={kept}')
  )
  assert code == 0, output
  assert 'going on at step 10' in output
  assert_same(kept, undisturbed, 1e-5)


def test_full_disk_in_export_leaves_no_version(undisturbed, tmp_path):
  small = on_small_disk(tmp_path / 'disk', 200)
  export = subprocess.run(
    [
      *small,
      sys.executable,
      '-m',
      'tools.export',
      f'--run_dir={undisturbed}',
      f'--out={tmp_path}/disk/models',
    ],
    cwd=processes.ROOT,
    capture_output=True,
    text=True,
  )
  assert export.returncode == 1
  assert 'could not be written' in export.stderr.splitlines()[-1]
  assert os.listdir(tmp_path / 'disk.kept') == []


def test_launcher_starts_all_again_when_one_is_killed(undisturbed, tmp_path):
  run_dir = tmp_path / 'run'
  words = processes.command(run_dir)
  started = subprocess.Popen(
    [*words[:2], 'tools.launch', '--restarts=1', 'train', *words[3:]],
    cwd=processes.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  processes.wait_for(has_checkpoint(run_dir), started)
  worker = '--worker_index=1'
  children = subprocess.run(
    ['ps', '-ww', '--ppid', str(started.pid), '-o', 'pid=,args='],
    capture_output=True,
    text=True,
  ).stdout.splitlines()
  (pid,) = (int(line.split()[0]) for line in children if worker in line)
  os.kill(pid, signal.SIGKILL)
  ((code, output),) = processes.finish(started)
  assert code == 0, output
  assert 'worker 1: killed by signal 9' in output
  assert 'going on at step' in output
  assert_same(run_dir, undisturbed)
