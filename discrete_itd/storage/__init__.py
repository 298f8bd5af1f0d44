"""Model files: safetensors with a JSON header, read without running code."""
