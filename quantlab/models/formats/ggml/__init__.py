"""whisper.cpp's file format (ggml): layout, writer, and an independent reader."""
