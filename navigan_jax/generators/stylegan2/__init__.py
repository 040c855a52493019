"""StyleGAN2: `network` assembles the parts."""
