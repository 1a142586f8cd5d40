"""GlassGPT."""
