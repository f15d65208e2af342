"""The transparency log: written here, witnessed here, audited from anywhere."""
