"""The judge of photographs: pretrained models that are found, never downloaded."""
