"""Extractors and LightGlue as ONNX files: the graphs, the file with its metadata, and its reader."""
