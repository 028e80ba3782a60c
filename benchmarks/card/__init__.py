"""The parts of gpu.py. The folder isn't called `cuda`, which would hide NVIDIA's package of that name from Triton."""
