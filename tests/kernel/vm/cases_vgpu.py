"""The vGPU in a process, with real dma-bufs."""
