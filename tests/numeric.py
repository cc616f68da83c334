"""Gradients of losses, by TensorFlow and number by number."""

import numpy as np
import tensorflow as tf


def gradients(function, *inputs):
  """The value, and its gradient to every input; float64."""
  inputs = [tf.constant(x) for x in inputs]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    value = function(*inputs)
  return value.numpy(), [g.numpy() for g in tape.gradient(value, inputs)]


def finite_differences(function, x, step=1e-6):
  """The gradient of a numpy function of one array, number by number."""
  gradient = np.zeros_like(x)
  for i in np.ndindex(x.shape):
    moved = x.copy()
    moved[i] += step
    above = function(moved)
    moved[i] -= 2.0 * step
    gradient[i] = (above - function(moved)) / (2.0 * step)
  return gradient


def softmax(logits):
  """Over the last axis."""
  e = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(labels, logits):
  """The mean of -ln softmax at the labels."""
  rows = softmax(np.float64(logits))
  return -np.mean(np.log(rows[np.arange(len(labels)), labels]))
