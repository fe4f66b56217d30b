"""What a test says when it is skipped for want of something: what is missing, and where to get it."""


def from_dev(package: str) -> str:
    """For a package that `make test` installs wherever it has wheels."""
    return f"{package} is not installed; pip install 'gar-edge[dev]' brings it on x86-64"


CUDA_COMPILER = f"neither nvcc nor NVRTC can be used: {from_dev('nvidia-cuda-nvrtc, or cuda-bindings,')}"
NVCC = "nvcc is not installed; it comes with NVIDIA's CUDA toolkit"
HOST_COMPILER = "g++, which compiles the kernels for the host, is not installed; apt install g++"
PACKAGE_INDEX = "no package index can be reached, to install gar-edge[cpu] from; name one with PIP_INDEX_URL"
GREEK_FONT = "DejaVu Sans, which has Greek and Cyrillic, is not installed; apt install fonts-dejavu-core"
ANOTHER_USER = "root may write anywhere; run the tests as another user"
STRACE = "strace, which shows what a program asks of the system, is not installed; apt install strace"
CHROMIUM = "Chromium, in which the page is tried, is not installed; apt install chromium"
CURL = "curl is not installed; apt install curl"
RAY = "Ray is not installed: 360 MB, and half a minute; make test-many brings it, and runs these"
