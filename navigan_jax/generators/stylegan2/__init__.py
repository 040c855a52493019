"""StyleGAN2: `network` puts the parts together."""
