"""The served model as a file for other programs: torch.export or ONNX. torch alone; onnxscript where ONNX is asked for."""
