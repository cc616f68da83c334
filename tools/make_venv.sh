#!/bin/sh
# Makes .venv with the pinned packages. TensorFlow 2.15 and tensorflow-addons
# exist for Python 3.9, 3.10 and 3.11 only: $PYTHON is used if it is one of
# these, else one from the PATH, else one that uv gets.
set -eu

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' \
    2>/dev/null
}

for python in "${PYTHON:-python3}" python3.11 python3.10 python3.9; do
  if supported "$python"; then
    echo "Making .venv with $("$python" --version); the packages take minutes."
    "$python" -m venv .venv
    exec .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      -r requirements-dev.txt
  fi
done

if command -v uv >/dev/null 2>&1; then
  echo 'Making .venv with a Python 3.11 from uv; the packages take minutes.'
  rm -rf .venv
  uv venv --quiet --python 3.11 .venv
  exec uv pip install --quiet --python .venv/bin/python -r requirements-dev.txt
fi

found=$("${PYTHON:-python3}" --version 2>&1 || true)
echo "error: tfda needs Python 3.9, 3.10 or 3.11, and there is ${found:-none};" \
  'install python3.11 (or uv, which gets one) and run make again' >&2
exit 2
