"""dma-buf mode: the kernel's mbochs."""
