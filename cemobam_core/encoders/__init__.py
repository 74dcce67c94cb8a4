"""From audio and transcripts to features: the pretrained encoders, their fine-tuning, and the extraction."""
