"""What advertisers and sales are handed: delivery and attribution as files, each with a manifest of what it holds."""
