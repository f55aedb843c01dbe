"""whisper.cpp's own file format (ggml): what stands where, a writer, and a reader that knows nothing of the writer."""
