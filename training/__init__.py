"""The batch job: history in, a model bundle out."""

import os

# Before TensorFlow is imported anywhere below: its news is no news to an operator, rounding must not depend on the
# library's choice of kernels, and a keras.json in somebody's home must not choose another backend.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
