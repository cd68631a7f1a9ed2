"""Channel equalization: factors per channel that layers can take in, chosen to lower the noise."""
