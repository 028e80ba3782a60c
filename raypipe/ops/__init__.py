"""The mathematics of the papers: pure functions of tensors and arrays, one idea in each file."""
