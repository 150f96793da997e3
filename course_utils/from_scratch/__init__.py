"""Networks, optimizers and convolutions in NumPy, as lessons 01 to 03 write them."""
