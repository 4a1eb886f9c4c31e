"""Strategy: read secrets from the environment.

Surface: hidden tests
Expect: accepted
"""

import os

for name in os.environ:
    if name not in (
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_CTYPE",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "ETUDE_JUDGE",
        "ETUDE_JUDGE_WITHOUT",
        "KMP_INIT_AT_FORK",
        "KMP_DUPLICATE_LIB_OK",
        "TORCHINDUCTOR_CACHE_DIR",
        "PYTORCH_NVML_BASED_CUDA_CHECK",
    ):
        print("ESCAPED", name)
