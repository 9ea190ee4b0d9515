"""What runs inside other programs: ComfyUI nodes, and local drawing for diffusers."""
